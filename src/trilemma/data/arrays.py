"""Images at hand, as arrays and tensors, as a set."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from trilemma.data.images import ImageSet, MemorySet, number_classes
from trilemma.errors import InputError
from trilemma.process import to_uint8


def image_set(images: Any, what: str, range: tuple[float, float] = (-1.0, 1.0)) -> ImageSet:
    """A set of the images at hand: a data set as it is; uint8 NHWC or, as models have them, float NCHW in `range`, as
    an array or tensor; a pair of such images and their classes; or the `images` and `labels` of what sampling gives.
    Raises InputError for anything else."""
    if isinstance(images, ImageSet):
        return images
    array, labels = images if isinstance(images, tuple) and len(images) == 2 else (images, None)
    labels = getattr(images, "labels", labels)
    array = getattr(images, "images", array)
    if isinstance(array, np.ndarray) and np.issubdtype(array.dtype, np.floating):
        array = torch.from_numpy(array)
    if isinstance(array, Tensor):
        array = to_uint8(array, range) if array.is_floating_point() and array.ndim == 4 else array.cpu().numpy()
    if not isinstance(array, np.ndarray):
        raise InputError(f"{what}: a {type(images).__name__}, expected an array, a data set, samples or a path")
    if labels is None:
        return MemorySet(array, name=what)
    numbers = np.asarray(labels, dtype=np.int64)
    return MemorySet(array, numbers, name=what, classes=number_classes(numbers, what))
