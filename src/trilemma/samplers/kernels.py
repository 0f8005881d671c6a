"""Kernels: one step from x_t to x_s for any pair of times t > s.

    step(denoiser, x_t, t, s, state, draw) -> (x_s, state)

`denoiser(x_t, t)` gives the `Prediction`, `draw` is the only source of noise, `state` the history of a multistep solver
(None at the start and for kernels that need none).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from annotated_types import Ge
from jaxtyping import Float, Float64
from torch import Tensor

from trilemma.process import BoundDenoiser, Draw, Pair, Prediction, over_image, pair, posterior_mean

Range = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Kernel(ABC):
    """What all kernels share: `clip`, the range that x̂_0 is held in (None: not held)."""

    evaluations: ClassVar[int] = 1
    clip: Range | None = (-1.0, 1.0)

    @abstractmethod
    def step(
        self,
        denoiser: BoundDenoiser,
        x_t: Float[Tensor, "n c h w"],
        t: Float64[Tensor, ""],
        s: Float64[Tensor, ""],
        state: Any,
        draw: Draw,
    ) -> tuple[Float[Tensor, "n c h w"], Any]:
        """x_s from x_t."""

    def predict(
        self, denoiser: BoundDenoiser, x_t: Float[Tensor, "n c h w"], t: Float64[Tensor, ""], kernel: Pair
    ) -> Prediction:
        """The denoiser's prediction; with clipping, x̂_0 is held in range and ε̂ derived from it again, so that both
        still belong to the same x_t (improved-diffusion does so; clipping x̂_0 alone would leave them at odds)."""
        prediction = denoiser(x_t, t)
        if self.clip is None:
            return prediction
        x0 = prediction.x0.clamp(*self.clip)
        eps = (x_t - over_image(kernel.alpha_t, x_t) * x0) / over_image(kernel.sigma_t, x_t)
        return Prediction(x0, eps)


@dataclass(frozen=True, kw_only=True)
class Ancestral(Kernel):
    """DDPM's sampler (Ho et al. 2020, algorithm 2) over any pair of times: the posterior's mean, and the variance that
    the denoiser's reverse process has. The step to clean data adds no noise, as the algorithm has it (z = 0 at t =
    1)."""

    def step(
        self,
        denoiser: BoundDenoiser,
        x_t: Float[Tensor, "n c h w"],
        t: Float64[Tensor, ""],
        s: Float64[Tensor, ""],
        state: Any,
        draw: Draw,
    ) -> tuple[Float[Tensor, "n c h w"], Any]:
        kernel = pair(denoiser.schedule, t, s)
        prediction = self.predict(denoiser, x_t, t, kernel)
        mean = posterior_mean(kernel, prediction.x0, prediction.eps)
        if s == 0:
            return mean, state
        deviation = over_image(denoiser.variance(prediction, kernel).sqrt(), x_t)
        return mean + deviation * draw.normal(x_t), state


@dataclass(frozen=True, kw_only=True)
class DDIM(Kernel):
    """DDIM (Song et al. 2021, eq. 12 and 16): η = 0 is deterministic, η = 1 has the posterior's variance β̃."""

    eta: Annotated[float, Ge(0)] = 0.0

    def step(
        self,
        denoiser: BoundDenoiser,
        x_t: Float[Tensor, "n c h w"],
        t: Float64[Tensor, ""],
        s: Float64[Tensor, ""],
        state: Any,
        draw: Draw,
    ) -> tuple[Float[Tensor, "n c h w"], Any]:
        kernel = pair(denoiser.schedule, t, s)
        prediction = self.predict(denoiser, x_t, t, kernel)
        mean = posterior_mean(kernel, prediction.x0, prediction.eps, self.eta)
        if self.eta == 0 or s == 0:
            return mean, state
        return mean + over_image(self.eta * kernel.beta_tilde.sqrt(), x_t) * draw.normal(x_t), state


SAMPLERS: dict[str, type[Kernel]] = {"ancestral": Ancestral, "ddim": DDIM}
