"""Stochastic samplers: weak order 1 on a Gaussian, free of Monte Carlo noise, and the right distribution on a mixture.

On Gaussian data a sampler's output is affine in its start and its draws, so unit impulses give its mean and variance
exactly (`Impulses`)."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.exact import Impulses, Mixture
from tests.proofs.models import Exact, Noise, cdf, line, number
from trilemma.process import EDM, ContinuousVP, Cosine, Linear, Schedule
from trilemma.samplers import DDIM, Ancestral, DPMSolver, Heun, Kernel, ProbabilityFlow, UniPC, grid, walk

MEAN, VARIANCE = 0.6, 0.09
GAUSSIAN = line([1.0], [MEAN], [VARIANCE])
SCHEDULES = [
    pytest.param(Linear(steps=1000), id="linear"),
    pytest.param(Cosine(steps=1000), id="cosine"),
    pytest.param(ContinuousVP(), id="vp"),
    pytest.param(EDM(), id="edm"),
]
LEVELS = (math.log(3.0), math.log(0.15))
"""log σ/α where the walks start and end."""


def moments(schedule: Schedule, t: Tensor) -> tuple[float, float]:
    """Mean and variance of the Gaussian data's x_t."""
    alpha, sigma = float(schedule.alpha(t)), float(schedule.sigma(t))
    return alpha * MEAN, alpha**2 * VARIANCE + sigma**2


def answered(kernel: Kernel, denoiser: Exact, times: Tensor, mean: float, variance: float) -> tuple[float, float]:
    """Mean and variance of what a sampler makes of a Gaussian start: image 0 starts at its mean and has no noise, the
    next K have one draw of 1 each, the last one starts a standard deviation higher."""
    count = len(times) - 1
    start = torch.full((count + 2, 1, 1, 1), mean, dtype=torch.float64)
    start[-1] += math.sqrt(variance)
    *_, last = walk(kernel, denoiser.bound(), times, start, cast(Any, Impulses()))
    base, *others = last.x.flatten().tolist()
    return base, sum((other - base) ** 2 for other in others)


def between(schedule: Schedule, count: int) -> Tensor:
    """A grid of so many intervals, even in log SNR, between the two levels; on a table mostly between its times."""
    return schedule.time_of(2 * torch.linspace(*LEVELS, count + 1, dtype=torch.float64))


def errors(kernel: Kernel, schedule: Schedule, variance: str, count: int) -> tuple[float, float]:
    """How far mean and variance at the end are from the truth, in standard deviations and as a ratio, the start being
    the right x_t."""
    times = between(schedule, count)
    found = answered(kernel, Exact(GAUSSIAN, schedule, variance), times, *moments(schedule, times[0]))
    right = moments(schedule, times[-1])
    return abs(found[0] - right[0]) / math.sqrt(right[1]), abs(found[1] - right[1]) / right[1]


def errors_from_a_point(kernel: Kernel, schedule: Schedule, variance: str, count: int) -> tuple[float, float]:
    """The same from one x_t, two standard deviations from the mean.

    With full noise the reverse SDE gives q(x_s | x_t) of the data, with slope Cov(x_s, x_t)/Var(x_t); without noise
    the ODE gives the slope √(Var(x_s)/Var(x_t)). DDIM's drift is, in the limit, 1 − η² parts of the second and η² of
    the first, and the variance is what keeps the marginal."""
    times = between(schedule, count)
    (mean_t, var_t), (mean_s, var_s) = moments(schedule, times[0]), moments(schedule, times[-1])
    noisy = float(schedule.alpha(times[0]) / schedule.alpha(times[-1])) * var_s / var_t
    share = kernel.eta**2 if isinstance(kernel, DDIM) else 1.0
    slope = noisy**share * math.sqrt(var_s / var_t) ** (1 - share)
    right = mean_s + slope * 2 * math.sqrt(var_t), var_s - slope**2 * var_t
    start = mean_t + 2 * math.sqrt(var_t)
    found = answered(kernel, Exact(GAUSSIAN, schedule, variance), times, start, 0.0)
    return abs(found[0] - right[0]) / math.sqrt(right[1]), abs(found[1] - right[1]) / right[1]


def last_order(series: Any) -> float:
    return [math.log2(a / b) for a, b in pairwise(series)][-1]


KERNELS = [
    pytest.param(Ancestral(clip="none"), "fixed_small", id="ancestral-small"),
    pytest.param(Ancestral(clip="none"), "fixed_large", id="ancestral-large"),
    pytest.param(DDIM(clip="none", eta=1.0), "fixed_small", id="ddim-eta1"),
    pytest.param(DDIM(clip="none", eta=0.5), "fixed_small", id="ddim-eta0.5"),
    pytest.param(DPMSolver(clip="none", order=1, stochastic=True), "fixed_small", id="dpmpp-sde-1"),
    pytest.param(DPMSolver(clip="none", order=2, stochastic=True), "fixed_small", id="dpmpp-sde-2"),
]


def is_second_order(kernel: Kernel) -> bool:
    return isinstance(kernel, DPMSolver) and kernel.order == 2


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(("kernel", "variance"), KERNELS)
def test_weak_order_one_from_the_right_start(schedule: Schedule, kernel: Kernel, variance: str) -> None:
    """The variance's error halves when steps double (2M's quarters); the mean is right with any number."""
    found = [errors(kernel, schedule, variance, count) for count in (40, 80, 160)]
    means, variances = zip(*found, strict=True)
    assert max(means) < 1e-9
    assert variances[0] < 0.3
    assert last_order(variances) == pytest.approx(2.0 if is_second_order(kernel) else 1.0, abs=0.25), variances


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(("kernel", "variance"), KERNELS)
def test_weak_order_one_from_a_point(schedule: Schedule, kernel: Kernel, variance: str) -> None:
    """Mean and variance of x_s given x_t. With full noise and the exact denoiser each step's mean is E[x_s | x_t], and
    these compose, so the mean is exact; with part of it the mean's error halves too."""
    found = [errors_from_a_point(kernel, schedule, variance, count) for count in (40, 80, 160)]
    means, variances = zip(*found, strict=True)
    if isinstance(kernel, DDIM) and kernel.eta < 1:
        assert last_order(means) == pytest.approx(1.0, abs=0.25), means
    else:
        assert max(means) < 1e-9
    assert variances[0] < 0.3
    assert last_order(variances) == pytest.approx(2.0 if is_second_order(kernel) else 1.0, abs=0.25), variances


def test_ddim_with_eta_1_is_ancestral_with_the_small_variance() -> None:
    schedule = Cosine(steps=1000)
    for count in (5, 50):
        one = errors(DDIM(clip="none", eta=1.0), schedule, "fixed_small", count)
        assert one == pytest.approx(errors(Ancestral(clip="none"), schedule, "fixed_small", count), rel=1e-9)


def test_the_reverse_sdes_solver_of_order_1_is_ancestral() -> None:
    """SDE-DPM-Solver++ of order 1 is the posterior step with β̃ (Lu et al. 2022, section 6)."""
    schedule = Cosine(steps=1000)
    found = errors(DPMSolver(clip="none", order=1, stochastic=True), schedule, "fixed_small", 20)
    assert found == pytest.approx(errors(Ancestral(clip="none"), schedule, "fixed_small", 20), rel=1e-9)


PLANE = Mixture(
    torch.tensor([0.35, 0.45, 0.2], dtype=torch.float64),
    torch.tensor([[-0.7, 0.4], [0.6, -0.3], [0.1, 0.9]], dtype=torch.float64).reshape(3, 1, 1, 2),
    torch.tensor([[0.05, 0.02], [0.04, 0.1], [0.02, 0.03]], dtype=torch.float64).reshape(3, 1, 1, 2),
)
FEW, MANY = 5_000, 40_000
FIRST_ORDER = [
    *KERNELS[:3],
    pytest.param(DPMSolver(clip="none", stochastic=True), "fixed_small", id="dpmpp-sde-2"),
    pytest.param(DDIM(clip="none"), "fixed_small", id="ddim"),
]
# Song's Euler step in σ̄² with steps h of log σ̄ widens pure noise by e^{h/2} for each unit of it: it needs many steps.
SONG = pytest.param(ProbabilityFlow(clip="none"), "fixed_small", id="probability_flow")
SECOND_ORDER = [
    pytest.param(Heun(clip="none"), "fixed_small", id="heun"),
    pytest.param(DPMSolver(clip="none"), "fixed_small", id="dpmpp-2"),
    pytest.param(UniPC(clip="none"), "fixed_small", id="unipc-2"),
    pytest.param(UniPC(clip="none", order=3), "fixed_small", id="unipc-3"),
]


def kolmogorov(data: Mixture, x: Tensor, alpha: float, sigma: float, along: Tensor) -> float:
    """The greatest distance between the samples' distribution function along a direction and the mixture's."""
    projected = (x * along).flatten(1).sum(1).sort().values
    exact, count = cdf(data, projected, alpha, sigma, along), len(x)
    rank = np.arange(count)
    return float(max((exact - rank / count).max(), ((rank + 1) / count - exact).max()))


def check_distribution(kernel: Kernel, variance: str, steps: int, count: int) -> None:
    """From pure noise down the variance-preserving schedule, even in log SNR: moments within 4 standard errors, and in
    several directions no Kolmogorov-Smirnov test rejects at 1 in 10 000 (√n D < 2.23)."""
    schedule, noise = ContinuousVP(), Noise(3)
    start = noise.normal(torch.empty(count, 1, 1, 2, dtype=torch.float64))
    times = grid(schedule, steps, "log_snr")
    *_, last = walk(kernel, Exact(PLANE, schedule, variance).bound(), times, start, cast(Any, noise))
    x, spread = last.x, PLANE.variance()
    assert ((x.mean(0) - PLANE.mean()).abs() < 4 * (spread / count).sqrt()).all()
    fourth = (x - x.mean(0)).pow(4).mean(0)
    assert ((x.var(0) - spread).abs() < 4 * ((fourth - spread**2) / count).sqrt()).all()
    for angle in (0.0, 0.5, 1.2, math.pi / 2, 2.4):
        along = torch.tensor([math.cos(angle), math.sin(angle)], dtype=torch.float64).reshape(1, 1, 2)
        distance = kolmogorov(PLANE, x, 1.0, 0.0, along) * math.sqrt(count)
        assert distance < 2.23, f"√n D = {distance:.2f} at angle {angle}"


@pytest.mark.parametrize(
    ("kernel", "variance", "steps"),
    [
        *(pytest.param(*case.values, 600, id=case.id) for case in FIRST_ORDER),
        *(pytest.param(*case.values, 100, id=case.id) for case in SECOND_ORDER),
        pytest.param(*SONG.values, 2500, id=SONG.id),
    ],
)
def test_enough_steps_give_the_data(kernel: Kernel, variance: str, steps: int) -> None:
    check_distribution(kernel, variance, steps, FEW)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kernel", "variance", "steps"),
    [
        *(pytest.param(*case.values, 3000, id=case.id) for case in FIRST_ORDER),
        *(pytest.param(*case.values, 300, id=case.id) for case in SECOND_ORDER),
    ],
)
def test_many_steps_give_the_data_closely(kernel: Kernel, variance: str, steps: int) -> None:
    check_distribution(kernel, variance, steps, MANY)


def test_the_test_of_distributions_can_fail() -> None:
    """Samples a tenth too wide, or eight steps of DDIM, are rejected; the data's own are not."""
    schedule, root = Cosine(steps=1000), math.sqrt(FEW)
    along = torch.tensor([1.0, 0.0], dtype=torch.float64).reshape(1, 1, 2)
    right = PLANE.sample(FEW, seed=5)
    assert kolmogorov(PLANE, right, 1.0, 0.0, along) * root < 2.23
    wide = PLANE.mean() + 1.1 * (right - PLANE.mean())
    assert kolmogorov(PLANE, wide, 1.0, 0.0, along) * root > 2.23
    start = Noise(3).normal(right)
    *_, last = walk(DDIM(clip="none"), Exact(PLANE, schedule).bound(), grid(schedule, 8), start, cast(Any, Noise(4)))
    assert kolmogorov(PLANE, last.x, 1.0, 0.0, along) * root > 2.23


@pytest.mark.parametrize(("variance", "within"), [("fixed_small", 0.03), ("fixed_large", 0.01)])
def test_the_full_ancestral_chain(variance: str, within: float) -> None:
    """All T steps from N(0, 1): the mean is right; the variance's error falls about as 1/T, and at T = 1 000 is some
    percent with β̃, which is too small for smooth data at low noise, and less with β."""
    found = []
    for steps in (125, 250, 500, 1000):
        schedule = Linear(steps=steps, beta_start=0.1 / steps, beta_end=20 / steps)
        denoiser, times = Exact(GAUSSIAN, schedule, variance), grid(schedule, steps)
        mean, spread = answered(Ancestral(clip="none"), denoiser, times, 0.0, 1.0)
        assert mean == pytest.approx(MEAN, abs=0.005)
        # The last step returns x̂_0, whose variance is short of the data's by Var(x_0 | x_1).
        alpha2, sigma2 = (float(level(number(1.0))) ** 2 for level in (schedule.alpha, schedule.sigma))
        found.append(abs(spread / (VARIANCE - VARIANCE * sigma2 / (alpha2 * VARIANCE + sigma2)) - 1))
    assert last_order(found) == pytest.approx(1.0, abs=0.3), found
    assert found[-1] < within
