"""The exact models themselves, against definitions that share nothing with how they are written."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import norm

from tests.exact import ExactNetwork, Mixture, linear_alpha_bar, schedule_levels, tabulated_levels
from trilemma.process import Denoiser, Linear, perturb


@pytest.mark.parametrize(("alpha", "sigma"), [(0.95, 0.3), (0.4, 0.9), (0.05, 0.999)])
def test_exact_denoiser_obeys_tweedie(alpha: float, sigma: float) -> None:
    """E[x_0 | x_t] = (x_t + σ² ∇ log p(x_t)) / α, the gradient by automatic differentiation."""
    data = Mixture.random(3, (1, 2, 3))
    x = torch.randn(5, 1, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    a, s = torch.tensor(alpha), torch.tensor(sigma)
    (score,) = torch.autograd.grad(data.log_density(x, a, s).sum(), x)
    a, s = a.double(), s.double()
    torch.testing.assert_close(data.denoised(x, a, s), (x + s**2 * score) / a, rtol=1e-9, atol=1e-9)


def test_exact_denoiser_is_the_integral() -> None:
    """In one dimension E[x_0 | x_t] = ∫ x_0 p(x_0) q(x_t | x_0) / ∫ p(x_0) q(x_t | x_0), by quadrature."""
    data = Mixture.random(2, (1, 1, 1), seed=1)
    w, m, v = (part.flatten().numpy() for part in (data.weights, data.means, data.variances))
    alpha, sigma, x_t = 0.6, 0.8, 0.35

    def joint(x0: float) -> float:
        return float((w * norm.pdf(x0, m, np.sqrt(v))).sum() * norm.pdf(x_t, alpha * x0, sigma))

    expected = quad(lambda x0: x0 * joint(x0), -8, 8)[0] / quad(joint, -8, 8)[0]
    found = data.denoised(torch.full((1, 1, 1, 1), x_t).double(), torch.tensor(alpha), torch.tensor(sigma))
    assert found.item() == pytest.approx(expected, abs=1e-7)


def test_samples_have_the_mixtures_moments() -> None:
    data = Mixture.random(3, (1, 2, 2), seed=2)
    drawn = data.sample(40_000)
    assert (drawn.mean(0) - data.mean()).abs().max() < 5 * (data.variance().max() / 40_000) ** 0.5
    torch.testing.assert_close(drawn.var(0), data.variance(), rtol=0.05, atol=0)


@pytest.mark.parametrize("parameterization", ["epsilon", "x0", "v"])
def test_exact_network_in_a_denoiser_is_the_exact_denoiser(parameterization: str) -> None:
    """Each parameterization of the same exact model gives the same x̂_0 and ε̂, and they explain x_t."""
    data, schedule = Mixture.random(2, (1, 3, 3)), Linear(steps=20, beta_end=0.3)
    levels = tabulated_levels(linear_alpha_bar(20, end=0.3))
    denoiser = Denoiser(ExactNetwork(data, levels, parameterization), schedule, parameterization)
    t = torch.tensor([1.0, 7.0, 19.0, 20.0], dtype=torch.float64)
    x0 = data.sample(4)
    eps = torch.randn(x0.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    x_t = perturb(schedule, x0, t, eps)
    prediction = denoiser(x_t, t)
    alpha, sigma = levels(t - 1)
    torch.testing.assert_close(prediction.x0, data.denoised(x_t, alpha, sigma), rtol=1e-9, atol=1e-9)
    again = alpha[:, None, None, None] * prediction.x0 + sigma[:, None, None, None] * prediction.eps
    torch.testing.assert_close(again, x_t, rtol=1e-9, atol=1e-9)


def test_levels_of_a_schedule_are_those_of_its_table() -> None:
    time = torch.arange(20, dtype=torch.float32)
    for found, expected in zip(
        schedule_levels(Linear(steps=20))(time), tabulated_levels(linear_alpha_bar(20))(time), strict=True
    ):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)


def test_the_right_denoiser_has_the_least_squared_error() -> None:
    """E‖x_0 − x̂_0(x_t)‖² of the conditional mean is below that of a slightly shrunk or moved one."""
    data = Mixture.random(3, (1, 2, 2), seed=3)
    x0 = data.sample(20_000)
    x_t = 0.7 * x0 + 0.5**0.5 * torch.randn(x0.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    right = data.denoised(x_t, torch.tensor(0.7), torch.tensor(0.5).sqrt())
    best = (x0 - right).square().mean()
    for other in (0.9 * right, 1.1 * right, right + 0.05, right - 0.05):
        assert (x0 - other).square().mean() > best
