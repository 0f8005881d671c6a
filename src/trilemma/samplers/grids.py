"""Grids: which of the tabulated times 1…T a sampler visits. One planner for all spacings.

A grid is a float64 tensor [K + 1], strictly decreasing, that ends in 0 (clean data): K intervals, so K evaluations of a
one-evaluation kernel. Its first entry is the time that the start is taken to be at; K = T is the full chain in every
spacing. In steps of the table, k = 1…K counted from clean to noisy:

    even       k-th of K times spread evenly over 1…T, both ends included (improved-diffusion's respacing; A 2.2.2)
    uniform    1 + ⌊(k − 1) T/K⌋, DDIM's linear spacing (Song et al. 2021, appendix D.2): T itself is left out for K < T
    quadratic  1 + ⌊((k − 1)/(K − 1) √(0.8 T))²⌋, DDIM's quadratic spacing: dense near clean data
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from trilemma.errors import InputError, unknown
from trilemma.process.schedules import Schedule


def even(steps: int, count: int) -> Int64[Tensor, "k"]:
    if count == 1:
        return torch.tensor([steps])
    return torch.linspace(1, steps, count, dtype=torch.float64).round().long()


def uniform(steps: int, count: int) -> Int64[Tensor, "k"]:
    return 1 + torch.arange(count) * steps // count


def quadratic(steps: int, count: int) -> Int64[Tensor, "k"]:
    root = torch.linspace(0, (0.8 * steps) ** 0.5, count, dtype=torch.float64)
    return 1 + (root**2).floor().long()


SPACINGS: dict[str, Callable[[int, int], Int64[Tensor, "k"]]] = {
    "even": even,
    "uniform": uniform,
    "quadratic": quadratic,
}


def grid(schedule: Schedule, steps: int | None = None, spacing: str = "even") -> Float64[Tensor, "k1"]:
    """The grid of `steps` intervals over a tabulated schedule; None is every step.

    Raises InputError if `steps` is outside 1…T or the spacing is unknown."""
    if spacing not in SPACINGS:
        raise unknown("grid", spacing, SPACINGS)
    if schedule.steps is None:
        raise InputError("this schedule is continuous: it has no table to take steps from")
    count = schedule.steps if steps is None else steps
    if not 1 <= count <= schedule.steps:
        nearest = min(max(count, 1), schedule.steps)
        raise InputError(
            f"steps {count}: this model's schedule has T = {schedule.steps}, so expected 1 to {schedule.steps} "
            f"(nearest: {nearest})"
        )
    visited = distinct(SPACINGS[spacing](schedule.steps, count), schedule.steps)
    return torch.cat([visited.flip(0), torch.zeros(1, dtype=torch.long)]).double()


def distinct(times: Int64[Tensor, "k"], steps: int) -> Int64[Tensor, "k"]:
    """Push equal neighbours apart: the least increase that makes `times` strictly increasing, held within 1…steps.
    With as many times as steps that is every step."""
    index = torch.arange(len(times))
    apart = torch.cummax(times - index, 0).values + index
    return torch.minimum(apart, steps - index.flip(0))
