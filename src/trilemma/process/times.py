"""A time sampler draws the training times and their importance weights, and learns from the losses it is told."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from annotated_types import Ge, Gt, Le
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from trilemma.errors import InputError
from trilemma.parts import Described
from trilemma.process.noise import Draw, stream
from trilemma.process.schedules import Schedule
from trilemma.registry import register, registry

GOLDEN = 0.6180339887498949
"""The golden ratio's fractional part: its multiples modulo 1 are spread evenly, however many there are."""


@dataclass(frozen=True)
class Times:
    """Training times t [n] in (0, T] and weights [n] that keep the mean over images unbiased, float64 on the CPU."""

    t: Float64[Tensor, "n"]
    weight: Float64[Tensor, "n"]


class TimeSampler(Described, ABC):
    """Draws times for one schedule. What it learns is its state, which the checkpoint keeps. `extra`: how many batches
    a step it wants to be told of besides the one that is trained on."""

    extra: int = 0

    uniform_mean: ClassVar[bool] = True
    """Whether the weighted mean is that over uniform times, which bounds are made of."""

    def __init__(self, schedule: Schedule):
        self.schedule = schedule

    @abstractmethod
    def sample(self, draw: Draw) -> Times:
        """One time an image, each from the image's own stream."""

    def observe(self, t: Float64[Tensor, "n"], loss: Float[Tensor, "n"]) -> None:
        """Be told the losses (all images of the global batch, in order, unweighted) that these times gave."""

    def state_dict(self) -> dict[str, Any]:
        """What it has learnt, as tensors and JSON values."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` gave."""


def spread(schedule: Schedule, u: Float64[Tensor, "n"]) -> Float64[Tensor, "n"]:
    """The times that numbers u in [0, 1) stand for: equal shares to the table's 1…T, or (0, T] if continuous."""
    return torch.floor(u * schedule.steps) + 1.0 if schedule.steps is not None else (1.0 - u) * schedule.T


def quarters(fractions: Float64[Tensor, "n"]) -> Int64[Tensor, "n"]:
    """Which quarter of (0, T] times lie in that are given as fractions of T: 0, next to clean data, to 3, the
    noisiest."""
    return (fractions * 4).ceil().long().clamp(1, 4) - 1


@register("times", "uniform")
class Uniform(TimeSampler):
    """t uniform over the schedule's times (Ho et al. 2020, algorithm 1)."""

    def sample(self, draw: Draw) -> Times:
        t = spread(self.schedule, draw.uniform())
        return Times(t, torch.ones_like(t))


@register("times", "low_discrepancy")
class LowDiscrepancy(TimeSampler):
    """t spread evenly over a step's images: one uniform number a step, and from it a step of the golden ratio an image,
    modulo 1. Each t is uniform, together they cover the schedule (as Kingma et al. 2021, appendix I.1, whose even
    spacing would need the batch's size)."""

    def sample(self, draw: Draw) -> Times:
        steps = [stream(*key[:-1], "shared time") for key in draw.keys]
        shared = torch.tensor([each.random() for each in steps], dtype=torch.float64)
        position = torch.tensor([int(key[-1]) for key in draw.keys], dtype=torch.float64)
        t = spread(self.schedule, (shared + position * GOLDEN) % 1.0)
        return Times(t, torch.ones_like(t))


@register("times", "importance")
class Importance(TimeSampler):
    """p_t ∝ √E[L_t²] from the last `history` losses of each t, uniform until every t has as many (Nichol & Dhariwal
    2021, section 3.3; A eq. 8–9). The weight 1/(T p_t) keeps the mean unbiased.

    `bins` groups neighbouring times (1: the source): ten losses for each of 1 000 times take some 350 batches of 64.
    `extra`: so many more batches a step feed the history without backpropagation (A 4.5's "+2"). `uniform` mixes in
    that share of the uniform distribution, so that no time is forgotten for good (improved-diffusion's 0.001)."""

    def __init__(
        self,
        schedule: Schedule,
        *,
        history: Annotated[int, Ge(1), Le(10_000)] = 10,
        bins: Annotated[int, Ge(1), Le(10_000)] = 1,
        extra: Annotated[int, Ge(0), Le(10_000)] = 0,
        uniform: Annotated[float, Gt(0), Le(1)] = 0.001,
    ):
        super().__init__(schedule)
        if schedule.steps is None:
            raise InputError("times 'importance' needs a tabulated schedule: a continuous one has no table of losses")
        if schedule.steps % bins:
            raise InputError(f"times.bins {bins} does not divide the schedule's {schedule.steps} steps")
        self.width, self.extra, self.uniform = bins, extra, uniform
        self.losses = torch.zeros(schedule.steps // bins, history, dtype=torch.float64)
        self.counts = torch.zeros(schedule.steps // bins, dtype=torch.int64)

    def probabilities(self) -> Float64[Tensor, "bins"]:
        """p of each bin; they sum to 1."""
        count, history = self.losses.shape
        if bool((self.counts < history).any()):
            return torch.full((count,), 1.0 / count, dtype=torch.float64)
        weights = self.losses.square().mean(1).sqrt()
        total = weights.sum()
        if not bool(total > 0):
            return torch.full((count,), 1.0 / count, dtype=torch.float64)
        return (1 - self.uniform) * weights / total + self.uniform / count

    def sample(self, draw: Draw) -> Times:
        p = self.probabilities()
        chosen = torch.searchsorted(p.cumsum(0), draw.uniform(), right=True).clamp(max=len(p) - 1)
        within = torch.floor(draw.uniform() * self.width)
        return Times(1.0 + chosen * self.width + within, 1.0 / (len(p) * p[chosen]))

    def observe(self, t: Float64[Tensor, "n"], loss: Float[Tensor, "n"]) -> None:
        history = self.losses.shape[1]
        bins = ((t.round().long() - 1) // self.width).tolist()
        for each, value in zip(bins, loss.double().cpu().tolist(), strict=True):
            # The oldest of the ten makes room: a ring, whose order does not matter to a mean of squares.
            self.losses[each, self.counts[each] % history] = value
            self.counts[each] += 1

    def state_dict(self) -> dict[str, Any]:
        return {"losses": self.losses, "counts": self.counts}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.losses, self.counts = state["losses"].clone(), state["counts"].clone()


@register("times", "lognormal")
class LogNormal(TimeSampler):
    """log of the noise level normal, with `mean` and `std`: log(σ/α) ~ N(−1.2, 1.2²) (Karras et al. 2022, table 1),
    held within the schedule's times."""

    uniform_mean = False

    def __init__(self, schedule: Schedule, *, mean: float = -1.2, std: Annotated[float, Gt(0)] = 1.2):
        super().__init__(schedule)
        self.mean, self.std = mean, std

    def sample(self, draw: Draw) -> Times:
        normal = torch.special.ndtri(draw.uniform().clamp(1e-12, 1 - 1e-12))
        t = self.schedule.time_of(2 * (self.mean + self.std * normal))
        t = t.round() if self.schedule.steps is not None else t
        return Times(t, torch.ones_like(t))


TIME_SAMPLERS = registry("times")
