"""What a training does every so often, or once before its first step: how long one takes, by a rehearsal of it."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trilemma.data import open_data, parse_reference
from trilemma.errors import InputError
from trilemma.evaluations.cache import BATCH, place_of
from trilemma.evaluations.choosing import features_for
from trilemma.evaluations.extractors import extractor_of
from trilemma.evaluations.statistics_files import holds_statistics
from trilemma.jobs.rehearsal import Rehearsal
from trilemma.jobs.watching import GRID, drawn, validation_of
from trilemma.metrics import Extractor
from trilemma.process import to_model
from trilemma.process.codec import ENCODED
from trilemma.runs.latents import Latents, to_encode
from trilemma.training import checkpoint

SECONDS = 2.0
"""A walk is followed for about so long, and the rest of it taken to be as fast."""

WRITTEN = 2**28
"""Bytes of a checkpoint that are written for a trial; the rest takes as long each."""


def validation(training: Rehearsal) -> float:
    """Seconds of a look at the held-out images."""
    if training.recipe.codec is not None and training.codec is None:
        return 0.0
    batch = validation_of(training.recipe, training.codec)
    if batch is None:
        return 0.0
    part, *others = batch.split(training.trainer.updates.micro_batch or 64)
    seconds = min(_seconds(training, lambda: training.trainer.validate(part)) for _ in range(2))
    return seconds * (len(part) + sum(map(len, others))) / len(part)


def grid(training: Rehearsal) -> float:
    """Seconds of a grid of samples."""
    return _sampling(training, len(GRID)) if training.recipe.training.grid_every else 0.0


def evaluation(training: Rehearsal) -> float:
    """Seconds of the samples of an `evaluate` section and of their features; what is computed of these is left out."""
    settings = training.recipe.evaluate
    if not settings.every:
        return 0.0
    count = min(settings.n, training.recipe.sampling.batch)
    return _sampling(training, count) * settings.n / count + _extracting(training) * settings.n


def reference(training: Rehearsal) -> float:
    """Seconds of the features of what an `evaluate` section measures against, once; none of those that are kept."""
    recipe, settings = training.recipe, training.recipe.evaluate
    if not settings.every or (settings.reference is not None and holds_statistics(settings.reference)):
        return 0.0
    data = training.data
    if settings.reference is not None:
        name, split = parse_reference(settings.reference)
        data = open_data(name, split=split, size=recipe.data.size, channels=recipe.data.channels)
    if place_of(data, _extractor(training)).exists():
        return 0.0
    return _extracting(training) * len(data)


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
    if denoiser is None or (recipe.codec is not None and training.codec is None):
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


def _extractor(training: Rehearsal) -> Extractor:
    """What an `evaluate` section looks at images by."""
    recipe = training.recipe
    chosen = recipe.evaluate.features or features_for(recipe.images.shape, recipe.images.classes, lambda: training.data)
    return extractor_of(chosen)


def _extracting(training: Rehearsal) -> float:
    """Seconds of one image's features."""
    channels, height, width = training.recipe.images.shape
    count = min(BATCH, training.recipe.evaluate.n, 64)
    images = np.random.default_rng(0).integers(256, size=(count, height, width, channels), dtype=np.uint8)
    look = _extractor(training)
    return min(_seconds(training, lambda: look(images)) for _ in range(2)) / count


def _seconds(training: Rehearsal, run: Callable[[], Any]) -> float:
    began = training.clock()
    run()
    return training.clock() - began
