"""Feature extractors by name, opened once on this process's device; and those that runs have trained."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import torch

from trilemma.machine.devices import process_state
from trilemma.machine.files import sha256
from trilemma.metrics import ClassifierExtractor, Extractor, open_extractor
from trilemma.networks.classifier import ConvClassifier
from trilemma.registry import register
from trilemma.runs.run import Run

Stamp = tuple[Any, ...]


def extractor_of(name: str) -> Extractor:
    """The extractor of this name, as `open_extractor` opens it, on this process's device. Opened once, and again when
    its weights have changed. Raises InputError as that does."""
    kind, _, place = name.partition(":")
    weights = _weights(Run(place)) if kind == "classifier" and place else Path(place)
    return _opened(name, stamp(weights))


def stamp(path: Path) -> Stamp:
    """What changes when the file at `path` (or the list of files in that folder) does; empty where there is none."""
    try:
        seen = path.stat()
    except (OSError, ValueError):
        return ()
    return str(path.resolve()), seen.st_ino, seen.st_mtime_ns, seen.st_size


def _weights(run: Run) -> Path:
    return run.weights_file("ema" if run.recipe.training.ema else "raw")


@lru_cache(maxsize=4)
def _opened(name: str, stamp: Stamp) -> Extractor:
    return open_extractor(name, device=process_state().device)


@register("features", "classifier")
def open_classifier(run: str, *, device: str | torch.device = "cpu") -> ClassifierExtractor:
    """`classifier:RUN`, a classifier that a run has trained, by its averaged weights if it has them. Its record names
    the recipe, not the place of the run.

    Raises InputError for a run that trains no classifier."""
    trained = Run(run)
    recipe, weights = trained.recipe, _weights(trained)
    network = trained.classifier("ema" if recipe.training.ema else "raw")
    look = ClassifierExtractor(
        cast(ConvClassifier, network),
        name=f"classifier:{recipe.name}",
        sha256=sha256(weights),
        shape=recipe.images.shape,
        bounds=recipe.data.range,
        device=device,
    )
    look.classes = tuple(recipe.images.classes or ())
    return look
