"""What an autoencoder's run keeps of images, and what its latents are like, with a file and a picture of it."""

from __future__ import annotations

import math
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64, UInt8
from torch import Tensor

from trilemma.data import check_png, write_png
from trilemma.evaluations.choosing import features_for
from trilemma.evaluations.extractors import extractor_of
from trilemma.evaluations.reference import data_record
from trilemma.jobs.subjects import open_like, subject
from trilemma.machine.devices import process_state
from trilemma.machine.environment import environment
from trilemma.machine.files import check_writable, write_json
from trilemma.machine.progress import progress
from trilemma.metrics import Features, Statistics, extract, frechet_distance, gathered_cautions
from trilemma.metrics.frechet import frechet_standard_error
from trilemma.metrics.latent_moments import LatentMoments
from trilemma.process import image_grid, stream_seed, to_model, to_uint8
from trilemma.runs.run import Run
from trilemma.training.bounds import standard_kl

FORMAT = "trilemma-codec/1"

SHOWN = 20
"""Images in the picture."""


@torch.inference_mode()
def codec_report(
    run: Run | str | Path,
    reference: str,
    *,
    n: int = 1000,
    features: str | None = None,
    weights: str = "ema",
    batch: int = 100,
    seed: int = 0,
    root: str | None = None,
    out: str | Path | None = None,
    picture: str | Path | None = None,
) -> dict[str, Any]:
    """Encode and decode `n` images of DATA:SPLIT (all, if it has fewer): the root mean square error of an image (of
    255) and its PSNR in dB, of what the latents' means decode to; KL(q(z | x) ‖ N(0, I)) of an image in nats and in
    bits/dim of the image; all with standard errors over images. Then the Fréchet distance of the reconstructions to
    their originals, by the `features` that `evaluate` would choose unless named; and the latents' shape, mean and
    standard deviation by channel, and the scale that brings all of them to unit variance.

    Written to RUN/evaluations/codec/….json, or `out`; `picture`: a PNG of originals above reconstructions. Raises
    InputError for what cannot be done."""
    began = time.perf_counter()
    if out is not None:
        check_writable(Path(out), suffix=".json", format=FORMAT, source=reference)
    if picture is not None:
        check_png(Path(picture), "picture")
    run = run if isinstance(run, Run) else Run(run)
    codec = run.codec(weights)
    data = open_like(run, reference, root)
    chosen = np.random.default_rng(stream_seed(seed, "codec")).permutation(len(data))[: min(n, len(data))]
    device, low_high, dims = process_state().device, run.recipe.data.range, math.prod(data.shape)
    errors, rates, latents, originals, made = [], [], LatentMoments(), [], []
    with gathered_cautions() as cautions:
        look = extractor_of(features or features_for(data.shape, data.classes, lambda: data))
        with progress("codec", len(chosen), "images") as advance:
            for start in range(0, len(chosen), batch):
                images, _ = data.batch(chosen[start : start + batch])
                mean, deviation = codec.moments(to_model(images, low_high).to(device))
                decoded = to_uint8(codec.decode(mean), low_high)
                latents.update(mean, deviation)
                if deviation is not None:
                    rates.append(standard_kl(mean.double(), 2 * deviation.double().log()).cpu())
                errors.append(_squares(images, decoded))
                originals.append(images)
                made.append(decoded)
                advance(start + len(images), "")
        before, after = (extract(iter(part), look) for part in (originals, made))
        distance = _distance(before, after)
    squares = torch.cat(errors)
    kl = torch.cat(rates) if rates else None
    shape = codec.shape_of(data.shape)
    result = {
        "format": FORMAT,
        "created": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "subject": subject(run, weights),
        "reference": data_record(data) | {"used": len(chosen), "seed": seed},
        "features": look.record(before.dim),
        "reconstruction": {
            "rmse": _mean(squares.sqrt()),
            "psnr_db": _mean(10 * torch.log10(255**2 / squares)),
            "frechet_distance": distance,
        },
        "kl": None if kl is None else {"nats": _mean(kl), "bits_per_dim": _mean(kl / math.log(2) / dims)},
        "latents": {
            "shape": list(shape),
            "compression": dims / math.prod(shape),
            "channel_means": latents.means.tolist(),
            "channel_standard_deviations": latents.deviations.tolist(),
            "standard_deviation": latents.deviation,
            "scale": 1 / latents.deviation,
        },
        "log_sigma": None if codec.log_sigma is None else float(codec.log_sigma),
        "cautions": list(cautions),
        "wall_time_s": round(time.perf_counter() - began, 2),
        "environment": environment(device),
    }
    default = f"codec-{data.name}-{data.split}-{len(chosen)}-{weights}-step{run.step}.json"
    place = Path(out) if out is not None else run.path / "evaluations" / "codec" / default
    write_json(place, result)
    if picture is not None:
        pair = [np.concatenate(part)[:SHOWN] for part in (originals, made)]
        write_png(Path(picture), image_grid(np.concatenate(pair), len(pair[0])))
    return result | {"path": str(place)}


def _squares(images: UInt8[np.ndarray, "n h w c"], made: UInt8[np.ndarray, "n h w c"]) -> Float64[Tensor, "n"]:
    """The mean squared error of each image, in grey levels."""
    off = torch.from_numpy(images).double() - torch.from_numpy(made).double()
    return off.square().flatten(1).mean(1)


def _distance(real: Features, fake: Features) -> dict[str, float | None]:
    if len(real.pooled) < 2:
        return {"value": None, "standard_error": None}
    known = Statistics.of(real.pooled)
    return {
        "value": frechet_distance(real=known, fake=Statistics.of(fake.pooled)),
        "standard_error": frechet_standard_error(real=known, fake=fake.pooled),
    }


def _mean(each: Float64[Tensor, "n"]) -> dict[str, float | None]:
    """The mean over images and its standard error; none where it is infinite, and of one image."""
    found = float(each.mean()), float(each.std() / math.sqrt(len(each))) if len(each) > 1 else math.nan
    return dict(zip(("mean", "standard_error"), (v if math.isfinite(v) else None for v in found), strict=True))
