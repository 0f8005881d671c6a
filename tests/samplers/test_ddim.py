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
    Mixture,
    NoDraw,
    cosine_alpha_bar,
    linear_alpha_bar,
    tabulated_levels,
)
from trilemma.errors import InputError
from trilemma.process import Condition, Cosine, Denoiser, Draw, Linear
from trilemma.recipes import component
from trilemma.samplers import DDIM, Ancestral, grid, walk

TABLE = linear_alpha_bar(1000)
SCHEDULE = Linear(steps=1000)
MEAN = torch.tensor([0.5, -0.3, 0.0, 0.2]).reshape(1, 2, 2).double()
VARIANCE = torch.tensor([0.25, 1.0, 0.04, 0.5]).reshape(1, 2, 2).double()
GAUSSIAN = Mixture.gaussian(MEAN, VARIANCE)


def bound(data: Mixture, variance: str = "fixed_small") -> Any:
    network = ExactNetwork(data, tabulated_levels(TABLE))
    return Denoiser(network, SCHEDULE, variance=variance).bind(Condition())


def noise(seed: int, count: int = 6) -> Tensor:
    return torch.randn(count, 1, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def flow(start: Tensor) -> Tensor:
    """The probability-flow ODE of Gaussian data, solved: what stays the same is (x_t − α m)/√(α² v + σ²)."""
    end = TABLE[-1]
    return MEAN + VARIANCE.sqrt() * (start - math.sqrt(end) * MEAN) / (end * VARIANCE + 1 - end).sqrt()


def sample(kernel: Any, denoiser: Any, steps: int, start: Tensor, draw: Any = None) -> Tensor:
    *_, last = walk(kernel, denoiser, grid(SCHEDULE, steps, "even"), start, cast(Draw, draw or NoDraw()))
    return last.x


def test_finer_and_finer_steps_reach_the_ode() -> None:
    """Between the table's times too: 400 intervals spread evenly in log-SNR, errors in ratio two."""
    errors = []
    for intervals in (50, 100, 200, 400):
        # Even in γ from T down to t = 1: γ between the table's times is linear, so it is inverted by interpolation.
        table = SCHEDULE.gamma(torch.arange(1, 1001, dtype=torch.float64)).numpy()
        even = torch.linspace(float(table[-1]), float(table[0]), intervals + 1, dtype=torch.float64).numpy()
        times = torch.from_numpy(np.interp(even, table, np.arange(1.0, 1001.0)))
        x = noise(0)
        for t, s in pairwise(times):
            alpha = SCHEDULE.alpha(t)
            sigma = SCHEDULE.sigma(t)
            x0 = GAUSSIAN.denoised(x, alpha, sigma)
            fixed = Denoiser(Fixed((x - alpha * x0) / sigma), SCHEDULE).bind(Condition())
            x, _ = DDIM(clip="none").step(fixed, x, t, s, None, cast(Draw, NoDraw()))
        first = TABLE[1]
        last = (
            math.sqrt(first) * MEAN + (first * VARIANCE + 1 - first).sqrt() * (flow(noise(0)) - MEAN) / VARIANCE.sqrt()
        )
        errors.append((x - last).abs().max().item())
    ratios = [a / b for a, b in pairwise(errors)]
    assert ratios == pytest.approx([2.0] * 3, rel=0.1)
    assert errors[-1] < 0.02


@pytest.mark.parametrize("steps", [1, 2, 17, 300])
def test_any_number_of_steps_is_exact_for_a_single_image(steps: int) -> None:
    """x_0 = m always: every visited x_s = α_s m + σ_s ε with the start's own ε, and the end is m."""
    denoiser = bound(Mixture.gaussian(MEAN, torch.zeros(1, 2, 2)))
    end = TABLE[-1]
    start = math.sqrt(end) * MEAN + math.sqrt(1 - end) * noise(1)
    for step in walk(DDIM(clip="none"), denoiser, grid(SCHEDULE, steps), start, cast(Draw, NoDraw())):
        level = TABLE[int(step.t)]
        expected = math.sqrt(level) * MEAN + math.sqrt(1 - level) * noise(1)
        torch.testing.assert_close(step.x, expected, rtol=0, atol=1e-8)


def test_a_step_by_hand() -> None:
    """Song et al. 2021, eq. 12 and 16: x_s = √ᾱ_s x̂_0 + √(1 − ᾱ_s − σ²) ε̂ + σ z,
    σ = η √((1 − ᾱ_s)/(1 − ᾱ_t)) √(1 − ᾱ_t/ᾱ_s)."""
    x, z, eps = noise(2), noise(3), noise(4)
    at, as_ = TABLE[700], TABLE[420]
    x0 = (x - math.sqrt(1 - at) * eps) / math.sqrt(at)
    denoiser = Denoiser(Fixed(eps), SCHEDULE).bind(Condition())
    for eta in (0.0, 0.3, 1.0):
        sigma = eta * math.sqrt((1 - as_) / (1 - at)) * math.sqrt(1 - at / as_)
        expected = math.sqrt(as_) * x0 + math.sqrt(1 - as_ - sigma**2) * eps + sigma * z
        time = torch.tensor([700, 420], dtype=torch.float64)
        found, _ = DDIM(eta=eta, clip="none").step(denoiser, x, time[0], time[1], None, cast(Draw, Given(z)))
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_eta_is_from_0_to_1() -> None:
    for eta in (0.0, 0.3, 1.0):
        assert component("sampler", {"name": "ddim", "eta": eta}, "sampling")["eta"] == eta
    for eta in (-0.1, 1.1):
        with pytest.raises(InputError, match=r"sampling\.eta"):
            component("sampler", {"name": "ddim", "eta": eta}, "sampling")


@pytest.mark.parametrize("kept", [{}, {"clip": "none"}], ids=["clipped", "unclipped"])
@pytest.mark.parametrize("steps", [300, 20])
def test_eta_one_is_ancestral_sampling_draw_for_draw(steps: int, kept: dict[str, Any]) -> None:
    """The same seeds, the same images: η = 1 has the posterior's mean and the variance β̃."""
    seeds = [3, 1, 4, 1, 5, 9]
    ends = [
        sample(kernel, bound(GAUSSIAN, "fixed_small"), steps, noise(5), Draw.for_seeds(seeds, "step"))
        for kernel in (DDIM(eta=1.0, **kept), Ancestral(**kept))
    ]
    torch.testing.assert_close(*ends, rtol=1e-8, atol=1e-8)


def test_the_models_own_variance_does_not_concern_ddim() -> None:
    ends = [
        sample(DDIM(eta=1.0), bound(GAUSSIAN, variance), 20, noise(5), Draw.for_seeds(range(6), "step"))
        for variance in ("fixed_small", "fixed_large")
    ]
    assert torch.equal(*ends)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_the_last_step_is_x0(eta: float) -> None:
    x, time = noise(6), torch.tensor([40, 0], dtype=torch.float64)
    found, _ = DDIM(eta=eta, clip="none").step(bound(GAUSSIAN), x, time[0], time[1], None, cast(Draw, NoDraw()))
    level = torch.tensor(TABLE[40])
    torch.testing.assert_close(found, GAUSSIAN.denoised(x, level.sqrt(), (1 - level).sqrt()), rtol=1e-9, atol=1e-9)


def test_clipping_derives_the_noise_again() -> None:
    """x̂_0 of 4 is held at 1; ε̂ becomes (x_t − √ᾱ_t · 1)/√(1 − ᾱ_t)."""
    x, time = noise(7), torch.tensor([500, 300], dtype=torch.float64)
    denoiser = Denoiser(Fixed(torch.full((1, 2, 2), 4.0)), SCHEDULE, "x0").bind(Condition())
    found, _ = DDIM().step(denoiser, x, time[0], time[1], None, cast(Draw, NoDraw()))
    at, as_ = TABLE[500], TABLE[300]
    eps = (x - math.sqrt(at)) / math.sqrt(1 - at)
    torch.testing.assert_close(found, math.sqrt(as_) + math.sqrt(1 - as_) * eps, rtol=1e-9, atol=1e-9)


def test_clipped_samples_lie_in_the_range() -> None:
    schedule, table = Cosine(steps=50), cosine_alpha_bar(50)
    wild = Mixture.gaussian(torch.zeros(1, 2, 2), torch.full((1, 2, 2), 9.0))
    denoiser = Denoiser(ExactNetwork(wild, tabulated_levels(table), "v"), schedule, "v").bind(Condition())
    for kernel in (DDIM(), DDIM(eta=1.0), Ancestral()):
        *_, last = walk(kernel, denoiser, grid(schedule), noise(8), Draw.for_seeds(range(6), "step"))
        assert last.x.abs().max() <= 1 + 1e-12
        assert last.x.abs().max() > 0.9
