"""Which features images are looked at by when none are named: the best that are there."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from trilemma.data import ImageSet
from trilemma.evaluations.extractors import extractor_of
from trilemma.evaluations.statistics_files import recorded_features
from trilemma.machine.devices import process_state
from trilemma.machine.progress import say
from trilemma.metrics import caution
from trilemma.metrics.imagenet_features import EXTRA, packaged_file
from trilemma.metrics.inception_features import published_file

Shape = tuple[int, int, int]

DIGITS: tuple[Shape, ...] = ((1, 28, 28), (1, 32, 32))
"""The (c, h, w) that the packaged classifier of digits takes."""

LOOKED_AT = 200
"""Images of the data that are shown to it."""

KNOWN = 0.9
"""The share of them that it must take for their own class."""


def features_for(
    shape: Shape,
    classes: Sequence[str] | None = None,
    data: Callable[[], ImageSet] | None = None,
    *,
    reference: str | None = None,
) -> str:
    """The features for images of this shape (c, h, w), by name, said in a line with the reason.

    Those that a `reference` of statistics says it is of. Else `digits`, where the data have its classes and it takes
    nine in ten of these images for their own: a size and ten numbers make no digits. Else `inception`, FID's, for
    colour images where its weights are at hand; else `imagenet`, where its package is installed; else `pixels`, as a
    caution. `classes`: those of the data, if they are known; `data`: opens them, and is called only where the size and
    the classes are digits'."""
    recorded = None if reference is None else recorded_features(reference)
    if recorded is not None:
        _say(recorded, "the reference's")
        return recorded
    digits = shape in DIGITS and (classes is None or tuple(classes) == extractor_of("digits").classes)
    if digits and data is not None and _are_digits(data()):
        _say("digits", "the packaged classifier of these classes")
        return "digits"
    colour = shape[0] == 3
    if colour and published_file() is not None:
        _say("inception", "FID's, for colour images where its weights are at hand")
        return "inception"
    if packaged_file() is not None:
        better = "; FID's are 'inception', whose weights --features inception downloads once" if colour else ""
        _say("imagenet", f"the best at hand for images of any kind{better}")
        return "imagenet"
    better = f"{EXTRA} for 'imagenet'" + (", or --features inception, FID's, a download" if colour else "")
    caution(f"features 'pixels', as none are named and no better ones are at hand: they see no shapes; {better}")
    return "pixels"


def _are_digits(data: ImageSet) -> bool:
    """Whether the packaged classifier knows these labelled images."""
    look = extractor_of("digits")
    if data.labels is None or data.classes is None or tuple(data.classes) != look.classes or not len(data):
        return False
    images, labels = data.batch(np.linspace(0, len(data) - 1, min(len(data), LOOKED_AT)).astype(np.int64))
    logits = look(images).logits
    return logits is not None and bool((logits.argmax(1) == labels).mean() >= KNOWN)


def _say(name: str, why: str) -> None:
    if process_state().is_main_process:
        say(f"features: {name}, {why}")
