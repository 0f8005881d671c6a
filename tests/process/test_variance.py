"""The reverse process's variances: their ends, what lies between, the floor at clean data; and respaced."""

from __future__ import annotations

import math
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.exact import Fixed, Given, NoDraw, cosine_alpha_bar, linear_alpha_bar
from trilemma.errors import InputError
from trilemma.process import Condition, Cosine, Denoiser, Linear, Schedule, pair, posterior_mean
from trilemma.samplers import Ancestral, grid

CASES: dict[str, tuple[Schedule, np.ndarray]] = {
    "linear": (Linear(steps=1000), linear_alpha_bar(1000)),
    "cosine": (Cosine(steps=60), cosine_alpha_bar(60)),
}
GRIDS = [None, 12, 3]


class Both(nn.Module):
    """A network that says `output` of the mean and `raw` of the variance."""

    def __init__(self, output: Tensor, raw: Tensor):
        super().__init__()
        self.output, self.raw = output, raw

    def forward(self, x_t: Tensor, time: Tensor) -> Tensor:
        return torch.cat([self.output.expand_as(x_t), self.raw.expand_as(x_t)], dim=1)


def images(seed: int, count: int = 2) -> Tensor:
    return torch.randn(count, 1, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def number(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def respaced(table: np.ndarray, times: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """β and β̃ of a grid's pairs, from clean to noisy (A eq 10–11; B): β_i = 1 − ᾱ_{S_i}/ᾱ_{S_{i−1}}."""
    bar = table[[0, *sorted(times)]]
    beta = 1 - bar[1:] / bar[:-1]
    return beta, (1 - bar[:-1]) / (1 - bar[1:]) * beta


@pytest.mark.parametrize("count", GRIDS)
@pytest.mark.parametrize("name", sorted(CASES))
class TestLearnedRange:
    def log_variances(self, name: str, count: int | None, raw: Tensor) -> list[tuple[Tensor, float, float]]:
        """log Σ of every pair of the grid, clean to noisy, with the two it lies between, by hand."""
        schedule, table = CASES[name]
        times = grid(schedule, count)
        beta, tilde = respaced(table, [int(t) for t in times[:-1]])
        # What a variance of 0 is held above: the next grid point's β̃.
        tilde[0] = tilde[1]
        denoiser = Denoiser(Both(images(1, 1), raw), schedule, variance="learned_range")
        found = []
        for i in range(len(beta)):
            t, s = times[len(beta) - 1 - i], times[len(beta) - i]
            noisier = times[len(beta) - 2 - i] if i + 1 < len(beta) else None
            kernel = pair(schedule, t, s, noisier)
            log_variance = denoiser.log_variance(denoiser(images(0), t), kernel)
            found.append((log_variance, math.log(tilde[i]), math.log(beta[i])))
        return found

    def test_ends_are_beta_tilde_and_beta(self, name: str, count: int | None) -> None:
        for raw in (-1.0, 1.0):
            for log_variance, low, high in self.log_variances(name, count, torch.tensor(raw, dtype=torch.float64)):
                expected = torch.full((2, 1, 3, 3), low if raw < 0 else high, dtype=torch.float64)
                torch.testing.assert_close(log_variance, expected, rtol=1e-7, atol=1e-7)

    def test_between_it_is_linear_in_the_logarithm_pixel_by_pixel(self, name: str, count: int | None) -> None:
        v = torch.linspace(0, 1, 9, dtype=torch.float64).reshape(1, 1, 3, 3)
        for log_variance, low, high in self.log_variances(name, count, 2 * v - 1):
            expected = (v * high + (1 - v) * low).expand(2, 1, 3, 3)
            torch.testing.assert_close(log_variance, expected, rtol=1e-7, atol=1e-7)

    def test_ancestral_steps_are_the_respaced_process(self, name: str, count: int | None) -> None:
        """A eq 10–11 written out in NumPy: μ̃ of the respaced process from ε̂, Σ between its β̃ and β, the same noise;
        the step to clean data adds none."""
        schedule, table = CASES[name]
        times = [int(t) for t in grid(schedule, count)]
        beta, tilde = respaced(table, times[:-1])
        eps, v = images(1), torch.rand(2, 1, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
        bound = Denoiser(Both(eps, 2 * v - 1), schedule, variance="learned_range").bind(Condition())
        x_t, noise = images(3), images(4)
        for i in {len(beta) - 1, len(beta) // 2, 1, 0}:
            t, s = times[len(beta) - 1 - i], times[len(beta) - i]
            bar_t, bar_s = table[t], table[s]
            x0 = (x_t.numpy() - math.sqrt(1 - bar_t) * eps.numpy()) / math.sqrt(bar_t)
            mean = math.sqrt(bar_s) * beta[i] / (1 - bar_t) * x0
            mean = mean + math.sqrt(1 - beta[i]) * (1 - bar_s) / (1 - bar_t) * x_t.numpy()
            if s:
                sigma2 = np.exp(v.numpy() * np.log(beta[i]) + (1 - v.numpy()) * np.log(tilde[i]))
                mean = mean + np.sqrt(sigma2) * noise.numpy()
            draw: Any = Given(noise) if s else NoDraw()
            found, _ = Ancestral(clip="none").step(bound, x_t, number(t), number(s), None, draw)
            np.testing.assert_allclose(found.numpy(), mean, rtol=1e-7, atol=1e-7)

    def test_the_floor_is_the_next_grid_points_beta_tilde(self, name: str, count: int | None) -> None:
        """At s = 0 β̃ is 0: improved-diffusion holds its logarithm at the β̃ of the next noisier pair."""
        schedule, table = CASES[name]
        times = grid(schedule, count)
        _, tilde = respaced(table, [int(t) for t in times[:-1]])
        kernel = pair(schedule, times[-2], times[-1], times[-3])
        assert kernel.beta_tilde == 0
        assert kernel.log_beta_tilde.item() == pytest.approx(math.log(tilde[1]), abs=1e-8)
        assert pair(schedule, times[-2], times[-1]).log_beta_tilde == -math.inf


@pytest.mark.parametrize("name", sorted(CASES))
def test_only_the_pair_to_clean_data_has_a_floor(name: str) -> None:
    """A batch of pairs with a noisier time each: where s > 0 the noisier time changes nothing."""
    schedule, _ = CASES[name]
    t = torch.tensor([1.0, 2.0, 20.0, 60.0], dtype=torch.float64)
    noisier = (t + 1).clamp(max=schedule.T)
    floored, plain = pair(schedule, t, t - 1, noisier), pair(schedule, t, t - 1)
    assert torch.equal(floored.log_beta_tilde[1:], plain.log_beta_tilde[1:])
    assert torch.equal(floored.beta_tilde, plain.beta_tilde)
    assert math.isfinite(floored.log_beta_tilde[0])


@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
def test_fixed_variances_are_the_ends_of_the_learned_range(variance: str) -> None:
    schedule = CASES["linear"][0]
    fixed = Denoiser(Fixed(images(1, 1)), schedule, variance=variance)
    raw = torch.tensor(-1.0 if variance == "fixed_small" else 1.0, dtype=torch.float64)
    learned = Denoiser(Both(images(1, 1), raw), schedule, variance="learned_range")
    for t, s in ((1000, 999), (1000, 30), *([] if variance == "fixed_large" else [(1, 0), (80, 0)])):
        kernel = pair(schedule, number(t), number(s), number(min(t + 1, 1000)) if t < 1000 else None)
        prediction = learned(images(0), number(t))
        expected = learned.log_variance(prediction, kernel)
        torch.testing.assert_close(
            fixed.log_variance(prediction, kernel).expand_as(expected), expected, rtol=1e-12, atol=1e-12
        )


def test_the_networks_channels_are_mean_then_variance() -> None:
    """v = (out + 1)/2 from the second half; the first half is F, as without a learned variance."""
    output, raw = images(1, 1), images(2, 1)
    schedule = CASES["cosine"][0]
    found = Denoiser(Both(output, raw), schedule, "v", "learned_range")(images(0), number(7))
    assert found.output is not None and found.variance is not None
    assert torch.equal(found.output, output.expand_as(images(0)))
    torch.testing.assert_close(found.variance, ((raw + 1) / 2).expand_as(images(0)))
    plain = Denoiser(Fixed(output), schedule, "v")(images(0), number(7))
    torch.testing.assert_close(found.x0, plain.x0)


@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("name", sorted(CASES))
@pytest.mark.parametrize("times", [(0.9, 0.5, 0.1), (1.0, 0.99, 0.98), (0.7, 0.35, 0.0)])
def test_given_x0_the_reverse_kernel_composes(times: tuple[float, float, float], name: str, eta: float) -> None:
    """q_η(x_s | x_t, x_0) then q_η(x_r | x_s, x_0) is q_η(x_r | x_t, x_0): the mean as a function of x_t, and the
    variance. (Between 0 and 1 it is not: η²β̃ does not compose.)"""
    schedule, _ = CASES[name]
    t, s, r = (number(part * schedule.T) for part in times)
    ts, sr, tr = pair(schedule, t, s), pair(schedule, s, r), pair(schedule, t, r)
    x0, eps = images(5), images(6)

    def onward(x_s: Tensor) -> Tensor:
        return posterior_mean(sr, x0, (x_s - sr.alpha_t * x0) / sr.sigma_t, eta)

    x_s = posterior_mean(ts, x0, eps, eta)
    torch.testing.assert_close(onward(x_s), posterior_mean(tr, x0, eps, eta), rtol=1e-9, atol=1e-9)
    # The mean is linear in x_s, so its slope squared is what the first step's variance is multiplied by.
    slope = onward(x_s + 1.0) - onward(x_s)
    variance = eta**2 * (slope**2 * ts.beta_tilde + sr.beta_tilde)
    torch.testing.assert_close(variance, (eta**2 * tr.beta_tilde).expand_as(variance), rtol=1e-8, atol=1e-12)


def test_unknown_variances_are_refused_with_the_nearest() -> None:
    with pytest.raises(InputError, match=r"unknown variance 'learned': .*did you mean 'learned_range'\?"):
        Denoiser(Fixed(torch.zeros(())), Linear(), variance=cast(Any, "learned"))


@pytest.mark.parametrize("t", [1, 80])
def test_the_decoders_variance_is_the_floor_whichever_is_fixed(t: int) -> None:
    """Ho et al.'s and Nichol & Dhariwal's large variance is β_2…β_T with β̃_2 in front, not β_1."""
    schedule = CASES["linear"][0]
    kernel = pair(schedule, number(t), number(0), number(t + 1))
    found = [
        Denoiser(Fixed(images(1, 1)), schedule, variance=name).log_variance(
            Denoiser(Fixed(images(1, 1)), schedule)(images(0), number(t)), kernel
        )
        for name in ("fixed_small", "fixed_large")
    ]
    alpha_bar = linear_alpha_bar(1000)
    beta = 1 - alpha_bar[t + 1] / alpha_bar[t]
    expected = math.log(beta * (1 - alpha_bar[t]) / (1 - alpha_bar[t + 1]))
    assert [float(each) for each in found] == pytest.approx([expected, expected], abs=1e-9)
