"""Kernels: one step from x_t to x_s for any pair of times t > s.

    step(denoiser, x_t, t, s, state, draw) -> (x_s, state)

`denoiser(x_t, t)` gives the `Prediction`, `draw` is the only source of noise, `state` the history of a multistep solver
(None at the start and for kernels that need none). The kernels here are DDPM's and DDIM's; `solvers` has the others.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any, ClassVar, Literal

import torch
from annotated_types import Ge, Le
from jaxtyping import Float, Float64
from torch import Tensor
from typing_extensions import Doc

from trilemma.process import BoundDenoiser, Denoiser, Draw, Prediction, Schedule, over_image, pair, posterior_mean
from trilemma.registry import register

Images = Float[Tensor, "n c h w"]
Time = Float64[Tensor, ""]
Clipping = Literal["static", "dynamic", "none"]


DYNAMIC_QUANTILE = 0.995
"""The quantile of |x̂_0| of dynamic thresholding (Saharia et al. 2022)."""


def clipped(
    x0: Float[Tensor, "n c h w"], low_high: tuple[float, float] = (-1.0, 1.0), quantile: float = 1.0
) -> Float[Tensor, "n c h w"]:
    """x̂_0 held in the range. With `quantile` < 1 the range is each image's own: where that quantile of |x̂_0|, from the
    range's middle, lies outside, x̂_0 is cut there and scaled back into the range, so that bright pixels do not saturate
    (dynamic thresholding, Saharia et al. 2022, section 2.3)."""
    low, high = low_high
    if quantile == 1.0:
        return x0.clamp(low, high)
    middle, half = (low + high) / 2, (high - low) / 2
    scaled = (x0 - middle) / half
    limit = torch.quantile(scaled.abs().flatten(1).float(), quantile, dim=1).clamp(min=1.0)
    limit = limit.to(x0.dtype)[:, None, None, None]
    return middle + half * scaled.clamp(-limit, limit) / limit


def held(
    prediction: Prediction,
    clip: Clipping,
    denoiser: Denoiser | BoundDenoiser,
    x_t: Float[Tensor, "n c h w"],
    t: Float64[Tensor, ""],
) -> Prediction:
    """The prediction with x̂_0 held in the data's range (static), in each image's own (dynamic), or left (none), as it
    is where latents are diffused, which have no range; ε̂ is
    derived from it again, so that both still belong to the same x_t (improved-diffusion does so; clipping x̂_0 alone
    would leave them at odds)."""
    if clip == "none" or not math.isfinite(denoiser.bounds[1]):
        return prediction
    x0 = clipped(prediction.x0, denoiser.bounds, DYNAMIC_QUANTILE if clip == "dynamic" else 1.0)
    schedule = denoiser.schedule
    eps = (x_t - over_image(schedule.alpha(t), x_t) * x0) / over_image(schedule.sigma(t), x_t)
    return replace(prediction, x0=x0, eps=eps)


@dataclass(frozen=True, kw_only=True)
class Kernel(ABC):
    """A way to step, with its arguments: those of a recipe's sampling section and of the command line are read off its
    fields. What all kernels share is `clip`."""

    needs_signal: ClassVar[bool] = False
    """Whether a step from a time without any signal (SNR 0) is undefined."""

    draws: ClassVar[bool] = False
    """Whether x_s is drawn from q(x_s | x_t, x̂_0), in which an x̂_0 that was itself drawn is as good as a mean."""

    clip: Annotated[
        Clipping,
        Doc("Hold x̂_0 in the data's range (static), in each image's own (dynamic), or not (none)."),
    ] = "static"

    @property
    def label(self) -> str:
        """What tables and figures call it, with the flags that are set among its arguments."""
        return ", ".join([type(self).__name__, *(name for name, value in self.particulars().items() if value is True)])

    def particulars(self) -> dict[str, Any]:
        """Its arguments that are not their defaults."""
        return {field.name: value for field in fields(self) if (value := getattr(self, field.name)) != field.default}

    @abstractmethod
    def step(
        self, denoiser: BoundDenoiser, x_t: Images, t: Time, s: Time, state: Any, draw: Draw
    ) -> tuple[Images, Any]:
        """x_s from x_t."""

    def asks(self, schedule: Schedule, grid: Float64[Tensor, "k1"]) -> Float64[Tensor, "m"]:
        """The times at which a walk over this grid to clean data asks the denoiser, an evaluation each."""
        return grid[:-1]

    def predict(self, denoiser: BoundDenoiser, x_t: Float[Tensor, "n c h w"], t: Float64[Tensor, ""]) -> Prediction:
        """The denoiser's prediction, with what a classifier adds taken in, and then `clip`: near pure noise the score
        form divides by α, where a classifier's gradient is not as small as the true one's."""
        schedule = denoiser.schedule
        guided = denoiser(x_t, t).scored(schedule.alpha(t), schedule.sigma(t))
        return held(guided, self.clip, denoiser, x_t, t)


@register("sampler", "ancestral")
@dataclass(frozen=True, kw_only=True)
class Ancestral(Kernel):
    """DDPM's sampler over any pair of times: the posterior's mean, and the variance that the denoiser's reverse process
    has (Ho et al. 2020, algorithm 2). The step to clean data adds no noise, as the algorithm has it. What a classifier
    adds shifts the mean by Σ times it (Dhariwal & Nichol 2021, algorithm 1). The state is the time of the step before,
    from which Σ of the step to clean data has its floor."""

    draws: ClassVar = True

    def step(
        self, denoiser: BoundDenoiser, x_t: Images, t: Time, s: Time, state: Time | None, draw: Draw
    ) -> tuple[Images, Time]:
        kernel = pair(denoiser.schedule, t, s, noisier=state)
        prediction = held(denoiser(x_t, t), self.clip, denoiser, x_t, t)
        mean = posterior_mean(kernel, prediction.x0, prediction.eps)
        if s == 0 and prediction.gradient is None:
            return mean, t
        log_variance = denoiser.log_variance(prediction, kernel)
        if prediction.gradient is not None:
            mean = mean + torch.exp(log_variance) * prediction.gradient
        return mean if s == 0 else mean + torch.exp(0.5 * log_variance) * draw.normal(x_t), t


@register("sampler", "ddim")
@dataclass(frozen=True, kw_only=True)
class DDIM(Kernel):
    """DDIM (Song et al. 2021, eq. 12 and 16): η = 0 is deterministic, an Euler step of the probability-flow ODE in
    σ/α; η = 1 has the posterior's variance β̃."""

    eta: Annotated[float, Ge(0), Le(1), Doc("η: 0 is deterministic, 1 has the posterior's variance.")] = 0.0

    def step(
        self, denoiser: BoundDenoiser, x_t: Images, t: Time, s: Time, state: Any, draw: Draw
    ) -> tuple[Images, Any]:
        kernel, prediction = pair(denoiser.schedule, t, s), self.predict(denoiser, x_t, t)
        mean = posterior_mean(kernel, prediction.x0, prediction.eps, self.eta)
        if self.eta == 0 or s == 0:
            return mean, state
        return mean + over_image(self.eta * kernel.beta_tilde.sqrt(), x_t) * draw.normal(x_t), state
