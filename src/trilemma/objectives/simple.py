"""L_simple: the mean squared error of the network's output, and the weightings of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal, Protocol

import torch
from annotated_types import Gt
from jaxtyping import Float, Float64
from torch import Tensor

from trilemma.objectives.losses import Losses
from trilemma.process import Condition, Denoiser, Draw, Prediction, Times, over_image, perturb
from trilemma.registry import register


class Objective(Protocol):
    """(denoiser, x0, condition, times, draw) -> one loss an image. `draw` is the images' own noise. An objective that
    trains a learned variance says so in `variances`, those of the denoiser that it goes with; others go with fixed
    ones. One that trains a learned schedule has `learns_schedule`, true; one that goes with some schedules only has
    `check(schedule)`, which raises InputError for others; one that is wrong unless the times' weights make their mean a
    uniform one has `uniform_mean`, true."""

    def __call__(
        self, denoiser: Denoiser, x0: Float[Tensor, "n c h w"], condition: Condition, times: Times, draw: Draw
    ) -> Losses: ...


def output_error(
    denoiser: Denoiser, x0: Float[Tensor, "n c h w"], condition: Condition, t: Tensor, eps: Float[Tensor, "n c h w"]
) -> tuple[Float[Tensor, "n c h w"], Prediction]:
    """(F* − F(x_t))², pixel by pixel, F* being the output that would be right; and the prediction it is of."""
    prediction = denoiser(perturb(denoiser.schedule, x0, t, eps), t, condition)
    assert prediction.output is not None
    return (denoiser.target(x0, eps, t) - prediction.output).square(), prediction


Weighting = Literal["none", "min_snr", "edm"]


def _min_snr(denoiser: Denoiser, t: Float64[Tensor, "n"], limit: float) -> Float64[Tensor, "n"]:
    """min(SNR, limit) on ‖x_0 − x̂_0‖² (Hang et al. 2023), carried over to the output: times c_out²."""
    return torch.exp(-denoiser.schedule.gamma(t)).clamp(max=limit) * denoiser.coefficients(t).c_out ** 2


def _edm(denoiser: Denoiser, t: Float64[Tensor, "n"], data: float) -> Float64[Tensor, "n"]:
    """(σ² + σ_data²)/(σ σ_data)² = SNR + 1/σ_data² on ‖x_0 − x̂_0‖², σ being the noise over the signal (Karras et al.
    2022, table 1)."""
    return (torch.exp(-denoiser.schedule.gamma(t)) + data**-2) * denoiser.coefficients(t).c_out ** 2


@register("objective", "simple")
@dataclass(frozen=True, kw_only=True)
class Simple:
    """‖F* − F(x_t)‖², the mean over pixels, F* being the output that would be right: for ε-prediction Ho et al.'s
    L_simple (eq. 14; A eq. 6), for other parameterisations the same with their targets.

    `weighting` of the times: none, min_snr (up to `snr_limit`), edm (for data of spread `sigma_data`)."""

    weighting: Weighting = "none"
    snr_limit: Annotated[float, Gt(0)] = 5.0
    sigma_data: Annotated[float, Gt(0)] = 0.5

    def __call__(
        self, denoiser: Denoiser, x0: Float[Tensor, "n c h w"], condition: Condition, times: Times, draw: Draw
    ) -> Losses:
        error, _ = output_error(denoiser, x0, condition, times.t, draw.normal(x0))
        loss = error.flatten(1).mean(1)
        if self.weighting != "none":
            loss = loss * over_image(self._weight(denoiser, times.t), loss)
        return Losses(loss, {"simple": loss})

    def _weight(self, denoiser: Denoiser, t: Float64[Tensor, "n"]) -> Float64[Tensor, "n"]:
        weights: dict[str, Callable[[], Tensor]] = {
            "min_snr": lambda: _min_snr(denoiser, t, self.snr_limit),
            "edm": lambda: _edm(denoiser, t, self.sigma_data),
        }
        return weights[self.weighting]()
