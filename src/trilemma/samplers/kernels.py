"""Kernels: one step from x_t to x_s for any pair of times t > s.

    step(denoiser, x_t, t, s, state, draw) -> (x_s, state)

`denoiser(x_t, t)` gives the `Prediction`, `draw` is the only source of noise, `state` the history of a multistep solver
(None at the start and for kernels that need none). The kernels here are DDPM's and DDIM's; `solvers` has the others.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar

import torch
from annotated_types import Ge, Gt, Le
from jaxtyping import Float, Float64
from torch import Tensor

from trilemma.process import BoundDenoiser, Draw, Prediction, Schedule, over_image, pair, posterior_mean
from trilemma.registry import register

Images = Float[Tensor, "n c h w"]
Time = Float64[Tensor, ""]


@dataclass(frozen=True)
class Clip:
    """Holds x̂_0 in the range `low` to `high`. With `quantile` < 1 the range is each image's own: where that quantile
    of |x̂_0|, from the range's middle, lies outside, x̂_0 is cut there and scaled back into the range, so that bright
    pixels do not saturate (dynamic thresholding, Saharia et al. 2022, section 2.3)."""

    low: float = -1.0
    high: float = 1.0
    quantile: Annotated[float, Gt(0), Le(1)] = 1.0

    def __call__(self, x0: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        if self.quantile == 1.0:
            return x0.clamp(self.low, self.high)
        middle, half = (self.low + self.high) / 2, (self.high - self.low) / 2
        scaled = (x0 - middle) / half
        limit = torch.quantile(scaled.abs().flatten(1).float(), self.quantile, dim=1).clamp(min=1.0)
        limit = limit.to(x0.dtype)[:, None, None, None]
        return middle + half * scaled.clamp(-limit, limit) / limit


def clipped(
    prediction: Prediction,
    clip: Clip | None,
    schedule: Schedule,
    x_t: Float[Tensor, "n c h w"],
    t: Float64[Tensor, ""],
) -> Prediction:
    """The prediction with x̂_0 held in range and ε̂ derived from it again, so that both still belong to the same x_t
    (improved-diffusion does so; clipping x̂_0 alone would leave them at odds)."""
    if clip is None:
        return prediction
    x0 = clip(prediction.x0)
    eps = (x_t - over_image(schedule.alpha(t), x_t) * x0) / over_image(schedule.sigma(t), x_t)
    return replace(prediction, x0=x0, eps=eps)


@dataclass(frozen=True, kw_only=True)
class Kernel(ABC):
    """What all kernels share: `clip`, what x̂_0 is held in (None: it is not held)."""

    needs_signal: ClassVar[bool] = False
    """Whether a step from a time without any signal (SNR 0) is undefined."""

    clip: Clip | None = Clip()

    @abstractmethod
    def step(
        self, denoiser: BoundDenoiser, x_t: Images, t: Time, s: Time, state: Any, draw: Draw
    ) -> tuple[Images, Any]:
        """x_s from x_t."""

    def evaluations(self, intervals: int) -> int:
        """Network evaluations that a walk over so many intervals to clean data takes."""
        return intervals

    def predict(self, denoiser: BoundDenoiser, x_t: Float[Tensor, "n c h w"], t: Float64[Tensor, ""]) -> Prediction:
        """The denoiser's prediction, clipped."""
        return clipped(denoiser(x_t, t), self.clip, denoiser.schedule, x_t, t)


@register("sampler", "ancestral")
@dataclass(frozen=True, kw_only=True)
class Ancestral(Kernel):
    """DDPM's sampler over any pair of times: the posterior's mean, and the variance that the denoiser's reverse process
    has (Ho et al. 2020, algorithm 2). The step to clean data adds no noise, as the algorithm has it."""

    def step(
        self, denoiser: BoundDenoiser, x_t: Images, t: Time, s: Time, state: Any, draw: Draw
    ) -> tuple[Images, Any]:
        kernel, prediction = pair(denoiser.schedule, t, s), self.predict(denoiser, x_t, t)
        mean = posterior_mean(kernel, prediction.x0, prediction.eps)
        if s == 0:
            return mean, state
        deviation = torch.exp(0.5 * denoiser.log_variance(prediction, kernel))
        return mean + deviation * draw.normal(x_t), state


@register("sampler", "ddim")
@dataclass(frozen=True, kw_only=True)
class DDIM(Kernel):
    """DDIM (Song et al. 2021, eq. 12 and 16): η = 0 is deterministic, an Euler step of the probability-flow ODE in
    σ/α; η = 1 has the posterior's variance β̃."""

    eta: Annotated[float, Ge(0), Le(1)] = 0.0

    def step(
        self, denoiser: BoundDenoiser, x_t: Images, t: Time, s: Time, state: Any, draw: Draw
    ) -> tuple[Images, Any]:
        kernel, prediction = pair(denoiser.schedule, t, s), self.predict(denoiser, x_t, t)
        mean = posterior_mean(kernel, prediction.x0, prediction.eps, self.eta)
        if self.eta == 0 or s == 0:
            return mean, state
        return mean + over_image(self.eta * kernel.beta_tilde.sqrt(), x_t) * draw.normal(x_t), state
