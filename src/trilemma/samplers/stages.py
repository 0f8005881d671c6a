"""Stages: what makes the images that another walk goes on from, an upsampler's low ones or a surrogate's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from jaxtyping import Int64, UInt8

ImagesOf = Callable[[Sequence[int], Int64[np.ndarray, "n"] | None], UInt8[np.ndarray, "n h w c"]]
"""(seeds, labels) -> the images of these seeds."""


class Stage(Protocol):
    """What lies below a walk: a `Sampler`, with stages of its own perhaps, what one hands over, or finished images.
    Their `shape` (c, h, w), the network evaluations that one takes, how they are made in words, and the `stages` there
    are."""

    @property
    def shape(self) -> tuple[int, int, int]: ...

    @property
    def evaluations(self) -> int: ...

    @property
    def label(self) -> str: ...

    @property
    def stages(self) -> int: ...

    def generate(
        self, seeds: Sequence[int], labels: Int64[np.ndarray, "n"] | None = None
    ) -> UInt8[np.ndarray, "n h w c"]:
        """The finished images of these seeds and classes."""


@dataclass(frozen=True)
class Finished:
    """Finished images as a stage: `images(seeds, labels)`, which cost nothing, and what records say of them."""

    images: ImagesOf
    shape: tuple[int, int, int]
    label: str
    record: Mapping[str, Any] = field(default_factory=dict)
    evaluations: int = 0
    stages: int = 1

    def generate(
        self, seeds: Sequence[int], labels: Int64[np.ndarray, "n"] | None = None
    ) -> UInt8[np.ndarray, "n h w c"]:
        return self.images(seeds, labels)
