"""Every closed form of the process and of the objectives against numerical quadrature in float64, to 1e-10."""

from __future__ import annotations

import math
from typing import Any, cast

import numpy as np
import pytest
import torch

from tests.exact import Given, Mixture
from tests.proofs.models import Exact, Nodes, column, integral, line, normal, number, score
from trilemma.metrics.likelihood import variational_bound
from trilemma.objectives import Simple, bound_term
from trilemma.process import (
    EDM,
    UNCONDITIONAL,
    ContinuousVP,
    Cosine,
    Linear,
    Schedule,
    Times,
    discretized_nll,
    gaussian_kl,
    pair,
    perturb,
    posterior_mean,
)
from trilemma.samplers import grid

DATA = line([0.3, 0.5, 0.2], [-0.6, 0.5, 0.1], [0.05, 0.1, 0.02])
SCHEDULES = [
    pytest.param(Linear(steps=1000), id="linear"),
    pytest.param(Cosine(steps=1000), id="cosine"),
    pytest.param(ContinuousVP(), id="vp"),
    pytest.param(EDM(sigma_max=8.0), id="edm"),
]
PAIRS = [(1.0, 0.9), (0.71, 0.7), (0.5004, 0.12), (0.03, 0.0221)]
"""Times t > s as shares of T; most lie between a table's."""


def times(schedule: Schedule, shares: tuple[float, float]) -> tuple[torch.Tensor, torch.Tensor]:
    return number(shares[0] * schedule.T), number(shares[1] * schedule.T)


def density(x: np.ndarray) -> np.ndarray:
    """The mixture's density of clean data, component by component."""
    parts = zip(DATA.weights.tolist(), DATA.means.flatten().tolist(), DATA.variances.flatten().tolist(), strict=True)
    return sum((w * normal(x, m, v) for w, m, v in parts), np.zeros_like(x))


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("share", [1.0, 0.4, 0.05])
@pytest.mark.parametrize("where", [-1.3, 0.2, 2.4])
def test_mixtures_denoiser_score_and_density(schedule: Schedule, share: float, where: float) -> None:
    """E[x_0 | x_t], ∇ log p(x_t) and p(x_t) from the integrals over x_0 that define them."""
    t = number(share * schedule.T)
    alpha, sigma = float(schedule.alpha(t)), float(schedule.sigma(t))
    x = where * math.sqrt(alpha**2 * 0.3 + sigma**2)

    def joint(x0: np.ndarray) -> np.ndarray:
        return density(x0) * normal(np.array(x), alpha * x0, sigma**2)

    p = integral(joint, 0.0, 0.5, 40_001)
    mean = integral(lambda x0: x0 * joint(x0), 0.0, 0.5, 40_001) / p
    slope = integral(lambda x0: (alpha * x0 - x) / sigma**2 * joint(x0), 0.0, 0.5, 40_001) / p
    prediction = Exact(DATA, schedule)(column([x]), t)
    assert prediction.x0.item() == pytest.approx(mean, abs=1e-10)
    assert DATA.log_density(column([x]), number(alpha), number(sigma)).exp().item() == pytest.approx(p, abs=1e-10)
    found = score(DATA, column([x]), number(alpha), number(sigma)).item()
    assert found == pytest.approx(slope, rel=1e-10, abs=1e-10)
    # ε̂ is the score's other name: ε̂ = −σ ∇ log p.
    assert prediction.eps.item() == pytest.approx(-sigma * slope, rel=1e-10, abs=1e-10)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_score_is_the_densitys_gradient_in_any_dimension(schedule: Schedule) -> None:
    data = Mixture.random(4, (3, 2, 5), seed=5)
    x = torch.randn(6, 3, 2, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    t = number(0.4 * schedule.T)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    (expected,) = torch.autograd.grad(data.log_density(x, alpha, sigma).sum(), x)
    torch.testing.assert_close(score(data, x, alpha, sigma), expected, rtol=1e-10, atol=1e-10)
    eps = Exact(data, schedule)(x, t).eps
    torch.testing.assert_close(eps, -sigma * expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("shares", PAIRS)
class TestPairKernel:
    def test_forward(self, schedule: Schedule, shares: tuple[float, float]) -> None:
        """q(x_t | x_0) = ∫ q(x_t | x_s) q(x_s | x_0) dx_s, the density itself, at a few x_t."""
        t, s = times(schedule, shares)
        kernel, x0 = pair(schedule, t, s), 0.7
        ratio = float(kernel.alpha_t / kernel.alpha_s)
        var_s, beta = float(kernel.sigma_s) ** 2, float(kernel.beta)
        marginal = perturb(schedule, column([x0, x0]), t, column([0.0, 1.0])).flatten().tolist()
        mean, std = marginal[0], marginal[1] - marginal[0]
        narrow = min(math.sqrt(var_s), math.sqrt(beta) / ratio)
        for z in (-2.0, 0.0, 1.0):
            x_t = mean + z * std
            # Centred where the product of the two Gaussians is: within 14 of the narrower one's spreads.
            weight = beta / (beta + ratio**2 * var_s)
            middle = weight * float(kernel.alpha_s) * x0 + (1 - weight) * x_t / ratio

            def joint(x: np.ndarray, x_t: float = x_t) -> np.ndarray:
                return normal(x, float(kernel.alpha_s) * x0, var_s) * normal(x_t, ratio * x, beta)

            found = integral(joint, middle, narrow)
            assert found * std == pytest.approx(math.exp(-(z**2) / 2) / math.sqrt(2 * math.pi), abs=1e-10)

    def test_posterior(self, schedule: Schedule, shares: tuple[float, float]) -> None:
        """Mean and variance of q(x_s | x_t, x_0) ∝ q(x_t | x_s) q(x_s | x_0)."""
        t, s = times(schedule, shares)
        kernel, x0, eps = pair(schedule, t, s), 0.7, -1.1
        x_t = perturb(schedule, column([x0]), t, column([eps])).item()
        ratio = float(schedule.alpha(t) / schedule.alpha(s))
        var_s = float(schedule.sigma(s)) ** 2
        # β from its definition, not from the kernel: σ_t² − (α_t/α_s)² σ_s².
        beta = float(schedule.sigma(t)) ** 2 - ratio**2 * var_s
        mean = posterior_mean(kernel, column([x0]), column([eps])).item()
        spread = math.sqrt(float(kernel.beta_tilde))

        def exponent(x: np.ndarray) -> np.ndarray:
            return -((x - float(schedule.alpha(s)) * x0) ** 2 / var_s + (x_t - ratio * x) ** 2 / beta) / 2

        def posterior(x: np.ndarray) -> np.ndarray:
            return np.exp(exponent(x) - exponent(np.array(mean)))

        total = integral(posterior, mean, spread)
        found = integral(lambda x: x * posterior(x), mean, spread) / total
        variance = integral(lambda x: (x - found) ** 2 * posterior(x), mean, spread) / total
        assert mean == pytest.approx(found, abs=1e-10)
        assert float(kernel.beta_tilde) == pytest.approx(variance, abs=1e-10, rel=1e-9)
        assert float(kernel.log_beta_tilde) == pytest.approx(math.log(variance), abs=1e-9)

    @pytest.mark.parametrize("eta", [0.5, 0.9])
    def test_any_eta_keeps_the_marginal(self, schedule: Schedule, shares: tuple[float, float], eta: float) -> None:
        """∫ q_η(x_s | x_t, x_0) q(x_t | x_0) dx_t = q(x_s | x_0), over the ε of x_t (Song et al. 2021, lemma 1)."""
        t, s = times(schedule, shares)
        kernel, x0 = pair(schedule, t, s), 0.7
        mean_s, std_s = float(schedule.alpha(s)) * x0, float(schedule.sigma(s))
        base, slope = posterior_mean(kernel, column([x0, x0]), column([0.0, 1.0]), eta).flatten().tolist()
        slope -= base
        own = eta**2 * float(kernel.beta_tilde)
        for z in (-1.5, 0.0, 0.8):
            x_s = mean_s + z * std_s
            width = min(1.0, math.sqrt(own) / slope)

            def joint(e: np.ndarray, x_s: float = x_s) -> np.ndarray:
                return normal(e, 0.0, 1.0) * normal(x_s, base + slope * e, own)

            found = integral(joint, (x_s - base) * slope / (slope**2 + own), width)
            assert found * std_s == pytest.approx(math.exp(-(z**2) / 2) / math.sqrt(2 * math.pi), abs=1e-10)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_prior_term(schedule: Schedule) -> None:
    """L_T = KL(q(x_T | x_0) ‖ N(0, p²)) from its definition; the schedule's report of it, and the bound's."""
    T, x0 = number(schedule.T), 0.7
    mean, variance = float(schedule.alpha(T)) * x0, float(schedule.sigma(T)) ** 2
    p2 = schedule.prior_std(schedule.T) ** 2

    def integrand(x: np.ndarray) -> np.ndarray:
        log_ratio = -((x - mean) ** 2) / (2 * variance) + x**2 / (2 * p2) - 0.5 * math.log(variance / p2)
        return normal(x, mean, variance) * log_ratio

    expected = integral(integrand, mean, math.sqrt(variance)) / math.log(2)
    assert schedule.prior_bits_per_dim(x0**2) == pytest.approx(expected, abs=1e-10)
    denoiser = Exact(DATA, schedule)
    times = torch.tensor([schedule.T, schedule.T / 2, 0.0], dtype=torch.float64)
    bound = variational_bound(denoiser, column([x0]), UNCONDITIONAL, times, cast(Any, Given(*2 * [column([0.3])])))
    assert bound.prior.item() == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize(("d", "p", "q"), [(0.0, 0.3, 0.3), (0.2, 0.01, 0.5), (-3.0, 0.5, 0.4), (1e-3, 1e-4, 1.1e-4)])
def test_gaussian_kl(d: float, p: float, q: float) -> None:
    def integrand(x: np.ndarray) -> np.ndarray:
        return normal(x, 0.0, p) * (0.5 * math.log(q / p) - x**2 / (2 * p) + (x - d) ** 2 / (2 * q))

    found = gaussian_kl(column([d]), number(math.log(p)), number(math.log(q))).item()
    assert found == pytest.approx(integral(integrand, 0.0, math.sqrt(p)), abs=1e-10)


@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("shares", PAIRS)
def test_bound_term(schedule: Schedule, shares: tuple[float, float], variance: str) -> None:
    """L_t = KL(q(x_s | x_t, x_0) ‖ p(x_s | x_t)): q by Bayes' rule, p the posterior with x̂_0 in x_0's place, both from
    the textbook's formulas in (α, σ), the KL as an integral."""
    t, s = times(schedule, shares)
    denoiser, x0, eps = Exact(DATA, schedule, variance), 0.7, -1.1
    alpha_t, sigma_t, alpha_s, sigma_s = (
        float(each) for each in (schedule.alpha(t), schedule.sigma(t), schedule.alpha(s), schedule.sigma(s))
    )
    ratio, x_t = alpha_t / alpha_s, alpha_t * x0 + sigma_t * eps
    beta = sigma_t**2 - ratio**2 * sigma_s**2
    small = beta * sigma_s**2 / sigma_t**2
    guess = denoiser(column([x_t]), t)

    def mean(data: float) -> float:
        return alpha_s * beta / sigma_t**2 * data + ratio * sigma_s**2 / sigma_t**2 * x_t

    q, p, own = mean(x0), mean(guess.x0.item()), small if variance == "fixed_small" else beta

    def integrand(x: np.ndarray) -> np.ndarray:
        log_ratio = 0.5 * math.log(own / small) - (x - q) ** 2 / (2 * small) + (x - p) ** 2 / (2 * own)
        return normal(x, q, small) * log_ratio

    expected = integral(integrand, q, math.sqrt(small)) / math.log(2)
    found = bound_term(denoiser, column([x0]), column([eps]), guess, t, s, number(schedule.T)).item()
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-10)


@pytest.mark.parametrize("std", [0.3, 0.02, 0.004])
@pytest.mark.parametrize("mean", [-1.02, 0.1234, 0.999])
def test_discretised_decoder(mean: float, std: float) -> None:
    """The mass of each of the 256 bins, the outermost reaching on, by Gauss-Legendre quadrature of the density; they
    sum to 1."""
    levels = np.linspace(-1, 1, 256)
    found = np.exp(-discretized_nll(column(levels), number(mean), number(2 * math.log(std))).flatten().numpy())
    x, w = np.polynomial.legendre.leggauss(40)
    half = 1 / 255
    mass = (w * normal(levels[:, None] + half * x, mean, std**2)).sum(1) * half
    # The open ends: on from the inner edge, in pieces no wider than the density.
    for end, sign in ((0, -1), (255, 1)):
        edges = levels[end] - sign * half + sign * np.linspace(0, max(14 * std, 1.0), 800)
        middle, width = (edges[1:] + edges[:-1]) / 2, np.abs(np.diff(edges)) / 2
        pieces = (w * normal(middle[:, None] + width[:, None] * x, mean, std**2)).sum(1) * width
        mass[end] = pieces.sum()
    np.testing.assert_allclose(found, mass, rtol=0, atol=1e-10)
    assert found.sum() == pytest.approx(1.0, abs=1e-10)


def test_decoder_keeps_its_digits_far_from_the_mean() -> None:
    """Thirty standard deviations away the mass is no float64 difference of Φ, yet its logarithm is right: against the
    density integrated with its exponent taken out."""
    std, level = 0.01, float(np.linspace(-1, 1, 256)[150])
    x, w = np.polynomial.legendre.leggauss(60)
    for away in (0.3, -0.3):
        edge = abs(away) - 1 / 255
        inner = -((edge / std) ** 2) / 2
        at = abs(away) + x / 255
        log_mass = inner + math.log(float((w * np.exp(-((at / std) ** 2) / 2 - inner)).sum()) / 255)
        log_mass -= math.log(std * math.sqrt(2 * math.pi))
        found = discretized_nll(column([level]), column([level - away]), number(2 * math.log(std))).item()
        assert found == pytest.approx(-log_mass, rel=1e-10)


def test_last_term_is_the_decoder_with_the_grids_floor() -> None:
    """L_0 is the discretised decoder around x̂_0 with variance β̃ of the pair before, whichever variance is fixed."""
    schedule, x0, eps = Linear(steps=100), float(np.linspace(-1, 1, 256)[200]), 0.4
    times = grid(schedule, 10)
    t, noisier = times[-2], times[-3]
    for variance in ("fixed_small", "fixed_large"):
        denoiser = Exact(DATA, schedule, variance)
        guess = denoiser(perturb(schedule, column([x0]), t, column([eps])), t)
        sigma_t, sigma_n = float(schedule.sigma(t)), float(schedule.sigma(noisier))
        ratio = float(schedule.alpha(noisier) / schedule.alpha(t))
        small = (sigma_n**2 - ratio**2 * sigma_t**2) * sigma_t**2 / sigma_n**2
        std = math.sqrt(small)
        x, w = np.polynomial.legendre.leggauss(40)
        mass = float((w * normal(x0 + x / 255, guess.x0.item(), std**2)).sum() / 255)
        found = bound_term(denoiser, column([x0]), column([eps]), guess, t, number(0.0), noisier)
        assert found.item() == pytest.approx(-math.log2(mass), rel=1e-9, abs=1e-10)


@pytest.mark.parametrize(("weighting", "factor"), [("none", None), ("min_snr", 5.0), ("edm", 0.5)])
def test_simple_loss_in_the_mean(weighting: str, factor: float | None) -> None:
    """The expected loss of the exact denoiser with v-prediction is its weight times E Var(x_0 | x_t), here by the
    integral over x_t of the posterior's variance, each from its definition."""
    schedule = Cosine(steps=100)
    nodes, t = Nodes.of_mixture(DATA, 0.2, 8.0), number(37.0)
    alpha, sigma = float(schedule.alpha(t)), float(schedule.sigma(t))
    x = torch.linspace(-8, 8, 8001, dtype=torch.float64)
    x0 = np.linspace(-3.5, 3.5, 1401)
    step = x0[1] - x0[0]
    joint = density(x0) * normal(x.numpy()[:, None], alpha * x0, sigma**2)
    p, first, second = (joint @ (x0**k) * step for k in range(3))
    alive = p > 1e-200
    left = float((second[alive] - first[alive] ** 2 / p[alive]).sum() * 16 / 8000)
    snr = (alpha / sigma) ** 2
    # v − v̂ = (x̂_0 − x_0)/σ, for α² + σ² = 1.
    weight = {
        "none": 1 / sigma**2,
        "min_snr": min(snr, factor or 0.0),
        "edm": (1 / snr + (factor or 0.0) ** 2) * snr / (factor or 1.0) ** 2,
    }[weighting]
    at = Times(t.expand(len(nodes.x0)), torch.ones(len(nodes.x0)))
    loss = Simple(weighting=cast(Any, weighting))(
        Exact(DATA, schedule), nodes.x0, UNCONDITIONAL, at, cast(Any, nodes)
    ).total
    assert float(nodes.mean(loss)) == pytest.approx(weight * left, abs=1e-10)
