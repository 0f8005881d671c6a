"""Images held out of data that has no test split: by what they are, not by where they stand."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Bool, UInt8

from trilemma.errors import InputError


def check_holdout(share: float) -> None:
    """Raises InputError for a share that is not in [0, 1)."""
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share < 1:
        raise InputError(f"data.holdout: {share!r}, expected a share from 0 up to, and without, 1, such as 0.1")


def has_splits(share: float, what: str, splits: Sequence[str]) -> InputError:
    """The error for images to be held out of data that has splits."""
    return InputError(f"data.holdout {share:g}: {what} has its own splits ({', '.join(splits)}), expected 0")


def of_bytes(content: bytes) -> int:
    """The number, below 2⁶⁴, that decides on which side a file of this content lies."""
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "big")


def of_pixels(image: UInt8[np.ndarray, "h w c"]) -> int:
    """The same of an image that is no file: of its shape and its pixels."""
    return of_bytes(str(image.shape).encode() + image.tobytes())


def held_out(numbers: Iterable[int], share: float, what: str) -> Bool[np.ndarray, " n"]:
    """Which images are held out: those whose number is below `share` · 2⁶⁴.

    An image's side depends on its content alone, so that it keeps it while the data grow, and copies of it never lie on
    both. Where one side would be empty, the image of the lowest, or highest, number goes over.

    Raises:
        InputError: there are no two different images.
    """
    values = np.fromiter(numbers, dtype=np.uint64)
    if not values.size or values.min() == values.max():
        raise InputError(f"data.holdout {share:g}: {what} has no two different images, expected 0")
    held = values < np.uint64(int(share * 2**64))
    if not held.any():
        return np.asarray(values == values.min())
    return np.asarray(values < values.max()) if held.all() else held
