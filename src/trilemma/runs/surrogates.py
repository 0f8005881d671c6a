"""Surrogates: whatever makes the images that a walk begins from at t_mid (A 3.2): another run, finished samples, a
function."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int64, UInt8

from trilemma.errors import InputError
from trilemma.machine.files import sha256
from trilemma.machine.untrusted import kind_of
from trilemma.process import Denoiser
from trilemma.runs.companions import Companions, Handover, check_classes, parse
from trilemma.samplers import Finished, HandOver, Sampler, Surrogate, check_t_mid, hand_over_time

if TYPE_CHECKING:
    from trilemma.runs.run import Run

EXPECTED = "RUN, module:function, or samples (.npz, folder, zip)"


def open_source(spec: str, run: Run) -> Run | Finished:
    """What the surrogate `spec` of a run is: a run, RUN or RUN@STEP, or a cascade BASE+UPSAMPLER; `module:function`,
    called as function(seeds, labels) -> uint8 images [n, h, w, c] of the run's size; or a set of samples (.npz, folder,
    zip), of which seed i takes image i. A module is looked for in the working directory as well; it is named on the
    command line or in a call, never read from a saved recipe.

    Raises InputError where it cannot be opened."""
    from trilemma.runs.cascades import is_run, open_finished, open_run  # what they open begins from what is opened here
    from trilemma.runs.run import Run

    path, step = parse(spec)
    if step is not None:
        return Run(path or run.path, step)
    if is_run(spec):
        return open_run(spec)
    module, colon, name = spec.partition(":")
    if colon and not (module and name):
        raise InputError(f"surrogate {spec!r}: expected {EXPECTED}")
    if colon and not Path(spec).exists():
        return _function(spec, module, name, run.recipe.images.shape)
    if not kind_of(spec):
        raise InputError(f"surrogate {spec!r} does not exist: expected {EXPECTED}")
    held = open_finished(Path(spec))
    return replace(held, images=lambda seeds, _: held.images(seeds, None))  # whatever classes the walk is asked for


def begin(
    source: Run | Finished, companions: Companions, denoiser: Denoiser, shape: tuple[int, int, int],
    classes: Sequence[str], batch: int,
) -> Surrogate:  # fmt: skip
    """The surrogate that the companions name, opened as `source`, for a denoiser of images of this shape (c, h, w) that
    is asked for `classes` and sampled in such batches.

    A run is sampled by its own recipe's settings. Its images are taken as they are where they have this size; those of
    a lower resolution are handed over: as x̂_0 at the time of the same SNR (`mean`, unless it walks one step alone or
    draws its x̂_0), or finished (`sample`).

    Raises InputError for a t_mid beyond the schedule, and for images, classes or a hand-over that do not fit."""
    t_mid, handover, what = companions.t_mid, companions.handover, f"surrogate {companions.surrogate}"
    if t_mid is None:
        raise InputError("surrogate: needs --t-mid, the time its images are noised to")
    check_t_mid(denoiser.schedule, t_mid)
    if isinstance(source, Finished):
        if handover is not None:
            raise InputError(f"handover {handover}: {what} is no run, whose walk could be left on its way")
        return Surrogate(source, t_mid, {**source.record, "t_mid": t_mid})
    way = source.way(batch=batch)
    check_classes(what, way.classes, classes)
    sampler = way.sampler
    how = _handover(what, sampler, shape, handover)
    record = {"name": str(companions.surrogate), "t_mid": t_mid}
    if how is None:
        return Surrogate(sampler, t_mid, record | source.made(way), len(way.classes))
    t = hand_over_time(denoiser.schedule, t_mid, sampler.denoiser.schedule) if how == "mean" else 0.0
    stage = HandOver(sampler, t, shape[1:])
    made = source.made(replace(way, sampler=stage.walked))
    return Surrogate(stage, t_mid, record | {"handover": how} | made, len(way.classes))


def _handover(what: str, sampler: Sampler, size: tuple[int, int, int], asked: Handover | None) -> Handover | None:
    """How a sampler's images are handed over to walks of images of this size (c, h, w); None where they are taken as
    they are. Raises InputError where they do not fit."""
    smaller = all(own <= its for own, its in zip(sampler.shape[1:], size[1:], strict=True))
    if sampler.shape[0] != size[0] or not smaller:
        raise InputError(
            f"{what}: its images are {sampler.shape} (channels, height, width), the run's {size}: expected as many "
            "channels, and the same resolution or a lower one"
        )
    told = sampler.intervals > 1 and not sampler.denoiser.latent
    if asked not in (None, "mean", "sample"):
        raise InputError(f"handover {asked!r}: expected 'mean' or 'sample'")
    if asked == "mean" and not told:
        why = (
            "walks one step, and is nowhere on its way" if sampler.intervals <= 1 else "draws its x̂_0, and has no mean"
        )
        raise InputError(f"handover mean: {what} {why}; expected sample")
    if sampler.shape == size:
        return "mean" if asked == "mean" else None
    return asked or ("mean" if told else "sample")


def _function(spec: str, module: str, name: str, shape: tuple[int, int, int]) -> Finished:
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise InputError(f"surrogate {spec!r} cannot be imported: {error}") from error

    def images(seeds: Sequence[int], labels: Int64[np.ndarray, "n"] | None) -> UInt8[np.ndarray, "n h w c"]:
        made = np.asarray(function(seeds, labels))
        if made.dtype != np.uint8 or made.ndim != 4 or len(made) != len(seeds):
            raise InputError(
                f"surrogate {spec!r} gave {made.dtype} {made.shape}, expected uint8 ({len(seeds)}, h, w, c)"
            )
        return made

    source = getattr(sys.modules[module], "__file__", None)
    return Finished(images, shape, spec, {"name": spec, "sha256": sha256(Path(source)) if source else None})
