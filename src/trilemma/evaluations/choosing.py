"""Which features images are looked at by when none are named: the best that are there."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from trilemma.data import ImageSet, parse_reference
from trilemma.evaluations.extractors import extractor_of
from trilemma.evaluations.statistics_files import recorded_features
from trilemma.machine.devices import process_state
from trilemma.machine.progress import say
from trilemma.metrics import caution
from trilemma.metrics.imagenet_features import EXTRA, packaged_file
from trilemma.metrics.inception_features import published_file
from trilemma.recipes import CompletedRecipe

Shape = tuple[int, int, int]

DIGITS: tuple[Shape, ...] = ((1, 28, 28), (1, 32, 32))
"""The (c, h, w) that the packaged classifier of digits takes."""

LOOKED_AT = 200
"""Images of the data that are shown to it."""

KNOWN = 0.9
"""The share of them that it must take for their own class."""

RECORDED = "the reference's own"


def features_for(
    shape: Shape,
    classes: Sequence[str] | None = None,
    data: Callable[[], ImageSet] | None = None,
    *,
    reference: str | None = None,
) -> str:
    """The features for images of this shape (c, h, w), by name, said in a line with the reason; see `choice`."""
    return told(*choice(shape, classes, data, reference=reference))


def told(name: str, why: str) -> str:
    """The name of features that were chosen, having said why: of `pixels` as a caution."""
    if name == "pixels" and why != RECORDED:
        caution(f"features 'pixels', as none are named and no better ones are at hand: they see no shapes; {why}")
    elif process_state().is_main_process:
        say(f"features: {name}, {why}")
    return name


def choice(
    shape: Shape,
    classes: Sequence[str] | None = None,
    data: Callable[[], ImageSet] | None = None,
    *,
    reference: str | None = None,
) -> tuple[str, str]:
    """The features for images of this shape (c, h, w), by name, and why, or how better ones are to be had.

    Those that a `reference` of statistics says it is of. Else `digits`, where the data have its classes and it takes
    nine in ten of these images for their own: a size and ten numbers make no digits. Else `inception`, FID's, for
    colour images where its weights are at hand; else `imagenet`, where its package is installed; else `pixels`.
    `classes`: those of the data, if they are known; `data`: opens them, and is called only where the size and the
    classes are digits'."""
    recorded = None if reference is None else recorded_features(reference)
    if recorded is not None:
        return recorded, RECORDED
    digits = shape in DIGITS and (classes is None or tuple(classes) == extractor_of("digits").classes)
    if digits and data is not None and _are_digits(data()):
        return "digits", "the packaged classifier of these classes"
    colour = shape[0] == 3
    if colour and published_file() is not None:
        return "inception", "FID's, for colour images where its weights are at hand"
    if packaged_file() is not None:
        better = "; FID's are 'inception', whose weights --features inception downloads once" if colour else ""
        return "imagenet", f"the best at hand for images of any kind{better}"
    return "pixels", f"{EXTRA} for 'imagenet'" + (", or --features inception, FID's, a download" if colour else "")


def choice_in_training(recipe: CompletedRecipe) -> tuple[str, str]:
    """The features of a recipe's `evaluate` section, named there or the best at hand, and why."""
    settings, images = recipe.evaluate, recipe.images
    if settings.features is not None:
        return settings.features, "the recipe's"
    reference = settings.reference or f"{recipe.data.name}:{recipe.data.split}"
    name, split = parse_reference(reference)
    opening, classes = recipe.data.opening(name), images.classes if settings.reference is None else None
    return choice(images.shape, classes, lambda: opening(name, split), reference=reference)


def _are_digits(data: ImageSet) -> bool:
    """Whether the packaged classifier knows these labelled images."""
    look = extractor_of("digits")
    if data.labels is None or data.classes is None or tuple(data.classes) != look.classes or not len(data):
        return False
    images, labels = data.batch(np.linspace(0, len(data) - 1, min(len(data), LOOKED_AT)).astype(np.int64))
    logits = look(images).logits
    return logits is not None and bool((logits.argmax(1) == labels).mean() >= KNOWN)
