"""Schedules of continuous time by closed forms."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Gt
from jaxtyping import Float64
from torch import Tensor

from trilemma.errors import InputError
from trilemma.process.schedules import Schedule
from trilemma.registry import register


@register("schedule", "vp")
class ContinuousVP(Schedule):
    """The variance-preserving SDE's schedule on t in [0, 1]: log α² = −½ t² (β_max − β_min) − t β_min (Song et al.
    2021, eq. 33). The network is told 999 t, as their continuous models are."""

    T, steps, t_min = 1.0, None, 1e-3

    def __init__(self, *, beta_min: Annotated[float, Gt(0)] = 0.1, beta_max: Annotated[float, Gt(0)] = 20.0):
        self.beta_min, self.rise = beta_min, beta_max - beta_min
        if self.rise <= 0:
            raise InputError(f"schedule.beta_max {beta_max:g} should be more than beta_min {beta_min:g}")

    def gamma(self, t: Float64[Tensor, "*n"]) -> Float64[Tensor, "*n"]:
        self.check(t)
        # −log SNR = log((1 − α²)/α²) = log(e^h − 1), h = −log α²
        return torch.log(torch.expm1(0.5 * t**2 * self.rise + t * self.beta_min))

    def slope(self, t: Float64[Tensor, "*n"]) -> Float64[Tensor, "*n"]:
        self.check(t)
        return (t * self.rise + self.beta_min) / -torch.expm1(-(0.5 * t**2 * self.rise + t * self.beta_min))

    def time_of(self, gamma: Float64[Tensor, "*n"]) -> Float64[Tensor, "*n"]:
        h = torch.nn.functional.softplus(gamma)
        t = 2 * h / (self.beta_min + (self.beta_min**2 + 2 * self.rise * h).sqrt())
        return t.clamp(0.0, 1.0)

    def network_time(self, t: Float64[Tensor, "*n"]) -> Float64[Tensor, "*n"]:
        return 999.0 * t


@register("schedule", "edm")
class EDM(Schedule):
    """Karras et al. 2022: nothing is scaled, α = 1, and time is the noise level, σ(t) = t, up to `sigma_max`; sampling
    starts from noise of that spread. The network is told ¼ log σ (their table 1)."""

    steps = None

    def __init__(self, *, sigma_min: Annotated[float, Gt(0)] = 0.002, sigma_max: Annotated[float, Gt(0)] = 80.0):
        if sigma_max <= sigma_min:
            raise InputError(f"schedule.sigma_max {sigma_max:g} should be more than sigma_min {sigma_min:g}")
        self.T = sigma_max
        self.t_min = sigma_min

    def gamma(self, t: Float64[Tensor, "*n"]) -> Float64[Tensor, "*n"]:
        self.check(t)
        return 2 * torch.log(t)

    def slope(self, t: Float64[Tensor, "*n"]) -> Float64[Tensor, "*n"]:
        self.check(t)
        return 2 / t

    def time_of(self, gamma: Float64[Tensor, "*n"]) -> Float64[Tensor, "*n"]:
        return torch.exp(gamma / 2).clamp(self.t_min, self.T)

    def alpha(self, t: Float64[Tensor, "*n"]) -> Float64[Tensor, "*n"]:
        self.check(t)
        return torch.ones_like(t)

    def sigma(self, t: Float64[Tensor, "*n"]) -> Float64[Tensor, "*n"]:
        self.check(t)
        return t

    def prior_std(self, t: float) -> float:
        return t

    def network_time(self, t: Float64[Tensor, "*n"]) -> Float64[Tensor, "*n"]:
        return torch.log(t) / 4
