"""Handing over: what a walk at a lower resolution says of the image on its way, for another to go on from (A 4.6)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64, UInt8
from torch import Tensor
from torch.nn import functional

from trilemma.process import BoundDenoiser, Draw, Schedule, to_model, to_uint8
from trilemma.samplers.kernels import Kernel
from trilemma.samplers.sampler import Sampler

LEVELS = (0.0, 255.0)
"""A data range in which bytes are themselves."""


def hand_over_time(schedule: Schedule, t_mid: float, below: Schedule) -> float:
    """The time of the schedule `below` at which SNR is that of `schedule` at t_mid, t_min of its at the least; 0 for
    0. Of the same schedule it is t_mid."""
    if t_mid == 0:
        return 0.0
    return float(below.time_of(schedule.gamma(torch.tensor(t_mid, dtype=torch.float64))))


@dataclass(frozen=True, kw_only=True)
class _ToMean(Kernel):
    """Another kernel, whose step to clean data is x̂_0 as that kernel holds it."""

    kernel: Kernel

    @property
    def label(self) -> str:
        return self.kernel.label

    def particulars(self) -> dict[str, Any]:
        return self.kernel.particulars()

    def asks(self, schedule: Schedule, grid: Float64[Tensor, "k1"]) -> Float64[Tensor, "m"]:
        return self.kernel.asks(schedule, grid)

    def step(
        self,
        denoiser: BoundDenoiser,
        x_t: Float[Tensor, "n c h w"],
        t: Float64[Tensor, ""],
        s: Float64[Tensor, ""],
        state: Any,
        draw: Draw,
    ) -> tuple[Float[Tensor, "n c h w"], Any]:
        if s == 0:
            return self.kernel.predict(denoiser, x_t, t).x0, state
        return self.kernel.step(denoiser, x_t, t, s, state, draw)


@dataclass(frozen=True, eq=False)
class HandOver:
    """A stage: a sampler's walk from noise down to the time `t`, there x̂_0, the posterior mean, with one evaluation and
    the kernel's clipping, resized bilinearly to `size` (h, w). At t = 0 it is the finished image. `walked`: the sampler
    of that part of the walk. Raises InputError as `Sampler` does."""

    sampler: Sampler
    t: float
    size: tuple[int, int]
    walked: Sampler = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "walked", self._walked() if self.t else self.sampler)

    def _walked(self) -> Sampler:
        whole = self.sampler
        times = [*whole.grid[whole.grid > self.t].tolist(), self.t]
        return replace(
            whole,
            kernel=_ToMean(clip=whole.kernel.clip, kernel=whole.kernel),
            times=times, steps=None, spacing="even", skip=0,
            # One that acts below alone has no say in this part, and saying so is no mistake.
            guides=[guide for guide in whole.guides if any(map(guide.acts, times))],
        )  # fmt: skip

    @property
    def shape(self) -> tuple[int, int, int]:
        return (self.sampler.shape[0], *self.size)

    @property
    def evaluations(self) -> int:
        return self.walked.evaluations

    @property
    def label(self) -> str:
        return f"{self.sampler.label}, handed over at {self.t:g}"

    @property
    def stages(self) -> int:
        return self.walked.stages

    def generate(
        self, seeds: Sequence[int], labels: Int64[np.ndarray, "n"] | None = None
    ) -> UInt8[np.ndarray, "n h w c"]:
        return resized(self.walked.generate(seeds, labels), self.size)


def resized(images: UInt8[np.ndarray, "n h w c"], size: tuple[int, int]) -> UInt8[np.ndarray, "n h2 w2 c"]:
    """Images at another size (h2, w2), bilinearly."""
    if images.shape[1:3] == tuple(size):
        return images
    return to_uint8(functional.interpolate(to_model(images, LEVELS), size=size, mode="bilinear"), LEVELS)
