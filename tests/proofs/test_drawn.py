"""Denoisers that draw their x̂_0 (C 3; Xiao et al. 2022, section 3): what few steps need."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import ks_1samp, norm
from torch import Tensor, nn

from tests.exact import ExactNetwork, Mixture, schedule_levels
from trilemma.errors import InputError
from trilemma.process import SCHEDULES, Denoiser, Prior
from trilemma.samplers import SAMPLERS, Ancestral, Sampler

COUNT = 4000
WEIGHTS, MEANS, SPREAD = np.array([0.3, 0.7]), np.array([-0.6, 0.6]), 0.05
DATA = Mixture(
    torch.from_numpy(WEIGHTS),
    torch.from_numpy(MEANS).view(2, 1, 1, 1),
    torch.full((2, 1, 1, 1), SPREAD**2, dtype=torch.float64),
)


class Oracle(nn.Module):
    """Draws x_0 of p(x_0 | x_t) itself, from a latent of two numbers: which mode, and where in it."""

    latent = 2

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.levels = schedule_levels(SCHEDULES["ddgan"](steps=steps))

    def forward(self, x: Tensor, time: Tensor, *, latent: Tensor) -> Tensor:
        alpha, sigma = (level.view(-1, 1) for level in self.levels(time))
        x_t, means = x.double().view(-1, 1), DATA.means.view(1, 2)
        spread = alpha**2 * SPREAD**2 + sigma**2
        joint = torch.log(DATA.weights) - 0.5 * (x_t - alpha * means) ** 2 / spread - 0.5 * spread.log()
        second = torch.special.ndtr(latent[:, :1].double()) < joint.softmax(1)[:, 1:]
        mean = torch.where(second, means[:, 1:], means[:, :1])
        gain = alpha * SPREAD**2 / spread
        drawn = mean + gain * (x_t - alpha * mean) + (SPREAD * sigma / spread.sqrt()) * latent[:, 1:].double()
        return drawn.view(-1, 1, 1, 1).to(x.dtype)


def distance(denoiser: Denoiser) -> float:
    """Kolmogorov and Smirnov's between the samples and the data's distribution."""
    sampler = Sampler(denoiser, Ancestral(clip="none"), shape=(1, 1, 1))
    *_, last = sampler.walk(range(COUNT))

    def cdf(x: np.ndarray) -> np.ndarray:
        return sum(w * norm.cdf(x, m, SPREAD) for w, m in zip(WEIGHTS, MEANS, strict=True))

    return float(ks_1samp(last.x.double().flatten().numpy(), cdf).statistic)


def gaussian(steps: int, variance: str) -> Denoiser:
    """The denoiser that is right about E[x_0 | x_t], as a network trained by any of the losses would be."""
    schedule = SCHEDULES["ddgan"](steps=steps)
    return Denoiser(ExactNetwork(DATA, schedule_levels(schedule), "x0"), schedule, "x0", variance)


class TestFewSteps:
    @pytest.mark.parametrize("steps", [1, 2, 4, 8])
    def test_drawing_gives_the_data_s_distribution_in_any_number(self, steps: int) -> None:
        denoiser = Denoiser(Oracle(steps), SCHEDULES["ddgan"](steps=steps), "x0", "fixed_small")
        assert distance(denoiser) < 0.026, "what COUNT draws of the data itself exceed once in a hundred times"

    @pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
    def test_a_gaussian_denoiser_does_not(self, variance: str) -> None:
        """Its means are exact, and p(x_s | x_t) has two modes where a Gaussian has one."""
        assert distance(gaussian(4, variance)) > 0.1


class Zero(nn.Module):
    latent = 2

    def forward(self, latent: Tensor) -> Tensor:
        return latent[:, :1, None, None].tanh()


class TestRefused:
    """Where x̂_0 is taken for a mean, or at times that were never learnt."""

    @pytest.mark.parametrize("name", sorted(set(SAMPLERS) - {"ancestral"}))
    def test_samplers_that_rest_on_the_mean(self, name: str) -> None:
        denoiser = Denoiser(Oracle(4), SCHEDULES["ddgan"](), "x0", "fixed_small")
        with pytest.raises(InputError, match=r"the model draws its x̂_0 \(Oracle\), and this sampler rests on x̂_0"):
            Sampler(denoiser, SAMPLERS[name](), shape=(1, 1, 1), steps=4)

    def test_other_grids(self) -> None:
        denoiser = Denoiser(Oracle(4), SCHEDULES["ddgan"](), "x0", "fixed_small")
        for how in ({"steps": 3}, {"times": (4.0, 1.0)}):
            with pytest.raises(InputError, match=r"from each time of its table to the next alone: leave steps"):
                Sampler(denoiser, Ancestral(), shape=(1, 1, 1), **how)

    def test_a_prediction_without_a_latent(self) -> None:
        denoiser = Denoiser(Oracle(4), SCHEDULES["ddgan"](), "x0", "fixed_small")
        with pytest.raises(InputError, match="no one prediction of x_t, which likelihoods, encodings and ODE samplers"):
            denoiser(torch.zeros(1, 1, 1, 1), torch.tensor(4.0, dtype=torch.float64))


def test_a_generator_walks_one_step_and_sees_neither_noise_nor_time() -> None:
    """Its images are those of its latents, which come from streams of their own, one a seed."""
    sampler = Sampler(Denoiser(Zero(), Prior(), "x0", "fixed_small"), Ancestral(), shape=(1, 1, 1))
    assert sampler.evaluations == sampler.intervals == 1 and sampler.grid.tolist() == [1.0, 0.0]
    *_, last = sampler.walk(range(COUNT))
    assert ks_1samp(last.x.flatten().double().atanh().numpy(), norm.cdf).statistic < 0.026
    *_, alone = sampler.walk([7])
    assert torch.equal(alone.x[0], last.x[7])
    _, start = zip(*[(step.index, step.x) for step in sampler.walk(range(COUNT))], strict=True)
    correlation = np.corrcoef(start[0].flatten().numpy(), start[1].flatten().numpy())[0, 1]
    assert abs(correlation) < 0.05
