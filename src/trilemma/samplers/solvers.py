"""Solvers of the probability-flow ODE and of its SDE, as kernels over pairs of times.

In x̄ = x/α and σ̄ = σ/α the ODE is dx̄/dσ̄ = ε̂ (B; Song et al. 2021, eq. 14), whatever the schedule. With λ = log(α/σ)
= −γ/2 and h = λ_s − λ_t its exact solution is x_s = (σ_s/σ_t) x_t + σ_s ∫ e^λ x̂_0 dλ, which the exponential
integrators (DPM-Solver++, UniPC) expand. The last step, to clean data, is h = ∞: there all of them return x̂_0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from annotated_types import Ge, Le
from jaxtyping import Float, Float64
from torch import Tensor
from typing_extensions import Doc

from trilemma.process import BoundDenoiser, Draw, Schedule, over_image
from trilemma.registry import register
from trilemma.samplers.kernels import Images, Kernel, Time


def _noise_ratio(schedule: Schedule, t: Float64[Tensor, ""]) -> Float64[Tensor, ""]:
    """σ̄ = σ/α."""
    return torch.exp(schedule.gamma(t) / 2)


@register("sampler", "probability_flow")
@dataclass(frozen=True, kw_only=True)
class ProbabilityFlow(Kernel):
    """Song's form of the probability-flow ODE: an Euler step in σ̄² (B; Song et al. 2021, eq. 15). DDIM's is Euler in
    σ̄: the same ODE, other steps."""

    needs_signal: ClassVar[bool] = True

    @property
    def label(self) -> str:
        return "Probability flow"

    def step(
        self, denoiser: BoundDenoiser, x_t: Images, t: Time, s: Time, state: Any, draw: Draw
    ) -> tuple[Images, Any]:
        schedule = denoiser.schedule
        at_t, at_s = _noise_ratio(schedule, t), _noise_ratio(schedule, s)
        eps = self.predict(denoiser, x_t, t).eps
        change = 0.5 * (at_s**2 - at_t**2) / at_t
        alpha_s = schedule.alpha(s)
        return over_image(alpha_s / schedule.alpha(t), x_t) * x_t + over_image(alpha_s * change, x_t) * eps, state


@register("sampler", "heun")
@dataclass(frozen=True, kw_only=True)
class Heun(Kernel):
    """Heun's method in σ̄ (Karras et al. 2022, algorithm 1): an Euler step, then the mean of the slopes at both ends.
    Two evaluations an interval, one for the last, to clean data, where no slope exists."""

    needs_signal: ClassVar[bool] = True

    def step(
        self, denoiser: BoundDenoiser, x_t: Images, t: Time, s: Time, state: Any, draw: Draw
    ) -> tuple[Images, Any]:
        schedule = denoiser.schedule
        alpha_s = schedule.alpha(s)
        scale = over_image(alpha_s / schedule.alpha(t), x_t)
        change = over_image(alpha_s * (_noise_ratio(schedule, s) - _noise_ratio(schedule, t)), x_t)
        slope = self.predict(denoiser, x_t, t).eps
        x_s = scale * x_t + change * slope
        if s == 0:
            return x_s, state
        return scale * x_t + change * (slope + self.predict(denoiser, x_s, s).eps) / 2, state

    def asks(self, schedule: Schedule, grid: Float64[Tensor, "k1"]) -> Float64[Tensor, "m"]:
        return torch.cat([grid[:-1], grid[1:-1]])


@dataclass(frozen=True)
class Past:
    """A multistep solver's history: λ and x̂_0 of the last evaluations, newest first, and the x it last stepped
    from."""

    lambdas: tuple[Float64[Tensor, ""], ...]
    x0s: tuple[Float[Tensor, "n c h w"], ...]
    x: Float[Tensor, "n c h w"]
    t: Float64[Tensor, ""]


@register("sampler", "dpmpp")
@dataclass(frozen=True, kw_only=True)
class DPMSolver(Kernel):
    """DPM-Solver++, multistep, data prediction (Lu et al. 2022, algorithm 2): `order` 1 (DDIM) or 2 (2M). `stochastic`
    is its SDE form, SDE-DPM-Solver++ (their eq. 19), with the noise of the reverse SDE."""

    needs_signal: ClassVar[bool] = True

    order: Annotated[int, Ge(1), Le(2), Doc("Its order.")] = 2
    stochastic: Annotated[bool, Doc("Its SDE form.")] = False

    @property
    def label(self) -> str:
        return "SDE-DPM-Solver++" if self.stochastic else "DPM-Solver++"

    def step(
        self, denoiser: BoundDenoiser, x_t: Images, t: Time, s: Time, state: Past | None, draw: Draw
    ) -> tuple[Images, Past]:
        schedule = denoiser.schedule
        x0 = self.predict(denoiser, x_t, t).x0
        at_t = -schedule.gamma(t) / 2
        past = Past((at_t,), (x0,), x_t, t)
        if s == 0:
            return over_image(schedule.alpha(s), x0) * x0, past
        h = -schedule.gamma(s) / 2 - at_t
        data = x0
        if self.order == 2 and state is not None:
            ratio = (at_t - state.lambdas[0]) / h
            data = x0 + over_image(1 / (2 * ratio), x0) * (x0 - state.x0s[0])
        alpha_s, sigma_s, sigma_t = schedule.alpha(s), schedule.sigma(s), schedule.sigma(t)
        if not self.stochastic:
            keep, take = sigma_s / sigma_t, -alpha_s * torch.expm1(-h)
            return over_image(keep, x_t) * x_t + over_image(take, x_t) * data, past
        keep, take = sigma_s / sigma_t * torch.exp(-h), -alpha_s * torch.expm1(-2 * h)
        noise = over_image(sigma_s * (-torch.expm1(-2 * h)).sqrt(), x_t) * draw.normal(x_t)
        return over_image(keep, x_t) * x_t + over_image(take, x_t) * data + noise, past


@register("sampler", "unipc")
@dataclass(frozen=True, kw_only=True)
class UniPC(Kernel):
    """UniPC, data prediction, B(h) = e^{−h} − 1 (Zhao et al. 2023, algorithms 5 and 6, B_2): a multistep predictor of
    this `order`, and a corrector that takes up the evaluation at the predicted point, so that it costs none of its
    own."""

    needs_signal: ClassVar[bool] = True

    order: Annotated[int, Ge(1), Le(3), Doc("Its order.")] = 2

    def step(
        self, denoiser: BoundDenoiser, x_t: Images, t: Time, s: Time, state: Past | None, draw: Draw
    ) -> tuple[Images, Past]:
        schedule = denoiser.schedule
        x0, at_t = self.predict(denoiser, x_t, t).x0, -schedule.gamma(t) / 2
        if state is not None:
            x_t = self._advance(schedule, state, t, corrector=x0)
        lambdas = (at_t, *(state.lambdas if state else ()))[: self.order]
        x0s = (x0, *(state.x0s if state else ()))[: self.order]
        past = Past(lambdas, x0s, x_t, t)
        if s == 0:
            return over_image(schedule.alpha(s), x0) * x0, past
        return self._advance(schedule, past, s, corrector=None), past

    def _advance(
        self, schedule: Schedule, past: Past, s: Float64[Tensor, ""], corrector: Float[Tensor, "n c h w"] | None
    ) -> Float[Tensor, "n c h w"]:
        """x_s from past.x: by the history alone, or corrected by x̂_0 at s."""
        x, newest = past.x, past.x0s[0]
        h = -schedule.gamma(s) / 2 - past.lambdas[0]
        ratios = [(value - past.lambdas[0]) / h for value in past.lambdas[1:]]
        slopes = [(x0 - newest) / over_image(r, x) for x0, r in zip(past.x0s[1:], ratios, strict=True)]
        if corrector is not None:
            ratios.append(torch.ones_like(h))
            slopes.append(corrector - newest)
        growth = torch.expm1(-h)
        alpha_s = schedule.alpha(s)
        x_s = over_image(schedule.sigma(s) / schedule.sigma(past.t), x) * x - over_image(alpha_s * growth, x) * newest
        for weight, slope in zip(_weights(ratios, h), slopes, strict=True):
            x_s = x_s - over_image(alpha_s * growth * weight, x) * slope
        return x_s


def _weights(ratios: list[Float64[Tensor, ""]], h: Float64[Tensor, ""]) -> list[Float64[Tensor, ""]]:
    """The weights a_k that make Σ a_k r_k^{j−1}, j = 1…, match the solution's expansion (Zhao et al. 2023, theorem
    3.1): the Vandermonde system whose right side is j! φ_{j+1}(−h)/φ_1(−h). With one slope that is not at s, and with
    the corrector's alone, ½ instead, as their appendix F has it: of the same order, and steadier."""
    if not ratios:
        return []
    if len(ratios) == 1:
        return [torch.full_like(h, 0.5)]
    right, phi, factorial = [], torch.expm1(-h) / -h - 1, 1.0
    for j in range(1, len(ratios) + 1):
        right.append(phi * factorial / torch.expm1(-h))
        factorial *= j + 1
        phi = phi / -h - 1 / factorial
    matrix = torch.stack([torch.stack(ratios) ** j for j in range(len(ratios))])
    return list(torch.linalg.solve(matrix, torch.stack(right)))
