"""The variational bound on models whose likelihood is known: Gaussians, a mixture, data on a few levels.

Expectations over x_0 and ε are quadratures (`Nodes`), so that what is left is the bound's own gap. All in nats per
dimension unless bits are said. With the true reverse process the bound's terms down to t = 1 add up to the mutual
information I(x_0; x_1) = h(x_1) − h(x_1 | x_0), the mean of KL(q(x_1 | x_0) ‖ q(x_1)); what they are more is the gap.
L_0 is a decoder's matter on its own.

Why the constants (T → ∞ on the full chain of a table whose σ²/α² starts as a straight line, σ_k² ≈ k β). With the exact
denoiser a term with variance β̃ is ½ (SNR(s) − SNR(t)) E‖x_0 − x̂_0(x_t)‖², a step of the upper Riemann sum of
½ ∫ mse dSNR, the truth. Where data are smooth on the scale of σ_k, mse = 1/SNR, and the k-th step is too large by
½ [1/(k − 1) − log(k/(k − 1))], which T does not change; the sum over k ≥ 2 is γ_Euler/2. The true reverse variance
there is β, so with β the gap is 0. Where data are discrete on the scale of σ_k, mse = 0 and the true variance is β̃:
with β̃ the gap is 0, and with β each step costs ½ [log(k/(k − 1)) − 1/k], in all (1 − γ_Euler)/2."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.exact import Mixture
from tests.proofs.models import Exact, Levels, Nodes, differential_entropy, line, number
from trilemma.metrics.likelihood import variational_bound
from trilemma.objectives import bound_term
from trilemma.process import UNCONDITIONAL, ContinuousVP, Cosine, Linear, Schedule, pair, perturb
from trilemma.samplers import grid

EULER = float(np.euler_gamma)
GAUSSIAN = line([1.0], [0.2], [0.25])
MIXTURE = line([0.4, 0.6], [-0.35, 0.3], [0.1, 0.06])


def linear(steps: int) -> Linear:
    """The linear schedule with β scaled by 1000/T."""
    return Linear(steps=steps, beta_start=0.1 / steps, beta_end=20 / steps)


def cosine(steps: int) -> Cosine:
    return Cosine(steps=steps)


def levels_at(schedule: Schedule, t: float) -> tuple[float, float]:
    return float(schedule.alpha(number(t))), float(schedule.sigma(number(t)))


def information(data: Mixture, schedule: Schedule, t: float) -> float:
    """I(x_0; x_t), by quadrature of h(x_t)."""
    alpha, sigma = levels_at(schedule, t)
    return differential_entropy(data, alpha, sigma) - 0.5 * math.log(2 * math.pi * math.e * sigma**2)


def chain(denoiser: Exact, nodes: Nodes, steps: int) -> Tensor:
    """E L_t of the full chain in nats, t = 1…T: `bound_term` with many times at once."""
    found, many = [], len(nodes.x0)
    for t in torch.arange(1, steps + 1, dtype=torch.float64).split(max(20_000 // many, 1)):
        each = t.repeat_interleave(many)
        x0, eps = nodes.x0.repeat(len(t), 1, 1, 1), nodes.eps.repeat(len(t), 1, 1, 1)
        prediction = denoiser(perturb(denoiser.schedule, x0, each, eps), each)
        terms = bound_term(denoiser, x0, eps, prediction, each, each - 1, (each + 1).clamp(max=steps))
        found.append(terms.reshape(len(t), many) @ nodes.weight)
    return torch.cat(found) * math.log(2)


def gap(data: Mixture, schedule: Schedule, variance: str) -> float:
    """Of the full chain down to t = 1, with L_T: the bound above I(x_0; x_1). (For a Gaussian the terms are of second
    degree in x_0 and ε.)"""
    steps = int(schedule.T)
    nodes = Nodes.of_gaussian(data) if len(data.weights) == 1 else Nodes.of_mixture(data)
    moment = float(nodes.mean(nodes.x0.flatten() ** 2))
    prior = schedule.prior_bits_per_dim(moment) * math.log(2)
    terms = chain(Exact(data, schedule, variance), nodes, steps)
    return float(terms[1:].sum()) + prior - information(data, schedule, 1.0)


@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
@pytest.mark.parametrize("make", [linear, cosine])
def test_many_terms_at_once_are_the_bounds(make: Any, variance: str) -> None:
    """`variational_bound` step by step gives the terms that the ladder below takes all at once."""
    schedule, nodes = make(150), Nodes.of_gaussian(GAUSSIAN)
    denoiser = Exact(GAUSSIAN, schedule, variance)
    bound = variational_bound(denoiser, nodes.x0, UNCONDITIONAL, grid(schedule, 150), cast(Any, nodes))
    found = nodes.mean(bound.terms).flip(0) * math.log(2)
    torch.testing.assert_close(found, chain(denoiser, nodes, 150), rtol=1e-10, atol=1e-12)
    assert bound.times.tolist() == list(range(150, 0, -1))
    prior = schedule.prior_bits_per_dim(float(nodes.mean(nodes.x0.flatten() ** 2)))
    assert float(nodes.mean(bound.prior)) == pytest.approx(prior, abs=1e-12)


@pytest.mark.parametrize("times", ["even", "log_snr", "10,20,5"])
def test_with_the_small_variance_terms_are_steps_of_snr(times: str) -> None:
    """L_t = ½ (SNR(s) − SNR(t)) E‖x_0 − x̂_0(x_t)‖² (Kingma et al. 2021, eq. 14), on any grid."""
    schedule, nodes = Cosine(steps=200), Nodes.of_mixture(MIXTURE)
    walked = grid(schedule, 35, times)
    denoiser = Exact(MIXTURE, schedule)
    bound = variational_bound(denoiser, nodes.x0, UNCONDITIONAL, walked, cast(Any, nodes))
    for index, (t, s) in enumerate(pairwise(walked[:-1])):
        error = (denoiser(perturb(schedule, nodes.x0, t, nodes.eps), t).x0 - nodes.x0).square().flatten()
        difference = torch.exp(-schedule.gamma(s)) - torch.exp(-schedule.gamma(t))
        expected = 0.5 * float(difference) * float(nodes.mean(error)) / math.log(2)
        assert float(nodes.mean(bound.terms[:, index])) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("make", [linear, cosine])
class TestGapOfTheFullChain:
    def test_with_the_large_variance_it_vanishes(self, make: Any) -> None:
        """As 1/T: four times the steps, a quarter of it, but for KL(q(x_T) ‖ N(0, 1)), which steps don't change."""
        gaps = [gap(GAUSSIAN, make(steps), "fixed_large") for steps in (250, 1000, 4000, 16000)]
        alpha, sigma = levels_at(make(4000), 4000.0)
        variance = alpha**2 * 0.25 + sigma**2
        rest = 0.5 * (variance + (0.2 * alpha) ** 2 - 1 - math.log(variance))
        assert rest < 1e-5
        assert all(each > rest / 2 for each in gaps)
        for a, b in pairwise(gaps):
            assert (a - rest) / (b - rest) == pytest.approx(4.0, rel=0.05)
        assert gaps[-1] < 1e-4

    def test_with_the_small_variance_it_is_half_of_eulers_constant(self, make: Any) -> None:
        """It falls towards γ_Euler/2 as (a log T + b)/T, and fitted so from three T it is γ_Euler/2."""
        steps = (1000, 4000, 16000, 64000)
        gaps = [gap(GAUSSIAN, make(each), "fixed_small") for each in steps]
        assert gaps == sorted(gaps, reverse=True)
        assert all(each > EULER / 2 for each in gaps)
        rows = np.array([[1.0, math.log(each) / each, 1 / each] for each in steps[1:]])
        limit = np.linalg.solve(rows, np.array(gaps[1:]))[0]
        assert gaps[-1] == pytest.approx(EULER / 2, abs=0.007)
        assert limit == pytest.approx(EULER / 2, abs=0.001)

    def test_a_mixture_is_no_different(self, make: Any) -> None:
        """Smooth data are smooth data: the small variance's gap is that of a Gaussian but for the order of 1/T."""
        small, large = (
            [gap(MIXTURE, make(steps), variance) for steps in (125, 500)] for variance in ("fixed_small", "fixed_large")
        )
        assert small[0] > small[1] > EULER / 2
        assert small[1] == pytest.approx(gap(GAUSSIAN, make(500), "fixed_small"), abs=10 / 500)
        assert 0 < large[1] < 3 / 500
        assert large[0] / large[1] == pytest.approx(4.0, rel=0.05)


@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
def test_even_in_log_snr_the_gap_vanishes_for_both_variances(variance: str) -> None:
    """Between fixed levels every interval shrinks, so no step keeps its cost: first order in the steps."""
    schedule, nodes, gaps = ContinuousVP(beta_max=40), Nodes.of_gaussian(GAUSSIAN), []
    for count in (50, 100, 200, 400):
        times = grid(schedule, count, "log_snr")
        bound = variational_bound(Exact(GAUSSIAN, schedule, variance), nodes.x0, UNCONDITIONAL, times, cast(Any, nodes))
        down_to_t_min = float(nodes.mean(bound.prior + bound.terms[:, :-1].sum(1))) * math.log(2)
        gaps.append(down_to_t_min - information(GAUSSIAN, schedule, float(times[-2])))
    assert min(gaps) > 0
    assert math.log2(gaps[-2] / gaps[-1]) == pytest.approx(1.0, abs=0.1), gaps


@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
def test_what_the_decoders_variance_costs_smooth_data(variance: str) -> None:
    """p(x_0 | x_1) with the floor's variance, as a density, against the true one: σ_1² is right, β̃_2 ≈ σ_1²/2, which
    both have, costs ½ (2 − 1 − log 2) more (on top of γ_Euler/2, with the small one)."""
    found, constant = [], (1 - math.log(2)) / 2
    for steps in (4000, 16000, 64000):
        schedule = cosine(steps)
        alpha, sigma = levels_at(schedule, 1.0)
        next_alpha, next_sigma = levels_at(schedule, 2.0)
        beta_2 = next_sigma**2 - (next_alpha / alpha) ** 2 * sigma**2
        own = beta_2 * sigma**2 / next_sigma**2
        true = 0.25 * sigma**2 / (alpha**2 * 0.25 + sigma**2)
        denoiser, nodes = Exact(GAUSSIAN, schedule, variance), Nodes.of_gaussian(GAUSSIAN)
        t = number(1.0)
        guess = denoiser(perturb(schedule, nodes.x0, t, nodes.eps), t)
        log_variance = denoiser.log_variance(guess, pair(schedule, t, number(0.0), number(2.0)))
        assert float(log_variance) == pytest.approx(math.log(own), abs=1e-9)
        density = 0.5 * ((nodes.x0 - guess.x0).square() / own + math.log(2 * math.pi * own)).flatten()
        found.append(float(nodes.mean(density)) - 0.5 * math.log(2 * math.pi * math.e * true))
    assert found[-1] == pytest.approx(constant, abs=1e-3), found
    assert abs(found[-1] - constant) < abs(found[0] - constant)


FEW_LEVELS = Levels.few()


class TestQuantised:
    """Data on some of the 256 levels with the exact posterior: no model does with fewer bits than the entropy."""

    def test_many_steps_come_close_to_the_entropy(self) -> None:
        """With the large variance; of the small one it is VDM's bound. Even in log SNR down to noise well below a bin,
        L_0 vanishes and the excess is of first order: halved when steps double, and extrapolated from two grids within
        0.01 bits."""
        data, schedule = FEW_LEVELS, ContinuousVP()
        nodes = data.nodes(count=57)
        ends = float(schedule.gamma(number(1.0))) / 2, math.log(6e-4)
        excess = []
        for count in (100, 200, 400, 800):
            times = schedule.time_of(2 * torch.linspace(*ends, count, dtype=torch.float64))
            walked = torch.cat([times, torch.zeros(1, dtype=torch.float64)])
            bound = variational_bound(
                Exact(data, schedule, "fixed_large"), nodes.x0, UNCONDITIONAL, walked, cast(Any, nodes)
            )
            assert float(nodes.mean(bound.terms)[-1]) < 1e-6
            excess.append(float(nodes.mean(bound.total)) - data.bits())
        print(f"entropy {data.bits():.4f} bits, excess {[round(each, 4) for each in excess]}")
        assert min(excess) > 0
        assert excess[-1] < 0.03 * data.bits()
        assert excess[-2] / excess[-1] == pytest.approx(2.0, rel=0.1)
        assert 2 * excess[-1] - excess[-2] == pytest.approx(0.0, abs=0.01)

    @pytest.mark.parametrize("make", [linear, cosine])
    @pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
    def test_full_chains_are_above_the_entropy(self, make: Any, variance: str) -> None:
        data = FEW_LEVELS
        nodes, totals = data.nodes(count=57), []
        for steps in (50, 200, 1000):
            schedule = make(steps)
            bound = variational_bound(
                Exact(data, schedule, variance), nodes.x0, UNCONDITIONAL, grid(schedule, steps), cast(Any, nodes)
            )
            totals.append(float(nodes.mean(bound.total)))
        assert totals == sorted(totals, reverse=True)
        assert data.bits() < totals[-1] < data.bits() + 0.9

    def test_the_variances_change_places_on_discrete_data(self) -> None:
        """Where noise is finer than the spacing of levels the true reverse variance is β̃: on chains down to t = 1 its
        gap vanishes, and β's becomes (1 − γ_Euler)/2 nats."""
        data = Levels(torch.tensor([0, 85, 170, 255]), torch.tensor([0.1, 0.4, 0.2, 0.3], dtype=torch.float64))
        nodes, steps = data.nodes(count=57), (500, 2000, 8000)
        small: list[float] = []
        large: list[float] = []
        for variance, gaps in (("fixed_small", small), ("fixed_large", large)):
            for each in steps:
                schedule = cosine(each)
                prior = schedule.prior_bits_per_dim(float(nodes.mean(nodes.x0.flatten() ** 2)))
                terms = chain(Exact(data, schedule, variance), nodes, each)
                gaps.append(float(terms[1:].sum()) + (prior - data.bits()) * math.log(2))
        assert small[0] / small[1] == pytest.approx(4.0, rel=0.05)
        assert small[1] / small[2] == pytest.approx(4.0, rel=0.05)
        rows = np.array([[1.0, math.log(each) / each, 1 / each] for each in steps])
        assert np.linalg.solve(rows, np.array(large))[0] == pytest.approx((1 - EULER) / 2, abs=0.001)
        assert large[0] > large[1] > large[2] > (1 - EULER) / 2
