"""Images at hand, as arrays and tensors, as a set."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from trilemma.data.images import ImageSet, MemorySet, number_classes
from trilemma.errors import InputError
from trilemma.machine.progress import say
from trilemma.process import to_uint8

OVERSHOOT = 0.25
"""The part of their range by which floats may be outside it."""


def image_set(images: Any, what: str, range: tuple[float, float] = (-1.0, 1.0)) -> ImageSet:
    """A set of the images at hand: a data set as it is; uint8 NHWC or, as models have them, float NCHW in `range`, as
    an array or tensor; a pair of such images and their classes; or the `images` and `labels` of what sampling gives.
    Raises InputError for anything else; warns of floats that look as if they were in another range."""
    if isinstance(images, ImageSet):
        return images
    array, labels = images if isinstance(images, tuple) and len(images) == 2 else (images, None)
    labels = getattr(images, "labels", labels)
    array = getattr(images, "images", array)
    if isinstance(array, np.ndarray) and np.issubdtype(array.dtype, np.floating):
        array = torch.from_numpy(array)
    if isinstance(array, Tensor):
        floats = array.is_floating_point() and array.ndim == 4
        array = to_uint8(_checked(array, what, range), range) if floats else array.cpu().numpy()
    if not isinstance(array, np.ndarray):
        raise InputError(f"{what}: a {type(images).__name__}, expected an array, a data set, samples or a path")
    if labels is None:
        return MemorySet(array, name=what)
    numbers = np.asarray(labels, dtype=np.int64)
    return MemorySet(array, numbers, name=what, classes=number_classes(numbers, what))


def _checked(images: Tensor, what: str, range: tuple[float, float]) -> Tensor:
    """Float images that can be in `range`, but for the little by which models overshoot it."""
    if images.shape[1] not in (1, 3):
        raise InputError(f"{what}: floats {tuple(images.shape)}, expected (n, c, h, w) of 1 or 3 channels")
    if not images.numel():
        return images
    if not torch.isfinite(images).all():
        raise InputError(f"{what}: some values are not finite, expected {range[0]:g} to {range[1]:g}")
    (low, high), least, most = range, images.min().item(), images.max().item()
    if max(low - least, most - high) > OVERSHOOT * (high - low):
        raise InputError(
            f"{what}: floats from {least:g} to {most:g}, expected {low:g} to {high:g}, or bytes 0 to 255 (n, h, w, c)"
        )
    if least >= (low + high) / 2:
        say(f"warning: {what}: floats from {least:g} to {most:g} are taken as of {low:g} to {high:g}: all are light")
    return images
