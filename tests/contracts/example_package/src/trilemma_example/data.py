"""A data set."""

from __future__ import annotations

import numpy as np

from trilemma.data import MemorySet, outlined

CLASSES = ("across", "down")


@outlined((1, 8, 8), CLASSES)
def stripes(split: str, *, size: tuple[int, int] = (8, 8)) -> MemorySet:
    """Grey stripes, 1x8x8 or any size, 2 classes (train 64, test 16)."""
    index = {"train": np.arange(64), "test": np.arange(64, 80), "all": np.arange(80)}[split]
    height, width = size
    down = np.arange(height)[None, :, None] * (index % 2)[:, None, None]
    across = np.arange(width)[None, None, :] * (1 - index % 2)[:, None, None]
    images = (127.5 + 100 * np.sin(down + across + index[:, None, None])).astype(np.uint8)[..., None]
    return MemorySet(images, index % 2, name="stripes", split=split, classes=CLASSES)
