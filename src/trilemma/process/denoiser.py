"""A denoiser turns (x_t, t, condition) into a `Prediction`: a network, a schedule and a parameterisation."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64, UInt8
from torch import Tensor, nn

from trilemma.errors import InputError, unknown
from trilemma.process.calling import Call, latent_of
from trilemma.process.codec import Codec
from trilemma.process.gaussian import Pair, over_image
from trilemma.process.noise import Draw
from trilemma.process.parameterization import PARAMETERIZATIONS, Coefficients, Parameterization
from trilemma.process.pixels import to_model, to_uint8
from trilemma.process.schedules import Schedule

Variance = Literal["fixed_small", "fixed_large", "learned_range"]
VARIANCES: tuple[Variance, ...] = get_args(Variance)
FIXED: tuple[Variance, ...] = ("fixed_small", "fixed_large")

DECODED = 2**14
"""Positions of latents that are decoded at once, over all images: sixteen latents of 32×32."""


@dataclass(frozen=True)
class Condition:
    """What the images are conditioned on, each part None where it is not given. `label`: the class of each image, int64
    in [0, classes). `low`: what an upsampler starts from, each image at a lower resolution, in the data's range.
    `low_time`: the time that it is noised to, as the network is told times. `latent`: of a denoiser that draws its x̂_0,
    what it makes it from, standard normal."""

    label: Int64[Tensor, "n"] | None = None
    low: Float[Tensor, "n c h2 w2"] | None = None
    low_time: Float[Tensor, "n"] | None = None
    latent: Float[Tensor, "n d"] | None = None

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
    """What the denoiser says of x_t: x̂_0 and ε̂, tied by x_t = α x̂_0 + σ ε̂, and the raw output F they come from.

    `variance`: where the reverse variance is learned, the network's v of every pixel, in [0, 1] if it keeps to its
    range: 0 means β̃, 1 means β. `gradient`: what a classifier adds to the score, s ∇ log p(y | x_t), which is not in
    x̂_0 and ε̂ yet: a kernel that knows its Σ shifts its mean by Σ times it, any other takes `scored`."""

    x0: Float[Tensor, "n c h w"]
    eps: Float[Tensor, "n c h w"]
    output: Float[Tensor, "n c h w"] | None = None
    variance: Float[Tensor, "n c h w"] | None = None
    gradient: Float[Tensor, "n c h w"] | None = None

    def scored(self, alpha: Float64[Tensor, "*n"], sigma: Float64[Tensor, "*n"]) -> Prediction:
        """With the gradient taken into both, the score form: ε̂ − σ g and x̂_0 + σ²/α g (Dhariwal & Nichol 2021, eq. 14).
        Undefined without signal, where no guide leaves one."""
        if self.gradient is None:
            return self
        shift = over_image(sigma, self.gradient) * self.gradient
        x0 = self.x0 + over_image(sigma / alpha, shift) * shift
        return replace(self, x0=x0, eps=self.eps - shift, gradient=None)


class Denoiser(nn.Module):
    """A network seen through a parameterisation, with the variance its reverse process has.

    The network is any module that is given c_in · x_t and the time that the schedule tells it, [n] in float32, and
    returns F, shaped like x_t; a class too, if it takes one (see `Call`).
    `variance` names Σ of p(x_s | x_t), for any pair of times: fixed_small is β̃, fixed_large β (Ho et al. 2020, section
    3.2), learned_range Σ = exp(v log β + (1 − v) log β̃) with v = (out + 1)/2 from as many channels again (Nichol &
    Dhariwal 2021, eq. 15). `data_range`: the numbers that black and white are.
    `no_class`: the label under which the network is told no class, if it was trained with label dropout. `codec`:
    between images and what is diffused, images themselves unless given.

    A network whose attribute `latent` is a number d > 0 draws its x̂_0: it makes it from x_t and a latent of d standard
    normal numbers, which p(x_s | x_t) is a mixture over (Xiao et al. 2022, eq. 5); or, being a generator (see `Call`),
    from the latent alone.
    Raises InputError for unknown names, for a network that takes no time or gives another shape, and for a
    parameterisation that is undefined under the schedule, as ε-prediction at zero terminal SNR, where x_T says nothing
    of x_0 and dividing by α(T) = 0 would.
    """

    def __init__(
        self,
        network: nn.Module,
        schedule: Schedule,
        parameterization: str | Parameterization = "epsilon",
        variance: str = "fixed_large",
        data_range: tuple[float, float] = (-1.0, 1.0),
        no_class: int | None = None,
        codec: Codec | None = None,
    ):
        super().__init__()
        coefficients: Parameterization
        if isinstance(parameterization, str):
            if parameterization not in PARAMETERIZATIONS:
                raise unknown("parameterization", parameterization, PARAMETERIZATIONS)
            coefficients = PARAMETERIZATIONS[parameterization]()
        else:
            coefficients = parameterization
        if variance not in VARIANCES:
            raise unknown("variance", variance, VARIANCES)
        self.network, self.schedule, self.call = network, schedule, Call.of(network)
        self.parameterization, self.variance_name, self.data_range = coefficients, variance, data_range
        self.no_class, self.codec = no_class, codec if codec is not None else Codec()
        self.latent = latent_of(network)
        noisiest = self.coefficients(torch.tensor(schedule.T, dtype=torch.float64))
        if not all(torch.isfinite(getattr(noisiest, field.name)) for field in fields(noisiest)):
            name = type(coefficients).__name__
            raise InputError(
                f"parameterization {name!r} is undefined at zero terminal SNR, where the schedule ends: use 'v' or 'x0'"
            )

    def __repr__(self) -> str:
        count = sum(parameter.numel() for parameter in self.network.parameters())
        network = f"{type(self.network).__name__} of {count:,} parameters"
        return f"Denoiser({network}, {self.schedule!r}, {self.parameterization!r}, {self.variance_name!r})"

    @property
    def bounds(self) -> tuple[float, float]:
        """The numbers that what is diffused lies between: the data's range, as the codec scales it; latents have
        none."""
        low, high = self.data_range
        if not self.codec.identity:
            return -math.inf, math.inf
        return low * self.codec.scale, high * self.codec.scale

    @torch.no_grad()
    def encoded(self, images: UInt8[np.ndarray, "n h w c"]) -> Float[Tensor, "n c h w"]:
        """What is diffused of these images: themselves in the data's range, or the means of their latents. Where the
        network is."""
        first = next(self.network.parameters(), torch.zeros(()))
        return self.codec.moments(to_model(images, self.data_range).to(first.device))[0]

    @torch.no_grad()
    def decoded(self, x: Float[Tensor, "n c h w"]) -> UInt8[np.ndarray, "n h w c"]:
        """The images of what is diffused; of latents so many at once as a decoder's widest layers have room for."""
        parts = x.split(len(x) if self.codec.identity else max(1, DECODED // x[0, 0].numel()))
        return np.concatenate([to_uint8(self.codec.decode(part), self.data_range) for part in parts])

    def coefficients(self, t: Float64[Tensor, "*n"]) -> Coefficients:
        """The parameterisation's coefficients at these times."""
        return self.parameterization(self.schedule.alpha(t), self.schedule.sigma(t))

    def forward(
        self, x_t: Float[Tensor, "n c h w"], t: Float64[Tensor, "*n"], condition: Condition = UNCONDITIONAL
    ) -> Prediction:
        """Denoise x_t, all of it at one time t or each image at its own (t > 0, float64, on the CPU)."""
        c = self.coefficients(t)
        time = self.schedule.network_time(t).to(torch.float32).to(x_t.device).expand(len(x_t))
        output = self._output(over_image(c.c_in, x_t) * x_t, time, condition).to(x_t.dtype)
        variance = None
        if self.variance_name == "learned_range":
            output, variance = output.chunk(2, dim=1)
            variance = (variance + 1) / 2
        return Prediction(
            x0=over_image(c.c_skip, x_t) * x_t + over_image(c.c_out, x_t) * output,
            eps=over_image(c.e_skip, x_t) * x_t + over_image(c.e_out, x_t) * output,
            output=output,
            variance=variance,
        )

    def _output(self, x: Float[Tensor, "n c h w"], time: Float[Tensor, "n"], condition: Condition) -> Tensor:
        if self.call.needs_label and condition.label is None:
            raise InputError(f"network {type(self.network).__name__} takes a class ({self.call.label}): none is given")
        if condition.latent is None:
            self.check_stated()
        output = self.call(self.network, x, time, condition.given())
        learned = self.variance_name == "learned_range"
        expected = (len(x), x.shape[1] * (2 if learned else 1), *x.shape[2:])
        found = tuple(getattr(output, "shape", ()))
        if found != expected:
            what = f"gave {list(found)}" if found else f"gave a {type(output).__name__}"
            why = ", the image's channels twice over for variance learned_range" if learned else ", as the images"
            raise InputError(f"network {type(self.network).__name__} {what}, expected {list(expected)}{why}")
        return output

    def target(
        self, x0: Float[Tensor, "n c h w"], eps: Float[Tensor, "n c h w"], t: Float64[Tensor, "*n"]
    ) -> Float[Tensor, "n c h w"]:
        """The output F that would be right for x_t = α x_0 + σ ε."""
        c = self.coefficients(t)
        return over_image(c.target_x0, x0) * x0 + over_image(c.target_eps, x0) * eps

    def log_variance(self, prediction: Prediction, pair: Pair) -> Float[Tensor, "..."]:
        """log Σ of p(x_s | x_t) for this pair of times, in the type and rank of the images: a number, one an image, or
        one a pixel where it is learned."""
        x = prediction.x0
        if self.variance_name == "fixed_small":
            return over_image(pair.log_beta_tilde, x)
        if self.variance_name == "fixed_large":
            # The decoder's is the floor, β̃_2, not β_1: Ho et al.'s code and Nichol & Dhariwal's have it so.
            decodes = (pair.beta_tilde == 0) & torch.isfinite(pair.log_beta_tilde)
            return over_image(torch.where(decodes, pair.log_beta_tilde, pair.beta.log()), x)
        assert prediction.variance is not None
        # Without a floor there is nothing to interpolate from: v − 1 > 0 of −∞ would be ∞.
        floor = torch.where(torch.isfinite(pair.log_beta_tilde), pair.log_beta_tilde, pair.beta.log())
        low, high = over_image(floor, x), over_image(pair.beta.log(), x)
        return prediction.variance * high + (1 - prediction.variance) * low

    def over(self, network: nn.Module) -> Denoiser:
        """This denoiser seen over another network, such as the same one compiled."""
        return Denoiser(
            network, self.schedule, self.parameterization, self.variance_name, self.data_range, self.no_class,
            self.codec,
        )  # fmt: skip

    def check_stated(self) -> None:
        """Raises InputError for a denoiser that draws its x̂_0, where its mean is asked for."""
        if self.latent:
            raise InputError(
                f"network {type(self.network).__name__} draws its x̂_0 from a latent: it has no one prediction of x_t, "
                "which likelihoods, encodings and ODE samplers rest on; the ancestral sampler can be had"
            )

    def bind(self, condition: Condition, draw: Draw | None = None) -> BoundDenoiser:
        """This denoiser with its condition given, as samplers take it."""
        return BoundDenoiser(self, condition, draw)


@dataclass(frozen=True)
class BoundDenoiser:
    """A denoiser whose condition is given: what a sampler calls, `denoiser(x_t, t) -> Prediction`. `draw`: where a
    denoiser that draws its x̂_0 has its latents from, new ones at each call."""

    denoiser: Denoiser
    condition: Condition = UNCONDITIONAL
    draw: Draw | None = None

    @property
    def schedule(self) -> Schedule:
        return self.denoiser.schedule

    @property
    def bounds(self) -> tuple[float, float]:
        return self.denoiser.bounds

    def __call__(self, x_t: Float[Tensor, "n c h w"], t: Float64[Tensor, "*n"]) -> Prediction:
        if not self.denoiser.latent or self.draw is None:
            return self.denoiser(x_t, t, self.condition)
        latent = self.draw.normal(x_t.new_empty(len(x_t), self.denoiser.latent))
        return self.denoiser(x_t, t, replace(self.condition, latent=latent))

    def log_variance(self, prediction: Prediction, pair: Pair) -> Float[Tensor, "..."]:
        return self.denoiser.log_variance(prediction, pair)
