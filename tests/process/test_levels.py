"""The decoder of the nearest levels, p(x_0 | x_t) ∝ q(x_t | x_0): against all levels gone through."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from torch import Tensor

from trilemma.process import levels_nll


def drawn(levels: int, count: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Levels, both ends among them, and noises, some of them far out."""
    rng = np.random.default_rng(0)
    at = np.concatenate([[0, 0, levels - 1, levels - 1], rng.integers(0, levels, count - 4)])
    eps = np.concatenate([[4.0, -4.0, 4.0, -4.0], rng.standard_normal(count - 4)])
    return at, eps


def all_of_them(at: np.ndarray, eps: np.ndarray, gamma: float, ends: tuple[float, float], levels: int) -> np.ndarray:
    values = np.linspace(*ends, levels)
    alpha, sigma = math.sqrt(1 / (1 + math.exp(gamma))), math.sqrt(1 / (1 + math.exp(-gamma)))
    x_t = alpha * values[at] + sigma * eps
    log_q = -((x_t[:, None] - alpha * values) ** 2) / (2 * sigma**2)
    return logsumexp(log_q, axis=1) - log_q[np.arange(len(at)), at]


def images(at: np.ndarray, ends: tuple[float, float], levels: int, dtype: torch.dtype) -> Tensor:
    return torch.from_numpy(np.linspace(*ends, levels)[at]).to(dtype).reshape(-1, 1, 1, 1)


@pytest.mark.parametrize("gamma", [-25.0, -13.3, -10.0, -7.0, -3.0, 0.0, 5.0])
@pytest.mark.parametrize(("ends", "levels"), [((-1.0, 1.0), 256), ((0.0, 1.0), 256), ((-1.0, 1.0), 4)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_is_that_of_all_levels(gamma: float, ends: tuple[float, float], levels: int, dtype: torch.dtype) -> None:
    at, eps = drawn(levels)
    noise = torch.from_numpy(eps).to(dtype).reshape(-1, 1, 1, 1)
    found = levels_nll(images(at, ends, levels, dtype), noise, torch.tensor(gamma, dtype=torch.float64), ends, levels)
    assert found.dtype == dtype and found.shape == (200, 1, 1, 1)
    tolerance = 1e-9 if dtype == torch.float64 else 2e-5
    np.testing.assert_allclose(found.flatten().numpy(), all_of_them(at, eps, gamma, ends, levels), 0, tolerance)


@pytest.mark.parametrize("gamma", [-11.0, -9.0, -4.0])
def test_its_gradient_is_right(gamma: float) -> None:
    """By γ, which the ends of a schedule learn from."""
    at, eps = drawn(256)
    x0, noise = images(at, (-1.0, 1.0), 256, torch.float64), torch.from_numpy(eps).reshape(-1, 1, 1, 1)
    at_gamma = torch.tensor(gamma, dtype=torch.float64, requires_grad=True)
    (found,) = torch.autograd.grad(levels_nll(x0, noise, at_gamma).mean(), at_gamma)
    h = 1e-5
    above, below = (all_of_them(at, eps, gamma + d, (-1.0, 1.0), 256).mean() for d in (h, -h))
    assert float(found) == pytest.approx((above - below) / (2 * h), rel=1e-5)
    assert float(found) > 1e-3
