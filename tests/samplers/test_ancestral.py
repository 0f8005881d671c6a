"""Ancestral sampling of Gaussian data with the exact denoiser: the sampler is then linear in its noise, so the mean and
variance of what it gives are computed from its responses to impulses, without drawing anything."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.exact import (
    ExactNetwork,
    Fixed,
    Given,
    Impulses,
    Mixture,
    NoDraw,
    answer,
    cosine_alpha_bar,
    linear_alpha_bar,
    tabulated_levels,
)
from trilemma.process import Condition, Cosine, Denoiser, Draw, Linear
from trilemma.samplers import Ancestral, grid, walk

MEAN = torch.tensor([0.5, -0.3, 0.0]).reshape(1, 1, 3).double()
VARIANCE = torch.tensor([0.25, 1.0, 0.04]).reshape(1, 1, 3).double()
PROCESSES: dict[str, tuple[Any, np.ndarray]] = {
    "linear": (Linear(steps=1000), linear_alpha_bar(1000)),
    "cosine": (Cosine(steps=100), cosine_alpha_bar(100)),
}


def denoiser(data: Mixture, process: str, parameterization: str = "epsilon", variance: str = "fixed_large") -> Any:
    schedule, table = PROCESSES[process]
    network = ExactNetwork(data, tabulated_levels(table), parameterization)
    return Denoiser(network, schedule, parameterization, variance).bind(Condition())


def respond(bound: Any, times: Tensor, start_std: float = 1.0, start_mean: Tensor | float = 0.0) -> Any:
    """(t, mean, variance) after each step of an unclipped walk whose start is N(start_mean, start_std²)."""
    intervals = len(times) - 1
    start = torch.zeros(intervals + 1, 1, 1, 3, dtype=torch.float64) + start_mean
    start[-1] += 1.0
    for step in walk(Ancestral(clip="none"), bound, times, start, cast(Draw, Impulses())):
        yield step.t, *answer(step.x, start_std)


def recursion(table: np.ndarray, times: list[int], variance: str) -> tuple[Tensor, Tensor]:
    """Mean and variance by Ho et al.'s eq. 7 over these times, pixel by pixel: x_s = A x_t + B x̂_0(x_t) + √Σ z, with
    x̂_0 = m + g (x_t − α m), g = α v/(α² v + 1 − ᾱ)."""
    mean, spread = torch.zeros_like(MEAN), torch.ones_like(MEAN)
    for t, s in pairwise(times):
        at, as_ = table[t], table[s]
        beta = 1 - at / as_
        a, b = math.sqrt(at / as_) * (1 - as_) / (1 - at), math.sqrt(as_) * beta / (1 - at)
        gain = math.sqrt(at) * VARIANCE / (at * VARIANCE + 1 - at)
        noise = beta if variance == "fixed_large" else beta * (1 - as_) / (1 - at)
        mean = a * mean + b * (MEAN + gain * (mean - math.sqrt(at) * MEAN))
        spread = (a + b * gain) ** 2 * spread + (noise if s > 0 else 0.0)
    return mean, spread


@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
@pytest.mark.parametrize(("process", "steps"), [("linear", 1000), ("linear", 37), ("cosine", 100), ("cosine", 9)])
def test_moments_are_the_recursions(process: str, steps: int, variance: str) -> None:
    schedule, table = PROCESSES[process]
    times = grid(schedule, steps, "even")
    *_, (_, mean, spread) = respond(denoiser(Mixture.gaussian(MEAN, VARIANCE), process, variance=variance), times)
    expected = recursion(table, times.long().tolist(), variance)
    torch.testing.assert_close(mean, expected[0], rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(spread, expected[1], rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
def test_the_full_chain_gives_the_data(variance: str) -> None:
    bound = denoiser(Mixture.gaussian(MEAN, VARIANCE), "linear", variance=variance)
    *_, (_, mean, spread) = respond(bound, grid(PROCESSES["linear"][0]))
    torch.testing.assert_close(mean, MEAN, rtol=0, atol=0.005)
    torch.testing.assert_close(spread, VARIANCE, rtol=0.04, atol=0)


def test_parameterizations_sample_alike() -> None:
    times = grid(PROCESSES["cosine"][0], 12, "quadratic")
    data = Mixture.gaussian(MEAN, VARIANCE)
    ends = [list(respond(denoiser(data, "cosine", name), times))[-1] for name in ("epsilon", "x0", "v")]
    for _, mean, spread in ends[1:]:
        torch.testing.assert_close(mean, ends[0][1], rtol=1e-7, atol=1e-9)
        torch.testing.assert_close(spread, ends[0][2], rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("steps", [300, 40, 5])
def test_fixed_large_is_exact_for_unit_gaussian_data(steps: int) -> None:
    """Ho et al. 2020, section 3.2: with σ² = β, x_0 ~ N(0, I) stays N(0, I) at every time of any grid."""
    data = Mixture.gaussian(torch.zeros(1, 1, 3), torch.ones(1, 1, 3))
    walked = list(respond(denoiser(data, "linear", variance="fixed_large"), grid(PROCESSES["linear"][0], steps)))
    for t, mean, spread in walked[:-1]:
        torch.testing.assert_close(mean, torch.zeros_like(mean))
        torch.testing.assert_close(spread, torch.ones_like(spread), rtol=1e-9, atol=0, msg=f"at t = {t}")


@pytest.mark.parametrize("steps", [300, 40, 5])
def test_fixed_small_is_exact_for_a_single_image(steps: int) -> None:
    """Ho et al. 2020, section 3.2: with σ² = β̃ and x_0 = m always, x_s ~ N(α_s m, σ_s²) at every time of any grid."""
    schedule, table = PROCESSES["linear"]
    bound = denoiser(Mixture.gaussian(MEAN, torch.zeros(1, 1, 3)), "linear", variance="fixed_small")
    times, end = grid(schedule, steps), table[-1]
    for t, mean, spread in respond(bound, times, math.sqrt(1 - end), math.sqrt(end) * MEAN):
        torch.testing.assert_close(mean, math.sqrt(table[int(t)]) * MEAN, rtol=1e-8, atol=1e-8)
        torch.testing.assert_close(spread, torch.full_like(MEAN, 1 - table[int(t)]), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(("t", "s"), [(1000, 999), (1000, 250), (31, 30), (2, 1)])
def test_a_step_adds_the_variance_it_says(t: int, s: int) -> None:
    _, table = PROCESSES["linear"]
    x = torch.randn(2, 1, 1, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    time = torch.tensor([t, s], dtype=torch.float64)
    beta = 1 - table[t] / table[s]
    for name, variance in (("fixed_large", beta), ("fixed_small", beta * (1 - table[s]) / (1 - table[t]))):
        bound = denoiser(Mixture.gaussian(MEAN, VARIANCE), "linear", variance=name)
        with_noise, without = (
            Ancestral().step(bound, x, time[0], time[1], None, cast(Draw, Given(noise)))[0]
            for noise in (torch.ones_like(x), torch.zeros_like(x))
        )
        expected = torch.full_like(x, math.sqrt(variance))
        torch.testing.assert_close(with_noise - without, expected, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
@pytest.mark.parametrize("t", [1, 500])
def test_the_last_step_adds_no_noise(t: int, variance: str) -> None:
    """z = 0 on the way to clean data (algorithm 2): what is returned is x̂_0 itself."""
    data = Mixture.gaussian(MEAN, VARIANCE)
    x = torch.randn(2, 1, 1, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    time = torch.tensor([t, 0], dtype=torch.float64)
    bound = denoiser(data, "linear", variance=variance)
    found, _ = Ancestral(clip="none").step(bound, x, time[0], time[1], None, cast(Draw, NoDraw()))
    table = torch.from_numpy(PROCESSES["linear"][1])[t]
    torch.testing.assert_close(found, data.denoised(x, table.sqrt(), (1 - table).sqrt()), rtol=1e-9, atol=1e-9)


def test_clipping_holds_x0_and_keeps_explaining_x_t() -> None:
    """x̂_0 of 3 held at 1, of −0.2 left alone, of −5 held at −1: ε̂ is what then explains x_t, by hand."""
    said, held = torch.tensor([[[3.0, -0.2, -5.0]]]).double(), torch.tensor([[[1.0, -0.2, -1.0]]]).double()
    schedule, table = PROCESSES["linear"]
    at, as_ = table[600], table[450]
    x = torch.randn(4, 1, 1, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    bound = Denoiser(Fixed(said), schedule, "x0", "fixed_small").bind(Condition())
    time = torch.tensor([600, 450], dtype=torch.float64)
    noise = torch.randn(4, 1, 1, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    found, _ = Ancestral().step(bound, x, time[0], time[1], None, cast(Draw, Given(noise)))
    beta = 1 - at / as_
    deviation = math.sqrt(beta * (1 - as_) / (1 - at))
    mean = math.sqrt(as_) * beta / (1 - at) * held + math.sqrt(at / as_) * (1 - as_) / (1 - at) * x
    torch.testing.assert_close(found, mean + deviation * noise, rtol=1e-9, atol=1e-9)
    unclipped, _ = Ancestral(clip="none").step(bound, x, time[0], time[1], None, cast(Draw, Given(noise)))
    moved = math.sqrt(as_) * beta / (1 - at) * (said - held)
    torch.testing.assert_close(unclipped - found, moved.expand_as(x), rtol=1e-9, atol=1e-9)


def test_mixtures_keep_their_shares() -> None:
    """Two separated values, 30 % and 70 %: drawn samples split as the data do, each near its value."""
    centre = torch.tensor([-0.6, 0.6]).double().reshape(2, 1, 1, 1)
    data = Mixture(torch.tensor([0.3, 0.7]).double(), centre, torch.full_like(centre, 0.01))
    times, seeds = grid(PROCESSES["cosine"][0]), range(2000)
    start = Draw.for_seeds(seeds, "start").normal(torch.empty(2000, 1, 1, 1))
    *_, last = walk(Ancestral(), denoiser(data, "cosine"), times, start, Draw.for_seeds(seeds, "step"))
    high = last.x > 0
    assert high.double().mean().item() == pytest.approx(0.7, abs=4 * math.sqrt(0.21 / 2000))
    for part, value in ((last.x[high], 0.6), (last.x[~high], -0.6)):
        assert part.mean().item() == pytest.approx(value, abs=0.02)
        assert part.std().item() == pytest.approx(0.1, rel=0.15)
