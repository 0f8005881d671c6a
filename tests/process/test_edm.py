"""Karras et al. 2022 (EDM): the preconditioning of their table 1 by hand, on their schedule and on others."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from trilemma.errors import InputError
from trilemma.process import EDM, PARAMETERIZATIONS, ContinuousVP, Cosine, Denoiser, Draw, Linear, Schedule, perturb
from trilemma.samplers import noise_start

SCHEDULES: dict[str, Schedule] = {
    "edm": EDM(),
    "edm-other": EDM(sigma_min=0.01, sigma_max=50.0),
    "linear": Linear(),
    "cosine": Cosine(steps=40),
    "vp": ContinuousVP(),
}


class Seen(nn.Module):
    """F that depends on what the network is shown, and keeps it."""

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        self.x, self.time = x, time
        return torch.sin(3 * x)


def images(seed: int) -> Tensor:
    return torch.randn(3, 2, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def some_times(schedule: Schedule) -> Tensor:
    if schedule.steps is not None:
        return torch.tensor([1.0, 0.4 * schedule.T, schedule.T], dtype=torch.float64)
    return torch.tensor([schedule.t_min, 0.3 * schedule.T, schedule.T], dtype=torch.float64)


@pytest.mark.parametrize("data", [0.5, 1.3])
@pytest.mark.parametrize("name", sorted(SCHEDULES))
class TestPreconditioning:
    def test_table_1(self, name: str, data: float) -> None:
        """D(x̄; σ) = c_skip x̄ + c_out F(c_in x̄) with x̄ = x_t/α and σ their noise level, ours over α."""
        schedule, network = SCHEDULES[name], Seen()
        denoiser = Denoiser(network, schedule, PARAMETERIZATIONS["edm"](sigma_data=data))
        x_t, t = images(0), some_times(schedule)
        found = denoiser(x_t, t)
        for i in range(3):
            alpha, noise = float(schedule.alpha(t[i])), float(schedule.sigma(t[i]) / schedule.alpha(t[i]))
            x = x_t[i].numpy() / alpha
            c_skip = data**2 / (noise**2 + data**2)
            c_out = noise * data / math.sqrt(data**2 + noise**2)
            c_in = 1 / math.sqrt(noise**2 + data**2)
            expected = c_skip * x + c_out * np.sin(3 * c_in * x)
            np.testing.assert_allclose(network.x[i].numpy(), c_in * x, rtol=1e-9, atol=1e-12)
            np.testing.assert_allclose(found.x0[i].numpy(), expected, rtol=1e-8, atol=1e-8)
            np.testing.assert_allclose(found.eps[i].numpy(), (x - expected) / noise, rtol=1e-7, atol=1e-7)

    def test_input_and_target_have_unit_variance(self, name: str, data: float) -> None:
        """For data of this spread: what their appendix B.6 asks of c_in, c_skip and c_out, in closed form."""
        schedule = SCHEDULES[name]
        c = PARAMETERIZATIONS["edm"](sigma_data=data)(
            schedule.alpha(some_times(schedule)), schedule.sigma(some_times(schedule))
        )
        alpha, sigma = schedule.alpha(some_times(schedule)), schedule.sigma(some_times(schedule))
        ones = torch.ones(3, dtype=torch.float64)
        torch.testing.assert_close(c.c_in**2 * (alpha**2 * data**2 + sigma**2), ones, rtol=1e-9, atol=0)
        torch.testing.assert_close(c.target_x0**2 * data**2 + c.target_eps**2, ones, rtol=1e-9, atol=0)


class TestSchedule:
    def test_time_is_the_noise_level(self) -> None:
        t = torch.tensor([0.0, 0.002, 1.0, 80.0], dtype=torch.float64)
        schedule = EDM()
        assert schedule.alpha(t).tolist() == [1.0] * 4
        assert torch.equal(schedule.sigma(t), t)
        torch.testing.assert_close(schedule.gamma(t[1:]), 2 * t[1:].log())
        x0, eps = images(3), images(4)
        torch.testing.assert_close(perturb(schedule, x0, t[3], eps), x0 + 80 * eps)

    def test_the_network_is_told_a_quarter_of_the_logarithm(self) -> None:
        network = Seen()
        Denoiser(network, EDM(), "edm")(images(0), torch.tensor([0.002, 1.0, 80.0], dtype=torch.float64))
        assert network.time.tolist() == pytest.approx([math.log(0.002) / 4, 0.0, math.log(80) / 4], rel=1e-6)

    def test_a_start_has_spread_sigma_max(self) -> None:
        """Exactly sigma_max times the unit noise of the same seeds."""
        seeds = [3, 1, 4]
        unit = Draw.for_seeds(seeds, "start").normal(torch.empty(3, 1, 8, 8))
        for schedule, spread in ((EDM(), 80.0), (EDM(sigma_max=50.0), 50.0), (Linear(), 1.0), (ContinuousVP(), 1.0)):
            assert torch.equal(noise_start(schedule, seeds, (1, 8, 8)), spread * unit)

    def test_the_priors_kl_is_that_of_the_wider_gaussian(self) -> None:
        """x_T ~ N(x_0, 80²) against N(0, 80²): ½ E[x²]/80² nats."""
        assert EDM().prior_bits_per_dim(0.7) == pytest.approx(0.5 * 0.7 / 6400 / math.log(2), rel=1e-9)
        assert EDM().terminal_snr() == pytest.approx(1 / 6400)

    def test_levels_out_of_order_are_refused(self) -> None:
        with pytest.raises(InputError, match=r"schedule\.sigma_max 1 should be more than sigma_min 2"):
            EDM(sigma_min=2.0, sigma_max=1.0)
