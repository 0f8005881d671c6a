"""A denoiser turns (x_t, t, condition) into a `Prediction`: a network, a schedule and a parameterisation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor, nn

from trilemma.errors import InputError, unknown
from trilemma.process.gaussian import Pair, over_image
from trilemma.process.parameterization import PARAMETERIZATIONS, Coefficients
from trilemma.process.schedules import Schedule

Variance = Literal["fixed_small", "fixed_large"]
VARIANCES: dict[str, Callable[[Pair], Float64[Tensor, "*n"]]] = {
    "fixed_small": lambda pair: pair.beta_tilde,
    "fixed_large": lambda pair: pair.beta,
}


@dataclass(frozen=True)
class Condition:
    """What the images are conditioned on. `label`: the class of each image, int64 in [0, classes), or None."""

    label: Int64[Tensor, "n"] | None = None

    def to(self, device: torch.device | str) -> Condition:
        return replace(self, **{name: value.to(device) for name, value in self.given().items()})

    def __getitem__(self, index: slice | Tensor) -> Condition:
        return replace(self, **{name: value[index] for name, value in self.given().items()})

    def given(self) -> dict[str, Tensor]:
        """The conditions that are there, by the name under which the network takes them."""
        present = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in present.items() if value is not None}


UNCONDITIONAL = Condition()


@dataclass(frozen=True)
class Prediction:
    """What the denoiser says of x_t: x̂_0 and ε̂, tied by x_t = α x̂_0 + σ ε̂, and the raw output F they come from."""

    x0: Float[Tensor, "n c h w"]
    eps: Float[Tensor, "n c h w"]
    output: Float[Tensor, "n c h w"] | None = None


class Denoiser(nn.Module):
    """A network seen through a parameterisation, with the variance its reverse process has.

    The network is called as `network(c_in · x_t, network_time [n], **condition)` and returns F, shaped like x_t.
    `variance` names Σ of p(x_s | x_t): fixed_small is β̃, fixed_large β (Ho et al. 2020, section 3.2), of any pair.
    Raises InputError for unknown names and for ε-prediction under a schedule whose terminal SNR is zero, where x_T says
    nothing of x_0 and dividing by α(T) = 0 would.
    """

    def __init__(
        self, network: nn.Module, schedule: Schedule, parameterization: str = "epsilon", variance: str = "fixed_large"
    ):
        super().__init__()
        if parameterization not in PARAMETERIZATIONS:
            raise unknown("parameterization", parameterization, PARAMETERIZATIONS)
        if variance not in VARIANCES:
            raise unknown("variance", variance, VARIANCES)
        if parameterization == "epsilon" and schedule.terminal_snr() == 0.0:
            raise InputError("parameterization 'epsilon' is undefined at zero terminal SNR: use 'v' or 'x0'")
        self.network, self.schedule = network, schedule
        self.parameterization, self.variance_name = parameterization, variance

    def coefficients(self, t: Float64[Tensor, "*n"]) -> Coefficients:
        return PARAMETERIZATIONS[self.parameterization](self.schedule.alpha(t), self.schedule.sigma(t))

    def forward(
        self, x_t: Float[Tensor, "n c h w"], t: Float64[Tensor, "*n"], condition: Condition = UNCONDITIONAL
    ) -> Prediction:
        """Denoise x_t, all of it at one time t or each image at its own (t > 0, float64, on the CPU)."""
        c = self.coefficients(t)
        time = self.schedule.network_time(t).to(torch.float32).to(x_t.device).expand(len(x_t))
        output = self.network(over_image(c.c_in, x_t) * x_t, time, **condition.given()).to(x_t.dtype)
        return Prediction(
            x0=over_image(c.c_skip, x_t) * x_t + over_image(c.c_out, x_t) * output,
            eps=over_image(c.e_skip, x_t) * x_t + over_image(c.e_out, x_t) * output,
            output=output,
        )

    def target(
        self, x0: Float[Tensor, "n c h w"], eps: Float[Tensor, "n c h w"], t: Float64[Tensor, "*n"]
    ) -> Float[Tensor, "n c h w"]:
        """The output F that would be right for x_t = α x_0 + σ ε."""
        c = self.coefficients(t)
        return over_image(c.target_x0, x0) * x0 + over_image(c.target_eps, x0) * eps

    def variance(self, prediction: Prediction, pair: Pair) -> Float64[Tensor, "..."]:
        """Σ of p(x_s | x_t) for this pair of times, a number (or one an image) for fixed variances."""
        return VARIANCES[self.variance_name](pair)

    def bind(self, condition: Condition) -> BoundDenoiser:
        """This denoiser with its condition given, as samplers take it."""
        return BoundDenoiser(self, condition)


@dataclass(frozen=True)
class BoundDenoiser:
    """A denoiser whose condition is given: what a sampler calls, `denoiser(x_t, t) -> Prediction`."""

    denoiser: Denoiser
    condition: Condition = UNCONDITIONAL

    @property
    def schedule(self) -> Schedule:
        return self.denoiser.schedule

    def __call__(self, x_t: Float[Tensor, "n c h w"], t: Float64[Tensor, "*n"]) -> Prediction:
        return self.denoiser(x_t, t, self.condition)

    def variance(self, prediction: Prediction, pair: Pair) -> Any:
        return self.denoiser.variance(prediction, pair)
