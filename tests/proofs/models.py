"""The exact mixture as a denoiser of the package, its score, its flow, and the quadratures the proofs compare with.

Times reach these denoisers as they are, in float64, not through a network's float32 time: what remains is the method's
own error.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.exact import Fixed, Mixture
from trilemma.process import UNCONDITIONAL, BoundDenoiser, Condition, Denoiser, Prediction, Schedule, over_image


def number(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def column(values: Any) -> Tensor:
    """Numbers as images of one pixel."""
    return torch.as_tensor(values, dtype=torch.float64).reshape(-1, 1, 1, 1)


class Exact(Denoiser):
    """E[x_0 | x_t] of a data distribution, given as `denoised(x_t, alpha, sigma)`, in float64."""

    def __init__(self, data: Any, schedule: Schedule, variance: str = "fixed_small", error: float = 0.0):
        """`error`: what x̂_0 is wrong by, as a factor, so that losses are not the least possible ones."""
        super().__init__(Fixed(torch.zeros(())), schedule, "v", variance=variance)
        self.data, self.factor = data, 1.0 + error

    def forward(self, x_t: Tensor, t: Tensor, condition: Condition = UNCONDITIONAL) -> Prediction:
        alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
        x0 = self.factor * self.data.denoised(x_t.double(), alpha, sigma)
        a, s = over_image(alpha, x0), over_image(sigma, x0)
        eps = (x_t.double() - a * x0) / s
        return Prediction(x0, eps, output=a * eps - s * x0)

    def bound(self) -> BoundDenoiser:
        return self.bind(UNCONDITIONAL)


def line(weights: list[float], means: list[float], variances: list[float]) -> Mixture:
    """A mixture of one dimension."""
    w = torch.tensor(weights, dtype=torch.float64)
    return Mixture(w / w.sum(), column(means), column(variances))


def score(data: Mixture, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """∇ log p(x_t) [n, c, h, w]: each component's own, weighted by how likely it made x_t."""
    alpha, sigma = (torch.as_tensor(level).double().reshape(-1, 1, 1, 1, 1) for level in (alpha, sigma))
    spread = alpha**2 * data.variances + sigma**2
    away = x_t[:, None] - alpha * data.means
    joint = data.weights.log() - 0.5 * (away**2 / spread + spread.log()).flatten(2).sum(2)
    return -torch.einsum("nk,nkchw->nchw", joint.softmax(1), away / spread)


def cdf(data: Mixture, x: Tensor, alpha: float, sigma: float, along: Tensor | None = None) -> np.ndarray:
    """P(direction · x_t ≤ x) of the mixture at levels α and σ, for numbers x [n]; `along`: the direction [c, h, w]."""
    direction = torch.ones_like(data.means[0]) if along is None else along
    middle = alpha * (data.means * direction).flatten(1).sum(1)
    spread = ((alpha**2 * data.variances + sigma**2) * direction**2).flatten(1).sum(1)
    found = (data.weights * torch.special.ndtr((x.reshape(-1, 1) - middle) / spread.sqrt())).sum(1)
    return found.numpy()


def transported(data: Mixture, x: Tensor, start: tuple[float, float], end: tuple[float, float]) -> Tensor:
    """Where the probability-flow ODE takes numbers x from levels (α, σ) `start` to `end`, exactly: in one dimension
    the flow keeps the order of points, so F_end(x_end) = F_start(x_start). Solved by bisection."""
    share = cdf(data, x.flatten(), *start)
    low, high = np.full(share.shape, -30.0), np.full(share.shape, 30.0)
    for _ in range(120):
        middle = (low + high) / 2
        below = cdf(data, torch.from_numpy(middle), *end) < share
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return torch.from_numpy((low + high) / 2).reshape(x.shape)


def flow(data: Mixture, schedule: Schedule, x: Tensor, t: Tensor, s: Tensor, steps: int = 2000) -> Tensor:
    """The probability-flow ODE from t to s by the classical Runge-Kutta method in log σ/α, in any dimension."""
    ends = [float(schedule.gamma(each)) / 2 for each in (t, s)]
    h = (ends[1] - ends[0]) / steps

    def slope(x_bar: Tensor, log_noise: float) -> Tensor:
        noise = torch.tensor(math.exp(log_noise), dtype=torch.float64)
        return x_bar - data.denoised(x_bar, number(1.0), noise)

    x_bar = x / schedule.alpha(t)
    for k in range(steps):
        at = ends[0] + k * h
        a = slope(x_bar, at)
        b = slope(x_bar + h / 2 * a, at + h / 2)
        c = slope(x_bar + h / 2 * b, at + h / 2)
        d = slope(x_bar + h * c, at + h)
        x_bar = x_bar + h / 6 * (a + 2 * b + 2 * c + d)
    return schedule.alpha(s) * x_bar


def integral(f: Callable[[np.ndarray], np.ndarray], middle: float, spread: float, count: int = 4001) -> float:
    """∫ f, for f that has died away 14 spreads from the middle: there the trapezoid rule is exact to rounding."""
    x = np.linspace(middle - 14 * spread, middle + 14 * spread, count)
    return float(f(x).sum() * (x[1] - x[0]))


def normal(x: Any, mean: Any, variance: float) -> np.ndarray:
    """The Gaussian density at an array x or around an array of means, written out."""
    return np.exp(-((x - mean) ** 2) / (2 * variance)) / math.sqrt(2 * math.pi * variance)


@dataclass(frozen=True)
class Nodes:
    """A quadrature rule over (x_0, ε) of one-pixel images: Σ weight f(x_0, ε) is E f. As a `Draw` it gives its ε."""

    x0: Tensor
    eps: Tensor
    weight: Tensor

    @classmethod
    def of_gaussian(cls, data: Mixture) -> Nodes:
        """Gauss-Hermite with three nodes: exact for polynomials of fifth degree in x_0 and in ε."""
        z, w = np.polynomial.hermite_e.hermegauss(3)
        return cls._over(data, torch.from_numpy(z), torch.from_numpy(w / w.sum()))

    @classmethod
    def of_mixture(cls, data: Mixture, spacing: float = 0.4, reach: float = 7.2) -> Nodes:
        """An even grid of every component's standard deviations and of ε's: the trapezoid rule."""
        z = torch.linspace(-reach, reach, round(2 * reach / spacing) + 1, dtype=torch.float64)
        w = torch.exp(-(z**2) / 2)
        return cls._over(data, z, w / w.sum())

    @classmethod
    def _over(cls, data: Mixture, z: Tensor, w: Tensor) -> Nodes:
        m, v = data.means.flatten(), data.variances.flatten()
        x0 = (m[:, None] + v.sqrt()[:, None] * z)[:, :, None].expand(-1, -1, len(z))
        weight = data.weights[:, None, None] * w[None, :, None] * w
        return cls(column(x0.flatten()), column(z.expand_as(x0).flatten()), weight.flatten())

    def normal(self, like: Tensor) -> Tensor:
        return self.eps.to(like.dtype)

    def mean(self, values: Tensor) -> Tensor:
        """E of values [n, ...]."""
        return torch.tensordot(self.weight, values, dims=1)


def differential_entropy(data: Mixture, alpha: float, sigma: float) -> float:
    """h(x_t) in nats, one dimension, by quadrature."""
    x = torch.linspace(-12, 12, 40_001, dtype=torch.float64)
    log_p = data.log_density(column(x), number(alpha), number(sigma))
    return -float((log_p.exp() * log_p).sum() * (x[1] - x[0]))


@dataclass(frozen=True)
class Levels:
    """Data on a few of the 256 levels of [−1, 1]: `level` [k], int64, and `weight` [k]."""

    level: Tensor
    weight: Tensor

    @classmethod
    def few(cls) -> Levels:
        """Runs of neighbouring levels, single ones, and both ends of the range."""
        level = torch.tensor([0, 1, 2, 40, 41, 42, 43, 44, 45, 46, 90, 128, 129, 130, 131, 200, 201, 202, 254, 255])
        weight = torch.from_numpy(np.random.default_rng(0).uniform(0.2, 1.2, len(level)))
        return cls(level, weight / weight.sum())

    @property
    def values(self) -> Tensor:
        return self.level.double() / 127.5 - 1

    def denoised(self, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """E[x_0 | x_t] by going through all levels."""
        a, s = (torch.as_tensor(level).double().reshape(-1, 1, 1, 1, 1) for level in (alpha, sigma))
        log_joint = self.weight.log() - 0.5 * ((x_t[..., None] - a * self.values) / s) ** 2
        return (log_joint.softmax(-1) * self.values).sum(-1)

    def bits(self) -> float:
        """The entropy: the bits per dimension that no model can do without."""
        return -float((self.weight * self.weight.log2()).sum())

    def nodes(self, reach: float = 7.0, count: int = 71) -> Nodes:
        """Each level with ε on an even grid, whose trapezoid rule is exact to rounding for smooth integrands."""
        eps = torch.linspace(-reach, reach, count, dtype=torch.float64)
        share = torch.from_numpy(normal(eps.numpy(), 0.0, 1.0))
        x0 = self.values[:, None].expand(-1, count)
        weight = self.weight[:, None] * (share / share.sum())
        return Nodes(column(x0.flatten()), column(eps.expand_as(x0).flatten()), weight.flatten())


class Noise:
    """Independent normal draws for any number of images, from one generator."""

    def __init__(self, seed: int):
        self.generator = torch.Generator().manual_seed(seed)

    def normal(self, like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=self.generator, dtype=torch.float64).to(like.dtype)


def regained(data: Mixture, kept: int, alpha: float, sigma: float, *, flow: bool = False) -> float:
    """The share of the samples in the first of two modes (the lower one), of a walk that begins at levels α and σ from
    images of the mode `kept` alone, noised. By the reverse process it is E P(first | x_t); by its flow, which in one
    dimension keeps the order of points, the share of x_t below where the data's own first weight ends."""
    one = Mixture(torch.ones(1, dtype=torch.float64), data.means[[kept]], data.variances[[kept]])
    if flow:
        low, high = -30.0, 30.0
        for _ in range(100):
            middle = (low + high) / 2
            below = float(cdf(data, number(middle).reshape(1), alpha, sigma)[0]) < float(data.weights[0])
            low, high = (middle, high) if below else (low, middle)
        return float(cdf(one, number(middle).reshape(1), alpha, sigma)[0])
    spread = float((alpha**2 * one.variances + sigma**2).sqrt())

    def integrand(x: np.ndarray) -> np.ndarray:
        points, levels = column(x), (number(alpha), number(sigma))
        shares = data._joint(points, *(level.reshape(-1, 1, 1, 1, 1) for level in levels)).softmax(1)[:, 0]
        return (one.log_density(points, *levels).exp() * shares).numpy()

    return integral(integrand, float(alpha * one.means), spread)
