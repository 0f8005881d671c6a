"""What the network's output F means, as coefficients instead of branches.

    x̂_0 = c_skip x_t + c_out F(c_in x_t),      ε̂ = (x_t − α x̂_0)/σ = e_skip x_t + e_out F

and the regression target of F is the F that gives the true x_0: (x_0 − c_skip x_t)/c_out, written as a combination of
(x_0, ε) so that nothing is divided by a small number.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Gt
from jaxtyping import Float64
from torch import Tensor

from trilemma.registry import register, registry


@dataclass(frozen=True)
class Coefficients:
    """c_in, c_skip, c_out, e_skip, e_out as above; the target is target_x0 · x_0 + target_eps · ε. All float64."""

    c_in: Float64[Tensor, "*n"]
    c_skip: Float64[Tensor, "*n"]
    c_out: Float64[Tensor, "*n"]
    e_skip: Float64[Tensor, "*n"]
    e_out: Float64[Tensor, "*n"]
    target_x0: Float64[Tensor, "*n"]
    target_eps: Float64[Tensor, "*n"]


Parameterization = Callable[[Float64[Tensor, "*n"], Float64[Tensor, "*n"]], Coefficients]
"""(α, σ) -> the coefficients."""


@register("parameterization", "epsilon")
@dataclass(frozen=True, kw_only=True)
class Epsilon:
    """F is the noise ε (Ho et al. 2020); with `skip` what is to be added to x_t for it, ε − x_t (Kingma et al. 2021,
    appendix B)."""

    skip: bool = False

    def __call__(self, alpha: Float64[Tensor, "*n"], sigma: Float64[Tensor, "*n"]) -> Coefficients:
        one, kept = torch.ones_like(alpha), torch.full_like(alpha, float(self.skip))
        return Coefficients(one, (1 - kept * sigma) / alpha, -sigma / alpha, kept, one, -kept * alpha, 1 - kept * sigma)


@register("parameterization", "x0")
@dataclass(frozen=True, kw_only=True)
class X0:
    """F is the clean image x_0."""

    def __call__(self, alpha: Float64[Tensor, "*n"], sigma: Float64[Tensor, "*n"]) -> Coefficients:
        one, zero = torch.ones_like(alpha), torch.zeros_like(alpha)
        return Coefficients(one, zero, one, 1 / sigma, -alpha / sigma, one, zero)


@register("parameterization", "v")
@dataclass(frozen=True, kw_only=True)
class V:
    """F is v = α ε − σ x_0 (Salimans & Ho 2022, appendix D), written for any α² + σ²."""

    def __call__(self, alpha: Float64[Tensor, "*n"], sigma: Float64[Tensor, "*n"]) -> Coefficients:
        norm, one = alpha**2 + sigma**2, torch.ones_like(alpha)
        return Coefficients(one, alpha / norm, -sigma / norm, sigma / norm, alpha / norm, -sigma, alpha)


@register("parameterization", "edm")
@dataclass(frozen=True, kw_only=True)
class EDM:
    """F has unit variance in and out for data of standard deviation `sigma_data` (Karras et al. 2022, table 1), written
    for any α: their x is x_t/α, their σ is σ/α."""

    sigma_data: Annotated[float, Gt(0)] = 0.5

    def __call__(self, alpha: Float64[Tensor, "*n"], sigma: Float64[Tensor, "*n"]) -> Coefficients:
        data, noise = torch.full_like(alpha, self.sigma_data), sigma / alpha
        norm = data**2 + noise**2
        root = norm.sqrt()
        c_in, c_skip, c_out = 1 / (alpha * root), data**2 / (norm * alpha), noise * data / root
        return Coefficients(
            c_in, c_skip, c_out, noise / (norm * alpha), -data / root, noise / (data * root), -data / root
        )


PARAMETERIZATIONS = registry("parameterization")
