"""Encoding images as noise, and walking between two encodings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8

from trilemma.data import check_png, parse_reference, read_samples, write_png
from trilemma.errors import InputError
from trilemma.machine.files import check_writable, write_npz
from trilemma.machine.untrusted import open_arrays
from trilemma.process import Condition, Draw, image_grid
from trilemma.runs.run import Run
from trilemma.runs.sample_sets import labels_for
from trilemma.samplers import Sampler, encode, noise_start, slerp, walk


@dataclass(frozen=True)
class Encoded:
    """Encodings of images, the images decoded from them, and the root mean square error of a pixel, of 255."""

    encodings: Float[np.ndarray, "n c h w"]
    decoded: UInt8[np.ndarray, "n h w c"]
    error: float
    steps: int


def _ddim(run: Run, settings: Mapping[str, Any]) -> Sampler:
    """η = 0, and x̂_0 is not held in range: what that does the way back would not undo."""
    usual = {"spacing": "even", "weights": "ema"}
    return run.sampler(**{**usual, **settings, "sampler": "ddim", "clip": "none", "eta": 0.0, "guidance": 0.0})


def _decode(sampler: Sampler, x: torch.Tensor, condition: Condition) -> UInt8[np.ndarray, "n h w c"]:
    *_, step = walk(sampler.kernel, sampler.denoiser.bind(condition), sampler.grid, x, Draw([]))
    return sampler.denoiser.decoded(step.x)


def invert(
    run: Run | str | Path,
    images: str,
    out: str | Path,
    *,
    n: int = 16,
    picture: Path | None = None,
    **settings: Any,
) -> Encoded:
    """Encode `n` images (the first of samples at a path, or spread over DATA:SPLIT) by DDIM run backwards, decode them
    again, and write `out`: an .npz of `encodings` (float32 NCHW), `labels` if the model has classes, and `times`. A
    class-conditional model needs labelled images. `settings`: steps, spacing and weights,
    as sampling has them. Raises InputError for what cannot be done."""
    run, out = run if isinstance(run, Run) else Run(run), Path(out)
    check_writable(out, suffix=".npz", source=images)
    if picture is not None:
        check_writable(picture, "picture", suffix=".png", source=images)
    sampler = _ddim(run, settings)
    held, labels = _images(images, n, run)
    if held.shape[1:] != (*sampler.shape[1:], sampler.shape[0]):
        raise InputError(f"images {images!r}: they are {held.shape[1:]} (h, w, c), the run's {sampler.shape} (c, h, w)")
    if run.classes and labels is None:
        raise InputError(f"images {images!r} are unlabelled, and the model is class-conditional: give labelled ones")
    label = torch.from_numpy(labels).to(sampler.device) if run.classes and labels is not None else None
    condition = Condition(label)
    x0 = sampler.denoiser.encoded(held)
    x = encode(sampler.denoiser.bind(condition), x0, sampler.grid)
    decoded = _decode(sampler, x, condition)
    error = float(np.sqrt(np.mean((decoded.astype(np.float64) - held) ** 2)))
    encodings = x.float().cpu().numpy()
    arrays = {"encodings": encodings, "times": sampler.grid.numpy()}
    write_npz(out, arrays if label is None else {**arrays, "labels": label.cpu().numpy()}, compressed=True)
    if picture is not None:
        write_png(picture, image_grid(np.concatenate([held, decoded]), len(held)))
    return Encoded(encodings, decoded, error, sampler.intervals)


def _images(spec: str, n: int, run: Run) -> tuple[UInt8[np.ndarray, "n h w c"], Int64[np.ndarray, "n"] | None]:
    if Path(spec).exists():
        images, labels = read_samples(spec)
        return images[:n], None if labels is None else labels[:n]
    name, split = parse_reference(spec)
    data = run.recipe.data.opening(name)(name, split)
    chosen = np.linspace(0, len(data) - 1, min(n, len(data))).astype(int)
    return data.batch(chosen)


def interpolate(
    run: Run | str | Path,
    picture: str | Path,
    *,
    seeds: Sequence[int] | None = None,
    encodings: Path | None = None,
    frames: int = 9,
    cls: str | int | None = None,
    **settings: Any,
) -> Path:
    """Write `picture`, a PNG whose rows walk, in `frames` images, between the encodings of a pair: of image seeds
    (0, 1, 2, 3 are two pairs) or of a file that `invert` wrote. Of a class-conditional model a row has one class: the
    first one's of the pair, or `cls`. `settings` as `invert` takes them. Raises InputError for what cannot be done."""
    run = run if isinstance(run, Run) else Run(run)
    sampler = _ddim(run, settings)
    if encodings is not None and seeds is None:
        ends, labels = _encoded(encodings)
    elif seeds is None or encodings is not None:
        raise InputError("interpolate: give either seeds or encodings")
    else:
        ends = noise_start(sampler.denoiser.schedule, list(seeds), sampler.space, sampler.device)
        labels = labels_for(list(seeds), run.classes, cls)
    if tuple(ends.shape[1:]) != sampler.space:
        raise InputError(f"encodings: they are {tuple(ends.shape[1:])}, the run's {sampler.space} (c, h, w)")
    check_png(Path(picture), "picture")
    if labels is not None and run.classes and int(max(labels)) >= len(run.classes):
        raise InputError(f"encodings: label {int(max(labels))} is out of range, the run has {len(run.classes)} classes")
    if len(ends) < 2 or len(ends) % 2:
        raise InputError(f"interpolate: {len(ends)} encodings, expected pairs")
    if cls is not None:
        labels = labels_for(range(len(ends)), run.classes, cls)
    rows = []
    for i in range(0, len(ends), 2):
        path = [slerp(ends[i : i + 1], ends[i + 1 : i + 2], k / (frames - 1)) for k in range(frames)]
        label = None if labels is None or not run.classes else torch.full((frames,), int(labels[i]))
        condition = Condition(label).to(sampler.device)
        rows.append(_decode(sampler, torch.cat(path).to(sampler.device), condition))
    return write_png(picture, image_grid(np.concatenate(rows), frames))


def _encoded(path: Path) -> tuple[torch.Tensor, Int64[np.ndarray, "n"] | None]:
    try:
        with open_arrays(path) as held:
            return torch.from_numpy(held["encodings"]), held.get("labels")
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"encodings {path}: not a file that `trilemma invert` wrote ({error})") from error
