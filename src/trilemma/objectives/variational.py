"""The variational bound, L_vlb, and L_hybrid = L_simple + λ L_vlb."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge
from jaxtyping import Float, Float64
from torch import Tensor

from trilemma.errors import InputError
from trilemma.objectives.losses import Losses
from trilemma.objectives.simple import output_error
from trilemma.process import (
    VARIANCES,
    Condition,
    Denoiser,
    Draw,
    Prediction,
    Schedule,
    Times,
    discretized_nll,
    gaussian_kl,
    gaussian_nll,
    levels_nll,
    over_image,
    pair,
    posterior_mean,
)
from trilemma.registry import register


def bound_term(
    denoiser: Denoiser,
    x0: Float[Tensor, "n c h w"],
    eps: Float[Tensor, "n c h w"],
    prediction: Prediction,
    t: Float64[Tensor, "*n"],
    s: Float64[Tensor, "*n"],
    noisier: Float64[Tensor, "*n"] | None = None,
) -> Float[Tensor, "n"]:
    """The bound's term of the pair t > s in bits/dim, one an image: KL(q(x_s | x_t, x_0) ‖ p(x_s | x_t)), and for s = 0
    −log p(x_0 | x_t): of the discretised Gaussian decoder (A eq. 3–5), or, under a continuous schedule, of the levels
    nearest to x_t. x_t is given by (x_0, ε); `noisier` is the grid's time before t, whose β̃ is the variance floor at
    s = 0."""
    schedule, to_data = denoiser.schedule, s == 0
    if schedule.steps is None and bool(to_data.all()):
        return bits(read_nll(denoiser, x0, eps, schedule.gamma(t)))
    kernel = pair(schedule, t, s, noisier)
    log_variance = denoiser.log_variance(prediction, kernel)
    mean = posterior_mean(kernel, prediction.x0, prediction.eps)
    difference = mean - posterior_mean(kernel, x0, eps)
    if not bool(to_data.any()):
        return bits(gaussian_kl(difference, over_image(kernel.beta_tilde.log(), x0), log_variance))
    decoded = over_image(to_data.to(torch.float64), x0) > 0
    # Where s = 0 the posterior is a point: its log-variance, −∞, is kept out of the KL that `where` drops there.
    log_posterior = torch.where(decoded, log_variance.detach(), over_image(kernel.beta_tilde.log(), x0))
    kl = gaussian_kl(difference, log_posterior, log_variance)
    return bits(torch.where(decoded, data_nll(denoiser, x0, mean, log_variance), kl))


def data_nll(
    denoiser: Denoiser, x0: Float[Tensor, "n c h w"], mean: Float[Tensor, "n c h w"], log_variance: Float[Tensor, "..."]
) -> Float[Tensor, "n c h w"]:
    """−log p(x_0) in nats under a Gaussian, pixel by pixel: of its level, or of latents, which have none, the
    density."""
    if denoiser.codec.identity:
        return discretized_nll(x0, mean, log_variance, denoiser.bounds)
    return gaussian_nll(x0 - mean, log_variance)


def read_nll(
    denoiser: Denoiser, x0: Float[Tensor, "n c h w"], eps: Float[Tensor, "n c h w"], gamma: Float64[Tensor, "*n"]
) -> Float[Tensor, "n c h w"]:
    """−log p(x_0 | x_t) in nats where x_0 is read off x_t/α = x_0 + e^{γ/2} ε: of the levels nearest to it, or of
    latents the density."""
    if denoiser.codec.identity:
        return levels_nll(x0, eps, gamma, denoiser.bounds)
    return gaussian_nll(over_image((gamma / 2).exp(), eps) * eps, over_image(gamma, eps))


def prior_term(schedule: Schedule, x0: Float[Tensor, "n c h w"], t: Float64[Tensor, ""]) -> Float[Tensor, "n"]:
    """KL(q(x_t | x_0) ‖ N(0, p² I)) in bits/dim, one an image, p being the spread of what a walk starts from at t."""
    sigma2, p2 = schedule.sigma(t) ** 2, schedule.prior_std(float(t)) ** 2
    mean = over_image(schedule.alpha(t), x0) * x0
    return bits(gaussian_kl(mean, over_image(sigma2.log(), x0), over_image(torch.full_like(sigma2, p2).log(), x0)))


def bits(nats: Float[Tensor, "n c h w"]) -> Float[Tensor, "n"]:
    """Nats of each pixel as bits/dim of each image."""
    return nats.flatten(1).mean(1) / math.log(2.0)


class OfTable:
    """An objective of a table's T steps."""

    def check(self, schedule: Schedule) -> None:
        if schedule.steps is None:
            raise InputError(
                "objective: the variational bound of T steps needs a tabulated schedule, such as linear or cosine (of "
                "a continuous one it is objective vdm)"
            )


@register("objective", "vlb")
@dataclass(frozen=True, kw_only=True)
class Variational(OfTable):
    """L_vlb as an estimate from one time an image: T times the term of t, in bits/dim; its mean over uniform t is
    Σ_t L_t, the bound but for the constant L_T (A eq. 3 and 8; Nichol & Dhariwal 2021, section 3.1)."""

    variances: ClassVar = VARIANCES

    def __call__(
        self, denoiser: Denoiser, x0: Float[Tensor, "n c h w"], condition: Condition, times: Times, draw: Draw
    ) -> Losses:
        self.check(denoiser.schedule)
        steps, eps = denoiser.schedule.T, draw.normal(x0)
        _, prediction = output_error(denoiser, x0, condition, times.t, eps)
        noisier = (times.t + 1).clamp(max=denoiser.schedule.T)
        loss = steps * bound_term(denoiser, x0, eps, prediction, times.t, times.t - 1, noisier)
        return Losses(loss, {"vlb": loss})


@register("objective", "hybrid")
@dataclass(frozen=True, kw_only=True)
class Hybrid(OfTable):
    """L_simple + λ L_vlb (A eq. 7), where L_vlb sees the mean as a constant: it trains the variance, L_simple the mean
    (Nichol & Dhariwal 2021, section 3.1)."""

    variances: ClassVar = ("learned_range",)  # its bound has nothing else to teach
    weight: Annotated[float, Ge(0)] = 0.001

    def __call__(
        self, denoiser: Denoiser, x0: Float[Tensor, "n c h w"], condition: Condition, times: Times, draw: Draw
    ) -> Losses:
        self.check(denoiser.schedule)
        steps, eps = denoiser.schedule.T, draw.normal(x0)
        error, prediction = output_error(denoiser, x0, condition, times.t, eps)
        simple = error.flatten(1).mean(1)
        still = replace(prediction, x0=prediction.x0.detach(), eps=prediction.eps.detach())
        noisier = (times.t + 1).clamp(max=denoiser.schedule.T)
        vlb = self.weight * steps * bound_term(denoiser, x0, eps, still, times.t, times.t - 1, noisier)
        return Losses(simple + vlb, {"simple": simple, "vlb": vlb})
