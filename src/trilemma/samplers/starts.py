"""Starts: what a walk begins from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from trilemma.process import Draw, Schedule, perturb


def noise_start(
    schedule: Schedule,
    seeds: Sequence[int],
    shape: tuple[int, int, int],
    device: torch.device | str = "cpu",
    t: float | None = None,
    role: str = "start",
) -> Float[Tensor, "n c h w"]:
    """x_t ~ N(0, p² I), p the schedule's prior_std at the time `t` that the walk begins at (T unless given): images
    [len(seeds), *shape] of pure noise, each from the stream `role` of its own seed."""
    like = torch.empty(len(seeds), *shape, device=device)
    return schedule.prior_std(schedule.T if t is None else t) * Draw.for_seeds(seeds, role).normal(like)


def surrogate_start(
    schedule: Schedule, images: Float[Tensor, "n c h w"], t_mid: float, seeds: Sequence[int]
) -> Float[Tensor, "n c h w"]:
    """x_{t_mid} ~ q(· | x̃_0) for a surrogate's images x̃_0 (A algorithm 4), with each seed's own noise: t_mid = 0
    gives the images themselves."""
    t = torch.tensor(t_mid, dtype=torch.float64)
    return perturb(schedule, images, t, Draw.for_seeds(seeds, "start").normal(images))


SurrogateImages = Callable[[Sequence[int], Int64[np.ndarray, "n"] | None], UInt8[np.ndarray, "n h w c"]]
"""(seeds, labels) -> the images of these seeds."""


@dataclass(frozen=True)
class Surrogate:
    """Whatever makes the images that a walk begins from (A 3.2): `images(seeds, labels)`, the time `t_mid` that they
    are noised to, and what records say of it, its `name` first."""

    images: SurrogateImages
    t_mid: float
    record: dict[str, Any]
