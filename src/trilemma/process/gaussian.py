"""Closed forms of the Gaussian process, as pure functions of times: the forward marginal and the pair kernel.

The pair kernel is what everything hangs on: for any t > s, from (α, σ) at s and t and never from an index t − 1,

    q(x_t | x_s)      = N(α_t/α_s x_s, β I),            β = σ_t² − (α_t/α_s)² σ_s²
    q(x_s | x_t, x_0) = N(μ̃, β̃ I),                      β̃ = β σ_s²/σ_t²
    q_η(x_s | x_t, x_0) = N(α_s x_0 + √(σ_s² − η² β̃) ε, η² β̃ I),   ε = (x_t − α_t x_0)/σ_t

For neighbouring tabulated times β and β̃ are Ho et al.'s; for any subset they are A eq 10–11; σ(η) = η √β̃ is DDIM's
(Song et al. 2021, eq. 16), and η = 1 has the mean μ̃ of the posterior.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from trilemma.process.schedules import Schedule


def over_image(coefficient: Float64[Tensor, "*n"], x: Float[Tensor, "n ..."]) -> Tensor:
    """A float64 coefficient, one for all images or one an image, in the type, place and rank of the images `x`."""
    c = coefficient.to(dtype=x.dtype).to(x.device)
    return c.reshape(-1, *[1] * (x.dim() - 1)) if c.dim() else c


def perturb(
    schedule: Schedule, x0: Float[Tensor, "n c h w"], t: Float64[Tensor, "*n"], eps: Float[Tensor, "n c h w"]
) -> Float[Tensor, "n c h w"]:
    """x_t = α(t) x_0 + σ(t) ε, a draw of q(x_t | x_0)."""
    return over_image(schedule.alpha(t), x0) * x0 + over_image(schedule.sigma(t), x0) * eps


@dataclass(frozen=True)
class Pair:
    """The pair kernel's coefficients for times t > s, float64, each one number or one an image."""

    alpha_t: Float64[Tensor, "*n"]
    sigma_t: Float64[Tensor, "*n"]
    alpha_s: Float64[Tensor, "*n"]
    sigma_s: Float64[Tensor, "*n"]
    beta: Float64[Tensor, "*n"]
    beta_tilde: Float64[Tensor, "*n"]


def pair(schedule: Schedule, t: Float64[Tensor, "*n"], s: Float64[Tensor, "*n"]) -> Pair:
    """The pair kernel of times t > s (any two, neighbours or not)."""
    sigma_t, sigma_s = schedule.sigma(t), schedule.sigma(s)
    # β = σ_t² (1 − e^{γ_s − γ_t}): no difference of nearly equal numbers (Kingma et al. 2021, eq. 33).
    forgotten = -torch.expm1(schedule.gamma(s) - schedule.gamma(t))
    beta = sigma_t**2 * forgotten
    return Pair(schedule.alpha(t), sigma_t, schedule.alpha(s), sigma_s, beta, sigma_s**2 * forgotten)


def posterior_mean(
    pair: Pair, x0: Float[Tensor, "n c h w"], eps: Float[Tensor, "n c h w"], eta: float = 1.0
) -> Float[Tensor, "n c h w"]:
    """The mean of q_η(x_s | x_t, x_0), x_t being given by (x_0, ε). η = 1 is the posterior's μ̃, η = 0 DDIM's step."""
    toward_eps = (pair.sigma_s**2 - eta**2 * pair.beta_tilde).clamp(min=0).sqrt()
    return over_image(pair.alpha_s, x0) * x0 + over_image(toward_eps, x0) * eps
