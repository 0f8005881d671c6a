"""Models whose answers are known: data of Gaussian components, and networks that are right about them.

Nothing here uses the package's own closed forms: levels come from formulas in NumPy float64 or from a schedule's α and
σ as given numbers, and what a network returns is built by hand from the exact E[x_0 | x_t].
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

Levels = Callable[[Tensor], tuple[Tensor, Tensor]]


def linear_alpha_bar(steps: int, start: float = 1e-4, end: float = 0.02) -> np.ndarray:
    """ᾱ_0…ᾱ_T, float64 [T + 1], of β rising linearly."""
    return np.concatenate([[1.0], np.cumprod(1.0 - np.linspace(start, end, steps))])


def cosine_alpha_bar(steps: int, s: float = 0.008, max_beta: float = 0.999) -> np.ndarray:
    """ᾱ_0…ᾱ_T, float64 [T + 1], of Nichol & Dhariwal's schedule, by a plain loop."""

    def f(t: int) -> float:
        return math.cos((t / steps + s) / (1 + s) * math.pi / 2) ** 2

    table = [1.0]
    for t in range(1, steps + 1):
        table.append(table[-1] * (1.0 - min(1.0 - f(t) / f(t - 1), max_beta)))
    return np.array(table)


def tabulated_levels(alpha_bar: np.ndarray) -> Levels:
    """(α, σ) of a network's time (t − 1 for the table's t = 1…T) from a table ᾱ_0…ᾱ_T."""
    table = torch.from_numpy(alpha_bar)

    def levels(time: Tensor) -> tuple[Tensor, Tensor]:
        found = table[time.round().long() + 1]
        return found.sqrt(), (1.0 - found).sqrt()

    return levels


def schedule_levels(schedule: Any) -> Levels:
    """(α, σ) of a network's time for any schedule, whose network time increases with t: t is found by bisection."""

    def levels(time: Tensor) -> tuple[Tensor, Tensor]:
        low, high = torch.zeros_like(time, dtype=torch.float64), torch.full_like(time, schedule.T, dtype=torch.float64)
        for _ in range(80):
            middle = (low + high) / 2
            late = schedule.network_time(middle) > time
            low, high = torch.where(late, low, middle), torch.where(late, middle, high)
        # The ends are the table's own times where the bisection has come within rounding of one.
        t = torch.where((low - low.round()).abs() < 1e-9, low.round(), low)
        return schedule.alpha(t), schedule.sigma(t)

    return levels


@dataclass(frozen=True)
class Mixture:
    """Data x_0 ~ Σ_k w_k N(m_k, diag v_k): weights [k], means and variances [k, c, h, w], float64."""

    weights: Tensor
    means: Tensor
    variances: Tensor

    @classmethod
    def gaussian(cls, mean: Tensor, variance: Tensor) -> Mixture:
        """One component: mean and variance [c, h, w]."""
        return cls(torch.ones(1, dtype=torch.float64), mean.double()[None], variance.double()[None])

    @classmethod
    def random(cls, components: int, shape: tuple[int, int, int], seed: int = 0) -> Mixture:
        rng = np.random.default_rng(seed)
        weights = rng.uniform(0.5, 1.5, components)
        means, variances = rng.uniform(-0.8, 0.8, (components, *shape)), rng.uniform(0.02, 0.5, (components, *shape))
        return cls(torch.from_numpy(weights / weights.sum()), torch.from_numpy(means), torch.from_numpy(variances))

    def mean(self) -> Tensor:
        return torch.einsum("k,kchw->chw", self.weights, self.means)

    def variance(self) -> Tensor:
        """Of each pixel on its own."""
        return torch.einsum("k,kchw->chw", self.weights, self.variances + self.means**2) - self.mean() ** 2

    def sample(self, count: int, seed: int = 0) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        which = torch.multinomial(self.weights, count, replacement=True, generator=generator)
        noise = torch.randn(count, *self.means.shape[1:], generator=generator, dtype=torch.float64)
        return self.means[which] + self.variances[which].sqrt() * noise

    def _joint(self, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """log w_k N(x_t; α m_k, α² v_k + σ²), [n, k]; α and σ broadcast against [n, 1, c, h, w]."""
        spread = alpha**2 * self.variances + sigma**2
        squares = (x_t[:, None] - alpha * self.means) ** 2 / spread
        return self.weights.log() - 0.5 * (squares + torch.log(2 * math.pi * spread)).flatten(2).sum(2)

    def log_density(self, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """log p(x_t) [n] for x_t [n, c, h, w] at levels α and σ, [n] or one number."""
        return self._joint(x_t, _over(alpha), _over(sigma)).logsumexp(1)

    def denoised(self, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """E[x_0 | x_t], [n, c, h, w]: each component's conditional mean, weighted by how likely it made x_t."""
        a, s = _over(alpha), _over(sigma)
        gain = a * self.variances / (a**2 * self.variances + s**2)
        conditional = self.means + gain * (x_t[:, None] - a * self.means)
        return torch.einsum("nk,nkchw->nchw", self._joint(x_t, a, s).softmax(1), conditional)


def _over(level: Tensor) -> Tensor:
    level = torch.as_tensor(level, dtype=torch.float64)
    return level.reshape(-1, 1, 1, 1, 1)


class ExactNetwork(nn.Module):
    """The F a perfectly trained network of this parameterization would return for this data, in x_t's type.

    It keeps the times it was called with, as `seen`."""

    def __init__(self, data: Mixture, levels: Levels, parameterization: str = "epsilon"):
        super().__init__()
        self.data, self.levels, self.parameterization = data, levels, parameterization
        self.seen: list[Tensor] = []

    def forward(self, x_t: Tensor, time: Tensor) -> Tensor:
        self.seen.append(time.clone())
        alpha, sigma = self.levels(time)
        x0 = self.data.denoised(x_t.double(), alpha, sigma)
        a, s = alpha.reshape(-1, 1, 1, 1), sigma.reshape(-1, 1, 1, 1)
        eps = (x_t.double() - a * x0) / s
        outputs = {"epsilon": eps, "x0": x0, "v": a * eps - s * x0}
        return outputs[self.parameterization].to(x_t.dtype)


class Fixed(nn.Module):
    """A network that says the same whatever it is shown: `output`, [c, h, w] or [n, c, h, w]."""

    def __init__(self, output: Tensor):
        super().__init__()
        self.output = output

    def forward(self, x_t: Tensor, time: Tensor) -> Tensor:
        return self.output.expand_as(x_t).to(x_t.dtype)


class Given:
    """Draws that are known in advance, one after the other; counts how many were asked for."""

    def __init__(self, *noises: Tensor):
        self.noises, self.used = noises, 0

    def normal(self, like: Tensor) -> Tensor:
        self.used += 1
        return self.noises[self.used - 1].expand_as(like).to(like.dtype)


class NoDraw:
    """For kernels that must not draw: any draw fails the test."""

    def normal(self, like: Tensor) -> Tensor:
        raise AssertionError("this step draws noise")


class Impulses:
    """Draws that lay a linear sampler open: image 0 gets no noise, image j + 1 gets all ones at the j-th draw."""

    def __init__(self) -> None:
        self.used = 0

    def normal(self, like: Tensor) -> Tensor:
        noise = torch.zeros_like(like)
        self.used += 1
        if self.used < len(like):
            noise[self.used] = 1.0
        return noise


def answer(outputs: Tensor, start_std: float = 1.0) -> tuple[Tensor, Tensor]:
    """Mean and variance that a sampler linear in its noise gives, exactly, [c, h, w], from its outputs for an all-zero
    start and no noise (image 0) and unit impulses: at the start (the last image) and at each draw (the others)."""
    responses = outputs[1:] - outputs[0]
    responses = torch.cat([responses[:-1], start_std * responses[-1:]])
    return outputs[0], responses.square().sum(0)
