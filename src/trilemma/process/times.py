"""A time sampler draws the training times and their importance weights, and learns from the losses it is told."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from trilemma.process.noise import Draw
from trilemma.process.schedules import Schedule


@dataclass(frozen=True)
class Times:
    """Training times t [n] in (0, T] and weights [n] that keep the mean over images unbiased, float64 on the CPU."""

    t: Float64[Tensor, "n"]
    weight: Float64[Tensor, "n"]


class TimeSampler(ABC):
    """Draws times for one schedule. What it learns is its state, which the checkpoint keeps."""

    def __init__(self, schedule: Schedule):
        self.schedule = schedule

    @abstractmethod
    def sample(self, draw: Draw) -> Times:
        """One time an image, each from the image's own stream."""

    def observe(self, t: Float64[Tensor, "n"], loss: Float[Tensor, "n"]) -> None:  # noqa: B027 — learning is optional
        """Be told the losses (all images of the global batch, in order, unweighted) that these times gave."""

    def state_dict(self) -> dict[str, Any]:
        """What it has learnt, as tensors and JSON values."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: B027
        """Take up what `state_dict` gave."""


def spread(schedule: Schedule, u: Float64[Tensor, "n"]) -> Float64[Tensor, "n"]:
    """The times that numbers u in [0, 1) stand for: equal shares to the table's 1…T, or (0, T] if continuous."""
    return torch.floor(u * schedule.steps) + 1.0 if schedule.steps is not None else (1.0 - u) * schedule.T


class Uniform(TimeSampler):
    """t uniform over the schedule's times (Ho et al. 2020, algorithm 1)."""

    def sample(self, draw: Draw) -> Times:
        t = spread(self.schedule, draw.uniform())
        return Times(t, torch.ones_like(t))


TIME_SAMPLERS: dict[str, type[TimeSampler]] = {"uniform": Uniform}
