"""What the network's output F means, as coefficients instead of branches.

    x̂_0 = c_skip x_t + c_out F(c_in x_t),      ε̂ = (x_t − α x̂_0)/σ = e_skip x_t + e_out F

and the regression target of F is the F that gives the true x_0: (x_0 − c_skip x_t)/c_out, written as a combination of
(x_0, ε) so that nothing is divided by a small number.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor


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


def epsilon(alpha: Float64[Tensor, "*n"], sigma: Float64[Tensor, "*n"]) -> Coefficients:
    """F is the noise ε (Ho et al. 2020)."""
    one, zero = torch.ones_like(alpha), torch.zeros_like(alpha)
    return Coefficients(one, 1 / alpha, -sigma / alpha, zero, one, zero, one)


def x0(alpha: Float64[Tensor, "*n"], sigma: Float64[Tensor, "*n"]) -> Coefficients:
    """F is the clean image x_0."""
    one, zero = torch.ones_like(alpha), torch.zeros_like(alpha)
    return Coefficients(one, zero, one, 1 / sigma, -alpha / sigma, one, zero)


def v(alpha: Float64[Tensor, "*n"], sigma: Float64[Tensor, "*n"]) -> Coefficients:
    """F is v = α ε − σ x_0 (Salimans & Ho 2022, appendix D), written for any α² + σ²."""
    norm, one = alpha**2 + sigma**2, torch.ones_like(alpha)
    return Coefficients(one, alpha / norm, -sigma / norm, sigma / norm, alpha / norm, -sigma, alpha)


PARAMETERIZATIONS: dict[str, Parameterization] = {"epsilon": epsilon, "x0": x0, "v": v}
