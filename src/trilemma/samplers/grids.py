"""Grids: which times a sampler visits. One planner for all spacings.

A grid is a float64 tensor [K + 1], strictly decreasing, that ends in 0 (clean data): K intervals. Its first entry is
the time that the start is taken to be at. In steps of a table of T, k = 1…K counted from clean to noisy, the spacings
are

    even       k-th of K times spread evenly over 1…T, both ends included (improved-diffusion's respacing; A 2.2.2)
    uniform    1 + ⌊(k − 1) T/K⌋, DDIM's linear spacing (Song et al. 2021, appendix D.2): T itself is left out for K < T
    quadratic  1 + ⌊((k − 1)/(K − 1) √(0.8 T))²⌋, DDIM's quadratic spacing: dense near clean data
    10,10,15   as many sections of equal length, each with so many evenly spread times (improved-diffusion's sections)
    log_snr    equal steps of log SNR from t_min to T (DPM-Solver's default); times between the table's
    karras     equal steps of (σ/α)^(1/7) from t_min to T (Karras et al. 2022, eq. 5)

K = T is the full chain in all that stay on the table. A continuous schedule's even grid is even in t.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from trilemma.errors import InputError, unknown
from trilemma.process.schedules import Schedule


def even(steps: int, count: int) -> Int64[Tensor, "k"]:
    if count == 1:
        return torch.tensor([steps])
    # Rounded from 0, as improved-diffusion and diffusers number the table: their halves fall to the same side.
    return 1 + torch.linspace(0, steps - 1, count, dtype=torch.float64).round().long()


def uniform(steps: int, count: int) -> Int64[Tensor, "k"]:
    return 1 + torch.arange(count) * steps // count


def quadratic(steps: int, count: int) -> Int64[Tensor, "k"]:
    root = torch.linspace(0, (0.8 * steps) ** 0.5, count, dtype=torch.float64)
    return 1 + (root**2).floor().long()


def log_snr(schedule: Schedule, count: int) -> Float64[Tensor, "k"]:
    ends = schedule.gamma(torch.tensor([schedule.t_min, schedule.T], dtype=torch.float64))
    return _ended(
        schedule, schedule.time_of(torch.linspace(float(ends[0]), float(ends[1]), count, dtype=torch.float64))
    )


def karras(schedule: Schedule, count: int, rho: float = 7.0) -> Float64[Tensor, "k"]:
    ends = torch.exp(schedule.gamma(torch.tensor([schedule.t_min, schedule.T], dtype=torch.float64)) / (2 * rho))
    noise = torch.linspace(float(ends[0]), float(ends[1]), count, dtype=torch.float64) ** rho
    return _ended(schedule, schedule.time_of(2 * torch.log(noise)))


def _ended(schedule: Schedule, times: Float64[Tensor, "k"]) -> Float64[Tensor, "k"]:
    """The times with T itself as the last, which rounding would miss."""
    times[-1] = schedule.T
    return times


ON_TABLE: dict[str, Callable[[int, int], Int64[Tensor, "k"]]] = {
    "even": even,
    "uniform": uniform,
    "quadratic": quadratic,
}
OFF_TABLE: dict[str, Callable[[Schedule, int], Float64[Tensor, "k"]]] = {"log_snr": log_snr, "karras": karras}
SPACINGS = (*ON_TABLE, *OFF_TABLE)


def check_spacing(spacing: str) -> str:
    """The spacing, if it is a name or counts with commas between. Raises InputError otherwise."""
    if spacing not in SPACINGS and _sections(spacing) is None:
        raise unknown("spacing", spacing, [*SPACINGS, "10,10,15"])
    return spacing


def _sections(spacing: str) -> list[int] | None:
    parts = spacing.split(",")
    numbers = all(part.isascii() and part.strip().isdigit() and int(part) for part in parts)
    return [int(part) for part in parts] if numbers else None


def grid(schedule: Schedule, steps: int | None = None, spacing: str = "even", skip: int = 0) -> Float64[Tensor, "k1"]:
    """The grid of `steps` intervals; None is every step of a table. `skip` leaves so many of the noisiest times out,
    the start still being taken for pure noise (B figure 4).

    Raises InputError if `steps` is outside 1…T, the spacing unknown, or nothing is left."""
    check_spacing(spacing)
    times = _times(schedule, steps, spacing)
    if not 0 <= skip < len(times):
        raise InputError(f"skip {skip}: expected 0 to {len(times) - 1}, the grid has {len(times)} times")
    return torch.cat([times.flip(0)[skip:].double(), torch.zeros(1, dtype=torch.float64)])


def _times(schedule: Schedule, steps: int | None, spacing: str) -> Tensor:
    """The grid's times but for 0, rising."""
    sections = _sections(spacing) if spacing not in SPACINGS else None
    if sections is not None:
        if steps not in (None, sum(sections)):
            raise InputError(f"steps {steps}: the sections {spacing} have {sum(sections)} in all")
        return _by_section(_table(schedule, spacing), sections)
    if schedule.steps is None:
        if steps is None or steps < 1:
            raise InputError(f"steps {steps}: this schedule is continuous, expected a number of steps, 1 or more")
        if spacing in ON_TABLE:
            if spacing != "even":
                raise InputError(f"spacing {spacing!r} needs a tabulated schedule: use even, log_snr or karras")
            return torch.linspace(schedule.t_min if steps > 1 else schedule.T, schedule.T, steps, dtype=torch.float64)
    count = schedule.steps if steps is None else steps
    assert count is not None
    if schedule.steps is not None and not 1 <= count <= schedule.steps:
        nearest = min(max(count, 1), schedule.steps)
        raise InputError(
            f"steps {count}: this model's schedule has T = {schedule.steps}, so expected 1 to {schedule.steps} "
            f"(nearest: {nearest})"
        )
    if spacing in ON_TABLE:
        assert schedule.steps is not None
        return distinct(ON_TABLE[spacing](schedule.steps, count), schedule.steps)
    if schedule.terminal_snr() == 0:
        raise InputError(f"spacing {spacing!r}: the schedule ends at SNR 0, where log SNR is infinite: use even")
    return OFF_TABLE[spacing](schedule, count) if count > 1 else torch.tensor([schedule.T], dtype=torch.float64)


def _table(schedule: Schedule, spacing: str) -> int:
    if schedule.steps is None:
        raise InputError(f"spacing {spacing!r} needs a tabulated schedule: this one is continuous")
    return schedule.steps


def _by_section(steps: int, counts: Sequence[int]) -> Int64[Tensor, "k"]:
    """As improved-diffusion has it: the table in equal sections (the first ones longer by one where it does not
    divide), in each its count spread evenly from its first time to its last."""
    times, start = [], 1
    for i, count in enumerate(counts):
        size = steps // len(counts) + (i < steps % len(counts))
        if count > size:
            named = ",".join(map(str, counts))
            raise InputError(f"spacing {named}: section {i + 1} has {size} times, fewer than {count}")
        # Added up as theirs are: where a multiple of the stride ends in a half, the sum's rounding error decides.
        stride = (size - 1) / max(count - 1, 1)
        times += [start + round(place) for place in accumulate([0.0] + [stride] * (count - 1))]
        start += size
    return torch.tensor(times)


def explicit(schedule: Schedule, times: Sequence[float]) -> Float64[Tensor, "k1"]:
    """A grid of these times, noisiest first, to which 0 is added if it is not there. Raises InputError where they do
    not strictly decrease or lie outside (0, T]."""
    given = torch.tensor([*times] if times and times[-1] == 0 else [*times, 0.0], dtype=torch.float64)
    if len(given) < 2 or not bool((given.diff() < 0).all()) or not float(given[0]) <= schedule.T:
        raise InputError(f"times {list(times)}: expected strictly decreasing times between {schedule.T:g} and 0")
    return given


def cut(schedule: Schedule, grid: Float64[Tensor, "k1"], t_mid: float) -> Float64[Tensor, "k2"]:
    """The part of a grid below t_mid, from t_mid on: where a surrogate's noised image goes on (A 3.2). t_mid = 0 leaves
    the single time 0. Raises InputError for t_mid outside [0, T]."""
    start = torch.tensor([check_t_mid(schedule, t_mid)], dtype=torch.float64)
    return torch.cat([start, grid[grid < t_mid]])


def check_t_mid(schedule: Schedule, t_mid: float) -> float:
    """The time, if it lies in [0, T]. Raises InputError otherwise."""
    if not 0 <= t_mid <= schedule.T:
        raise InputError(f"t_mid {t_mid:g}: expected 0 to {schedule.T:g}")
    return t_mid


def distinct(times: Int64[Tensor, "k"], steps: int) -> Int64[Tensor, "k"]:
    """Push equal neighbours apart: the least increase that makes `times` strictly increasing, held within 1…steps.
    With as many times as steps that is every step."""
    index = torch.arange(len(times))
    apart = torch.cummax(times - index, 0).values + index
    return torch.minimum(apart, steps - index.flip(0))
