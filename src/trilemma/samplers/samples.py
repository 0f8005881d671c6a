"""What sampling gives: images with their seeds and labels, and strips of the way there. Both are pictures in a
notebook."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt8

from trilemma.errors import InputError
from trilemma.process import image_grid, png


@dataclass(frozen=True, eq=False)
class Samples:
    """Generated images: uint8 NHWC, the class asked of each (None: unconditional), the seed of each; of a set on disk
    where it lies, and the record of how it was made."""

    images: UInt8[np.ndarray, "n h w c"]
    labels: Int64[np.ndarray, "n"] | None
    seeds: list[int]
    path: Path | None = None
    record: dict[str, Any] | None = None

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        count, height, width, channels = self.images.shape
        several = 0 if self.labels is None else len(set(self.labels.tolist()))
        classes = f", {several} class{'es' * (several > 1)}" if several else ""
        place = "" if self.path is None else f", in {self.path}"
        return f"Samples({count} images {height}×{width}×{channels}, seeds {seed_words(self.seeds)}{classes}{place})"

    def picture(self) -> UInt8[np.ndarray, "h w c"]:
        """The first 100 of them, ten a row: of a balanced model of ten classes each column is a class."""
        return image_grid(self.images[:100], min(10, len(self)))

    def _repr_png_(self) -> bytes:
        return png(self.picture())


@dataclass(frozen=True, eq=False)
class Strip:
    """Images on their way between clean and noise, a row an image, at `times`, in the order shown."""

    images: UInt8[np.ndarray, "rows steps h w c"]
    times: tuple[float, ...]

    def __repr__(self) -> str:
        rows, steps, *_ = self.images.shape
        return f"Strip({rows} images at {steps} times, {self.times[0]:g} to {self.times[-1]:g})"

    def picture(self) -> UInt8[np.ndarray, "h w c"]:
        """All of them, a row an image."""
        return image_grid(self.images.reshape(-1, *self.images.shape[2:]), self.images.shape[1])

    def _repr_png_(self) -> bytes:
        return png(self.picture())


def check_seeds(n: int, seeds: Sequence[int] | None) -> list[int]:
    """The seeds given, or 0…n−1. Raises InputError if there are none, one is negative, or one is given twice."""
    numbers = list(range(n)) if seeds is None else list(seeds)
    if not numbers:
        raise InputError("seeds: none given, expected at least one image")
    if len(set(numbers)) < len(numbers):
        raise InputError("seeds: some are given twice, and the same seed is the same image")
    if min(numbers) < 0:
        raise InputError(f"seeds: {min(numbers)} is negative, expected 0 or more")
    return numbers


def balanced(seeds: Sequence[int], classes: int) -> Int64[np.ndarray, "n"]:
    """The class of each image where none is asked for: seed mod `classes`."""
    return np.array([seed % classes for seed in seeds], dtype=np.int64)


def paired(
    first: UInt8[np.ndarray, "n h w c"], second: UInt8[np.ndarray, "n h w c"], columns: int = 4
) -> UInt8[np.ndarray, "gh gw c"]:
    """A picture of pairs, the first of each on the left, `columns` pairs to a row, with more room between pairs than in
    them (A figure 4.4)."""
    size = first.shape[1]
    between = np.full((len(first), size, max(1, size // 14), first.shape[3]), 255, dtype=np.uint8)
    return image_grid(np.concatenate([first, between, second], axis=2), columns, padding=max(4, size // 3))


def seed_words(seeds: Sequence[int]) -> str:
    """Seeds as the command line takes them: 0-499 if they are a run of numbers, else listed."""
    if list(seeds) == list(range(seeds[0], seeds[0] + len(seeds))):
        return f"{seeds[0]}-{seeds[-1]}" if len(seeds) > 1 else str(seeds[0])
    return ",".join(map(str, seeds))
