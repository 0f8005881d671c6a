"""The ODE likelihood on a mixture whose density is known, and dequantisation on data of known entropy."""

from __future__ import annotations

import math
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.exact import Mixture
from tests.proofs.models import Exact, Levels, Noise, column, line, number
from trilemma.metrics.likelihood import dequantised, ode_bits_per_dim
from trilemma.process import EDM, UNCONDITIONAL, ContinuousVP, Cosine, Schedule

LINE = line([0.4, 0.6], [-0.35, 0.3], [0.1, 0.06])
PLANE = Mixture(
    torch.tensor([0.35, 0.45, 0.2], dtype=torch.float64),
    torch.tensor([[-0.7, 0.4, 0.1], [0.6, -0.3, 0.2], [0.1, 0.9, -0.4]], dtype=torch.float64).reshape(3, 1, 1, 3),
    torch.tensor([[0.05, 0.02, 0.03], [0.04, 0.1, 0.02], [0.02, 0.03, 0.05]], dtype=torch.float64).reshape(3, 1, 1, 3),
)
# Both end in noise enough: what of x_T is not N(0, p²) is not the integrator's error.
ODE_SCHEDULES = [
    pytest.param(ContinuousVP(beta_max=80.0), id="vp"),
    pytest.param(Cosine(steps=1000, max_beta=0.9999), id="cosine"),
    pytest.param(EDM(sigma_max=1e5), id="edm"),
]


def true_bits(data: Mixture, schedule: Schedule, x: Tensor) -> Tensor:
    """−log₂ of the density of x at t_min times a level's width, per dimension."""
    t = number(schedule.t_min)
    log_p = data.log_density(x, schedule.alpha(t), schedule.sigma(t))
    return -(log_p / x[0].numel() + math.log(2 / 255)) / math.log(2)


def at_t_min(schedule: Schedule, count: int) -> Tensor:
    t = number(schedule.t_min)
    x0 = PLANE.sample(count, seed=1)
    return schedule.alpha(t) * x0 + schedule.sigma(t) * Noise(2).normal(x0)


@pytest.mark.parametrize("schedule", ODE_SCHEDULES)
class TestODE:
    def test_is_the_density(self, schedule: Schedule) -> None:
        """With the exact trace, point by point, and with the fourth order of its integrator."""
        x = at_t_min(schedule, 16)
        denoiser, right = Exact(PLANE, schedule), true_bits(PLANE, schedule, x)
        errors = []
        for steps in (100, 200, 400):
            found = ode_bits_per_dim(denoiser, x, UNCONDITIONAL, steps, None)
            errors.append(float((found - right).square().mean().sqrt()))
        assert errors[-1] < 1e-5
        assert math.log2(errors[0] / errors[1]) > 3.5

    def test_hutchinsons_estimate_is_unbiased(self, schedule: Schedule) -> None:
        """Many probes of a few points: within three standard errors of the exact trace, and not exact themselves."""
        points, probes, steps = at_t_min(schedule, 4), 300, 60
        exact = ode_bits_per_dim(Exact(PLANE, schedule), points, UNCONDITIONAL, steps, None)
        x = points.repeat_interleave(probes, 0)
        found = ode_bits_per_dim(Exact(PLANE, schedule), x, UNCONDITIONAL, steps, cast(Any, Noise(5)))
        found = found.reshape(len(points), probes)
        error = found.std(1) / math.sqrt(probes)
        assert (error > 1e-6).all()
        assert ((found.mean(1) - exact).abs() < 3 * error).all()
        assert (found.mean() - exact.mean()).abs() < 3 * error.square().sum().sqrt() / len(points)


def test_ode_in_one_dimension_needs_no_probes() -> None:
    """One pixel's divergence is one number: probe and exact trace agree."""
    schedule = ContinuousVP(beta_max=80.0)
    x = column([-0.7, 0.1, 0.6])
    exact = ode_bits_per_dim(Exact(LINE, schedule), x, UNCONDITIONAL, 100, None)
    probed = ode_bits_per_dim(Exact(LINE, schedule), x, UNCONDITIONAL, 100, cast(Any, Noise(0)))
    torch.testing.assert_close(exact, probed, rtol=0, atol=1e-12)


def test_dequantised_data_have_at_least_the_levels_bits() -> None:
    """E −log₂ density per level, under the best density of dequantised data (constant within bins), is the entropy;
    under any other it is more (Theis et al. 2016). And the noise stays within its bin, uniformly."""
    data = Levels.few()
    count = 20_000
    which = torch.multinomial(data.weight, count, replacement=True, generator=torch.Generator().manual_seed(0))
    x0 = column(data.values[which])
    moved = (dequantised(x0, (-1.0, 1.0), cast(Any, Noise(1))) - x0).flatten() * 127.5
    assert moved.abs().max() <= 0.5
    ranks = (moved.sort().values + 0.5).numpy()
    assert np.abs(ranks - (np.arange(count) + 0.5) / count).max() * math.sqrt(count) < 2.23
    density = Mixture(data.weight, column(data.values), torch.full_like(column(data.values), (1 / 255) ** 2))
    log_p = density.log_density(x0 + moved.reshape(x0.shape) / 127.5, number(1.0), number(0.0))
    bits = -(log_p + math.log(2 / 255)) / math.log(2)
    assert float(bits.mean()) > data.bits() + 3 * float(bits.std()) / math.sqrt(count)
