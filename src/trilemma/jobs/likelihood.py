"""The likelihood of a run's model on data, in bits/dim, with a file and a figure of it."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trilemma.errors import InputError, unknown
from trilemma.evaluations.reference import data_record
from trilemma.jobs.subjects import open_like, subject
from trilemma.machine.devices import process_state
from trilemma.machine.environment import environment
from trilemma.machine.files import check_writable, write_json
from trilemma.machine.progress import progress
from trilemma.metrics.latent_likelihood import check_bound, of_latents
from trilemma.metrics.likelihood import check_flow, continuous_bound, dequantised, ode_bits_per_dim, variational_bound
from trilemma.process import Condition, Draw, stream_seed, to_model
from trilemma.runs.run import Run
from trilemma.samplers import Clipping, grid

FORMAT = "trilemma-likelihood/1"

DRAWS = 64
"""Of the time, an image."""


def nll(
    run: Run | str | Path,
    reference: str,
    *,
    n: int = 1000,
    steps: int | None = None,
    spacing: str = "even",
    weights: str = "ema",
    batch: int = 100,
    clip: Clipping = "static",
    ode: int | None = None,
    draws: int | None = None,
    seed: int = 0,
    root: str | None = None,
    out: str | Path | None = None,
) -> dict[str, Any]:
    """L_T, ΣL_t, L_0 and their total in bits/dim on `n` images of DATA:SPLIT (all, if it has fewer), with standard
    errors over images and every L_t; `steps` of the grid, every one of a table unless given. Of a continuous schedule
    without `steps` the bound in continuous time, by so many `draws` of the time an image (64). `clip`: whether the
    bound's x̂_0 is held in the data's range, as improved-diffusion's `image_nll` has it. `ode`: an estimate of the
    likelihood itself too, by so many Runge-Kutta steps. An upsampler's is that of images given their low ones; of a
    model of latents it is that of the codec and the model together, all terms in bits/dim of the images. Written to
    RUN/evaluations/likelihood/….json, or `out`. Raises InputError for what cannot be done."""
    began = time.perf_counter()
    if out is not None:
        out = Path(out)
        check_writable(out, suffix=".json", format=FORMAT, source=reference)
        if not out.exists() and out.with_suffix(".png").exists():
            raise InputError(f"out: {out.with_suffix('.png')}, where its picture goes, is there already")
    run = run if isinstance(run, Run) else Run(run)
    data = open_like(run, reference, root)
    if run.classes and (data.classes is None or len(data.classes) != len(run.classes)):
        raise InputError(f"reference {reference!r}: a class-conditional model needs its {len(run.classes)} classes")
    denoiser, pairs = run.denoiser(weights), run.pairs
    if clip not in ("static", "none"):
        raise unknown("clip", clip, ("static", "none"))
    if not denoiser.codec.identity:
        check_bound(denoiser.codec)
        if ode is not None:
            raise InputError(f"ode {ode}: of latents it is no likelihood of images; expected none, the bound alone")
    if ode is not None:
        check_flow(denoiser.schedule)
    continuous = denoiser.schedule.steps is None and steps is None
    if draws is not None and not continuous:
        why = f"the bound of {steps} steps" if steps is not None else "this model's schedule is a table, whose bound"
        raise InputError(f"draws {draws}: {why} has a term for every step; they are of a continuous schedule, no steps")
    if continuous and spacing != "even":
        raise InputError(f"spacing {spacing!r}: of a grid of steps; expected steps, or none for continuous time")
    draws = (draws or DRAWS) if continuous else None
    times = None if continuous else grid(denoiser.schedule, steps, spacing)
    device = process_state().device
    chosen = np.random.default_rng(stream_seed(seed, "nll")).permutation(len(data))[: min(n, len(data))]
    priors, terms, exact, totals, distortions, entropies = [], [], [], [], [], []
    with progress("likelihood", len(chosen), "images") as advance:
        for start in range(0, len(chosen), batch):
            some = chosen[start : start + batch]
            images, labels = data.batch(some)
            x0 = to_model(images, run.recipe.data.range).to(device)
            label = torch.from_numpy(labels).to(device) if run.classes and labels is not None else None
            keys = [(seed, "nll", int(i)) for i in some]
            condition = Condition(label)
            if pairs is not None:
                condition = replace(pairs, noise=0.0).condition(denoiser, x0, Draw(keys), label)
            coded = None
            if denoiser.codec.identity:
                x0 = denoiser.codec.moments(x0)[0]
            else:
                coded = of_latents(denoiser.codec, x0, run.recipe.data.range, Draw((*key, "latent") for key in keys))
                x0 = coded.z
            if times is None:
                bound = continuous_bound(denoiser, x0, condition, draws or DRAWS, Draw(keys), clip)
            else:
                bound = variational_bound(denoiser, x0, condition, times, Draw(keys), clip)
            share = 1.0 if coded is None else coded.share
            priors.append(share * bound.prior)
            terms.append(share * bound.terms)
            totals.append(bound.total if coded is None else coded.total(bound.total))
            if coded is not None:
                distortions.append(coded.distortion)
                entropies.append(-coded.entropy)
            if ode is not None:
                draw = Draw((*key, "ode") for key in keys)
                x = dequantised(x0, denoiser.bounds, draw)
                exact.append(ode_bits_per_dim(denoiser, x, condition, ode, draw))
            advance(start + len(some), "")
    prior, each = torch.cat(priors), torch.cat(terms)
    figures = {
        **({"distortion": _mean(torch.cat(distortions))} if distortions else {}),
        "prior": _mean(prior),
        "sum": _mean(each[:, :-1].sum(1)),
        "decoder": _mean(each[:, -1]),
        **({"entropy": _mean(torch.cat(entropies))} if entropies else {}),
        "total": _mean(torch.cat(totals)),
    }
    if exact:
        figures["ode"] = _mean(torch.cat(exact))
    count = None if times is None else len(times) - 1
    result = {
        "format": FORMAT,
        "created": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "subject": {**subject(run, weights), "variance": denoiser.variance_name},
        "reference": data_record(data) | {"used": len(chosen), "seed": seed},
        "grid": {"steps": count, "draws": draws, "spacing": spacing, "clip": clip, "ode_steps": ode},
        "codec": None if run.recipe.codec is None else run.recipe.codec.model_dump(mode="json"),
        "log_sigma": None if denoiser.codec.log_sigma is None else float(denoiser.codec.log_sigma),
        "bits_per_dim": figures,
        "terms": {"t": bound.times.tolist(), "mean": each.mean(0).tolist(), "standard_error": _errors(each)},
        "wall_time_s": round(time.perf_counter() - began, 2),
        "environment": environment(device),
    }
    default = f"nll-{data.name}-{data.split}-{count or f'continuous{draws}'}-{weights}-step{run.step}.json"
    place = Path(out) if out is not None else run.path / "evaluations" / "likelihood" / default
    write_json(place, result)
    return result | {"path": str(place)}


def _mean(each: torch.Tensor) -> dict[str, float | None]:
    return {"mean": float(each.mean()), "standard_error": _errors(each[:, None])[0]}


def _errors(each: torch.Tensor) -> list[float | None]:
    """The standard error of each column's mean; none where there is one image."""
    return (each.std(0) / math.sqrt(len(each))).tolist() if len(each) > 1 else [None] * each.shape[1]
