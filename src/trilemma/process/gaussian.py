"""Closed forms of the Gaussian process, as pure functions of times: the forward marginal and the pair kernel.

The pair kernel is what everything hangs on: for any t > s, from (α, σ) at s and t and never from an index t − 1,

    q(x_t | x_s)      = N(α_t/α_s x_s, β I),            β = σ_t² − (α_t/α_s)² σ_s²
    q(x_s | x_t, x_0) = N(μ̃, β̃ I),                      β̃ = β σ_s²/σ_t²
    q_η(x_s | x_t, x_0) = N(α_s x_0 + √(σ_s² − η² β̃) ε, η² β̃ I),   ε = (x_t − α_t x_0)/σ_t

For neighbouring tabulated times β and β̃ are Ho et al.'s; for any subset they are A eq 10–11; σ(η) = η √β̃ is DDIM's
(Song et al. 2021, eq. 16), and η = 1 has the mean μ̃ of the posterior.
"""

from __future__ import annotations

import math
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
    """The pair kernel's coefficients for times t > s, float64, each one number or one an image.

    `log_beta_tilde` is log β̃; at s = 0, where β̃ = 0, the floor the grid supplies (−∞ if it supplied none)."""

    alpha_t: Float64[Tensor, "*n"]
    sigma_t: Float64[Tensor, "*n"]
    alpha_s: Float64[Tensor, "*n"]
    sigma_s: Float64[Tensor, "*n"]
    beta: Float64[Tensor, "*n"]
    beta_tilde: Float64[Tensor, "*n"]
    log_beta_tilde: Float64[Tensor, "*n"]


def pair(
    schedule: Schedule,
    t: Float64[Tensor, "*n"],
    s: Float64[Tensor, "*n"],
    noisier: Float64[Tensor, "*n"] | None = None,
) -> Pair:
    """The pair kernel of times t > s (any two, neighbours or not).

    `noisier`: the grid's time before t. At s = 0 the variance floor is the β̃ of the pair (noisier, t), as
    improved-diffusion clips it."""
    sigma_t, sigma_s = schedule.sigma(t), schedule.sigma(s)
    # β = σ_t² (1 − e^{γ_s − γ_t}): no difference of nearly equal numbers (Kingma et al. 2021, eq. 33).
    forgotten = -torch.expm1(schedule.gamma(s) - schedule.gamma(t))
    beta, beta_tilde = sigma_t**2 * forgotten, sigma_s**2 * forgotten
    log_floor = beta_tilde.log()
    if noisier is not None:
        floor = -(sigma_t**2) * torch.expm1(schedule.gamma(t) - schedule.gamma(noisier))
        log_floor = torch.where(s == 0, floor.log(), log_floor)
    return Pair(schedule.alpha(t), sigma_t, schedule.alpha(s), sigma_s, beta, beta_tilde, log_floor)


def posterior_mean(
    pair: Pair, x0: Float[Tensor, "n c h w"], eps: Float[Tensor, "n c h w"], eta: float = 1.0
) -> Float[Tensor, "n c h w"]:
    """The mean of q_η(x_s | x_t, x_0), x_t being given by (x_0, ε). η = 1 is the posterior's μ̃, η = 0 DDIM's step."""
    toward_eps = (pair.sigma_s**2 - eta**2 * pair.beta_tilde).clamp(min=0).sqrt()
    return over_image(pair.alpha_s, x0) * x0 + over_image(toward_eps, x0) * eps


def gaussian_kl(
    mean_difference: Float[Tensor, "n ..."], log_p: Float[Tensor, "..."], log_q: Float[Tensor, "..."]
) -> Float[Tensor, "n ..."]:
    """KL(N(m, p) ‖ N(m + d, q)) in nats, element by element, from d and the logarithms of the variances p and q."""
    ratio = log_p - log_q
    return 0.5 * (torch.expm1(ratio) - ratio + mean_difference**2 * torch.exp(-log_q))


def gaussian_nll(difference: Float[Tensor, "n ..."], log_variance: Float[Tensor, "..."]) -> Float[Tensor, "n ..."]:
    """−log N(m + d; m, v), the density, in nats, element by element, from d and log v."""
    return 0.5 * (difference**2 * torch.exp(-log_variance) + log_variance + math.log(2 * math.pi))


def discretized_nll(
    x0: Float[Tensor, "n ..."],
    mean: Float[Tensor, "n ..."],
    log_variance: Float[Tensor, "..."],
    data_range: tuple[float, float] = (-1.0, 1.0),
    levels: int = 256,
) -> Float[Tensor, "n ..."]:
    """−log of the probability, in nats, that a Gaussian rounded to the `levels` evenly spaced values of `data_range` is
    x_0: the mass of x_0's bin, the outermost bins reaching to infinity (Ho et al. 2020, eq. 13). Element by element."""
    low, high = data_range
    half = (high - low) / (levels - 1) / 2
    scale = torch.exp(-0.5 * log_variance)
    upper, lower = (x0 - mean + half) * scale, (x0 - mean - half) * scale
    # Mirrored so that both ends lie in the lower tail, where differences of log Φ keep their digits.
    mirrored = upper + lower > 0
    upper, lower = torch.where(mirrored, -lower, upper), torch.where(mirrored, -upper, lower)
    at_low, at_high = x0 < low + half, x0 > high - half
    upper = torch.where((at_high & ~mirrored) | (at_low & mirrored), torch.inf, upper)
    lower = torch.where((at_low & ~mirrored) | (at_high & mirrored), -torch.inf, lower)
    log_upper = torch.special.log_ndtr(upper)
    log_lower = torch.special.log_ndtr(torch.where(lower == -torch.inf, upper - 1.0, lower))
    # log(Φ(u) − Φ(l)) = log Φ(u) + log(1 − e^{log Φ(l) − log Φ(u)}); below the type's resolution, density × width.
    gap = (log_lower - log_upper).clamp(max=-torch.finfo(x0.dtype).tiny)
    inside = log_upper + torch.log(-torch.expm1(gap))
    return -torch.where(lower == -torch.inf, log_upper, inside)


def levels_nll(
    x0: Float[Tensor, "n ..."],
    eps: Float[Tensor, "n ..."],
    gamma: Float64[Tensor, ""],
    data_range: tuple[float, float] = (-1.0, 1.0),
    levels: int = 256,
) -> Float[Tensor, "n ..."]:
    """−log p(x_0 | x_t) in nats, element by element, where p(x | x_t) ∝ q(x_t | x) over the `levels` evenly spaced
    values x of `data_range`, of which x_0 are some (Kingma et al. 2021, eq. 12). x_t is given by (x_0, ε) and γ(t).

    With s = σ/α in levels, the level j above x_0 has q(x_t | x)/q(x_t | x_0) = exp(jε/s − j²/2s²). Of all j those are
    summed that lie near enough to sε, where x_t/α is, to change the sum."""
    low, high = data_range
    width = (high - low) / (levels - 1)
    spread = torch.exp(gamma / 2) / width
    reach = min(levels - 1, math.ceil(math.sqrt(-2 * math.log(torch.finfo(x0.dtype).eps)) * float(spread.detach())))
    s = spread.to(x0.dtype).to(x0.device)
    at = ((x0 - low) / width).round()
    nearest = torch.minimum(torch.maximum((s.detach() * eps).round(), -at), levels - 1 - at)
    found = []
    for offset in range(-reach, reach + 1):
        j = nearest + offset
        u = j / s
        there = (at + j >= 0) & (at + j < levels)
        found.append(torch.where(there, u * (eps - u / 2), -torch.inf))
    return torch.stack(found).logsumexp(0)
