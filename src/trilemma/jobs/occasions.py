"""What a training does every so often, or once before its first step: how long one takes, by a rehearsal of it."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8

from trilemma.data import open_data, parse_reference
from trilemma.errors import InputError
from trilemma.evaluations.cache import place_of
from trilemma.evaluations.choosing import choice_in_training
from trilemma.evaluations.during_training import EvaluateEvery
from trilemma.evaluations.extractors import extractor_of
from trilemma.evaluations.statistics_files import holds_statistics
from trilemma.jobs.rehearsal import Rehearsal
from trilemma.jobs.watching import GRID, drawn
from trilemma.metrics import Extractor, gathered_cautions
from trilemma.process import to_model
from trilemma.process.codec import ENCODED
from trilemma.recipes import CompletedRecipe
from trilemma.runs.latents import Latents, to_encode
from trilemma.runs.sample_sets import labels_for
from trilemma.training import checkpoint

SECONDS = 2.0
"""A walk is followed for about so long, and the rest of it taken to be as fast."""

FEW = 16
"""Images whose features are computed first."""

WRITTEN = 2**28
"""Bytes of a checkpoint that are written for a trial; the rest takes as long each."""


def validation(training: Rehearsal) -> float:
    """Seconds of a look at the held-out images."""
    batch = training.validation
    if batch is None:
        return 0.0
    part, *others = batch.split(training.trainer.updates.micro_batch or 64)
    seconds = min(_seconds(training, lambda: training.trainer.validate(part)) for _ in range(2))
    return seconds * (len(part) + sum(map(len, others))) / len(part)


def grid(training: Rehearsal) -> float:
    """Seconds of a grid of samples."""
    return _sampling(training, len(GRID)) if training.recipe.training.grid_every else 0.0


@dataclass(frozen=True)
class Evaluation:
    """Seconds of the features of what is measured against, `once`, and of `each` evaluation of samples. `whole`:
    whether one was made, and not only the features of some images, which the others are taken to take as long as."""

    once: float
    each: float
    whole: bool


def evaluation(training: Rehearsal) -> Evaluation | None:
    """What an `evaluate` section takes, if there is one. Raises InputError as training would."""
    recipe, settings = training.recipe, training.recipe.evaluate
    if not settings.every:
        return None
    count = min(settings.n, recipe.sampling.batch)
    sampling = _sampling(training, count) * settings.n / count
    look = extractor_of(choice_in_training(recipe)[0])
    some = _noise(recipe, FEW)
    feature = min(_seconds(training, lambda: look(some)) for _ in range(2)) / FEW
    reference = _reference(training, look)
    if feature * (settings.n + reference) > SECONDS:
        return Evaluation(feature * reference, sampling + feature * settings.n, False)
    made: list[EvaluateEvery] = []
    once = _seconds(training, lambda: made.append(EvaluateEvery(recipe, training.trainer.learner, training.process)))
    labels = labels_for(range(settings.n), recipe.classes, None)
    with gathered_cautions():  # noise is not what they are of
        measuring = _seconds(training, lambda: made[0].measured(_noise(recipe, settings.n), labels))
    return Evaluation(once, sampling + measuring, True)


def _reference(training: Rehearsal, look: Extractor) -> int:
    """How many images' features are to be computed before the first evaluation: none that are kept."""
    recipe, named = training.recipe, training.recipe.evaluate.reference
    if named is not None and holds_statistics(named):
        return 0
    data = training.data
    if named is not None:
        name, split = parse_reference(named)
        data = open_data(name, split=split, size=recipe.data.size, channels=recipe.data.channels)
    return 0 if place_of(data, look).exists() else len(data)


def _noise(recipe: CompletedRecipe, count: int) -> UInt8[np.ndarray, "n h w c"]:
    channels, height, width = recipe.images.shape
    return np.random.default_rng(0).integers(256, size=(count, height, width, channels), dtype=np.uint8)


def encoding(training: Rehearsal) -> tuple[float, int]:
    """Seconds in which a codec makes the latents of all images, once, and their bytes; none where they are kept."""
    codec, data, recipe, source = training.codec, training.data, training.recipe, training.source
    if codec is None or not isinstance(source, Latents) or not (count := to_encode(data, recipe)):
        return 0.0, 0
    few = min(len(data), ENCODED)

    @torch.no_grad()
    def encode() -> None:
        codec.joined(to_model(data.batch(range(few))[0], recipe.data.range).to(training.process.device)).cpu()

    return min(_seconds(training, encode) for _ in range(2)) * count / few, source.moments[0].nbytes * count


def saving(training: Rehearsal) -> tuple[float, int]:
    """Seconds in which a checkpoint is written, in a folder that is removed again, and its bytes."""
    groups, _ = training.trainer.tensors()
    size = sum(value.nbytes for group in groups.values() for value in group.values())
    tried: dict[str, dict[str, torch.Tensor]] = {name: {} for name in groups}
    written = 0
    for file, group in groups.items():
        for name, value in group.items():
            if not written or written + value.nbytes <= WRITTEN:
                tried[file][name] = value
                written += value.nbytes
    try:
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder) / "checkpoints"
            seconds = _seconds(training, lambda: checkpoint.write(place, 0, tried, {"state": {}}, 1))
    except (InputError, OSError):  # no room: which is said of the run's own place
        return 0.0, size
    return seconds * size / written, size


def _sampling(training: Rehearsal, count: int) -> float:
    """Seconds of so many samples at once, by the recipe's sampling section: the first steps of their walk, a step of
    the rest taken to be as fast as the median."""
    denoiser, recipe = training.trainer.learner.denoiser, training.recipe
    if denoiser is None or training.uncoded:
        return 0.0
    with training.trainer.averaged():
        sampler, labels = drawn(denoiser, recipe, training.data, range(count))
        walk = sampler.walk(range(count), labels)
        began = training.clock()
        step = next(walk)
        took: list[float] = [training.clock() - began]
        while step.index < step.count and (len(took) < 3 or sum(took) < SECONDS):
            began = training.clock()
            step = next(walk)
            took.append(training.clock() - began)
        decoding = _seconds(training, lambda: denoiser.decoded(step.x))
    start, *steps = took
    warm = steps[1:] or steps
    return start + decoding + (statistics.median(warm) if warm else 0.0) * step.count


def _seconds(training: Rehearsal, run: Callable[[], Any]) -> float:
    began = training.clock()
    run()
    return training.clock() - began
