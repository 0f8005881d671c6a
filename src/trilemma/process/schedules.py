"""How much signal and noise there is at time t.

The forward process is q(x_t | x_0) = N(α(t) x_0, σ(t)² I), and γ(t) = log σ(t)² − log α(t)² = −log SNR(t).

**The one convention of time.** A time t is a float64 in [0, T]: 0 is clean data (α = 1, σ = 0, γ = −∞), T the noisiest.
A tabulated schedule of T steps has its table at the integers 0…T, so t = k means "after k noising steps"; between them
γ is interpolated linearly (below t = 1, where γ starts from −∞, σ²/α² is). Times and everything computed from them stay
float64 on the CPU until they meet an image, so no accuracy is lost in differences of nearly equal numbers and no
accelerator is waited for. What the network is fed is `network_time(t)`: here t − 1, the index that Ho et al.'s,
improved-diffusion's and diffusers' networks are trained on, so that a checkpoint means the same t.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Annotated, Any

import torch
from annotated_types import Ge, Gt, Le, Lt
from jaxtyping import Float64
from torch import Tensor, nn

from trilemma.errors import InputError
from trilemma.parts import Described
from trilemma.registry import preset, register, registry


class Schedule(Described, ABC):
    """α, σ and γ as functions of time. `T`: the noisiest time; `steps`: the tabulated steps, None if continuous;
    `t_min`: the cleanest time a solver should visit before clean data."""

    T: float
    steps: int | None
    t_min: float

    rate: float = 1.0
    """Of a learned one, the learning rate of its parameters over the network's."""

    def groups(self) -> list[list[nn.Parameter]]:
        """The parameters of a learned one, which is a module then, in groups that are clipped each by itself."""
        return []

    @property
    def learned(self) -> bool:
        """Whether it has parameters, which an objective has to train."""
        return bool(self.groups())

    def learning(self) -> AbstractContextManager[Callable[[Tensor], Any]]:
        """Within it what a learned schedule computes has gradients; see `VDM`. What it gives is told the losses."""
        return nullcontext(lambda losses: None)

    @abstractmethod
    def gamma(self, t: Float64[Tensor, "*n"]) -> Float64[Tensor, "*n"]:
        """γ(t) = −log SNR(t), from −∞ (clean) upwards, strictly increasing in t."""

    @abstractmethod
    def time_of(self, gamma: Float64[Tensor, "*n"]) -> Float64[Tensor, "*n"]:
        """The time at which γ has this value: the inverse of `gamma` between t_min and T."""

    def slope(self, t: Float64[Tensor, "*n"]) -> Float64[Tensor, "*n"]:
        """dγ/dt, for t > 0. Raises InputError for a schedule that is not continuous."""
        raise InputError(f"schedule {self!r} has no dγ/dt: expected a continuous one, such as vdm or vp")

    def ends(self) -> tuple[Float64[Tensor, ""], Float64[Tensor, ""]]:
        """γ at t_min and at T."""
        first, last = self.gamma(torch.tensor([self.t_min, self.T], dtype=torch.float64))
        return first, last

    def alpha(self, t: Float64[Tensor, "*n"]) -> Float64[Tensor, "*n"]:
        """Signal level α(t) in [0, 1]; variance preserving: α² = sigmoid(−γ)."""
        return torch.sigmoid(-self.gamma(t)).sqrt()

    def sigma(self, t: Float64[Tensor, "*n"]) -> Float64[Tensor, "*n"]:
        """Noise level σ(t) ≥ 0; variance preserving: σ² = sigmoid(γ)."""
        return torch.sigmoid(self.gamma(t)).sqrt()

    def prior_std(self, t: float) -> float:
        """The spread of the noise that a walk which begins at time t starts from, in place of x_t: 1 where variance is
        preserved."""
        return 1.0

    def network_time(self, t: Float64[Tensor, "*n"]) -> Float64[Tensor, "*n"]:
        """What the network is told of the time."""
        return t

    def terminal_snr(self) -> float:
        """SNR(T) = α(T)²/σ(T)²: how much signal the noisiest x_T still carries."""
        return math.exp(-self.gamma(torch.tensor(self.T, dtype=torch.float64)).item())

    def prior_bits_per_dim(self, second_moment: float = 1.0) -> float:
        """L_T = KL(q(x_T | x_0) ‖ N(0, p² I)) in bits per dimension, p = `prior_std`, for data whose pixels have
        E[x²] = `second_moment`: ½ ((α² E[x²] + σ²)/p² − 1 − log σ²/p²) / log 2. What a start from pure noise pretends
        away (Ho et al. 2020, eq. 5)."""
        T = torch.tensor(self.T, dtype=torch.float64)
        alpha2, sigma2 = self.alpha(T).item() ** 2, self.sigma(T).item() ** 2
        p2 = self.prior_std(self.T) ** 2
        return 0.5 * ((alpha2 * second_moment + sigma2) / p2 - 1.0 - math.log(sigma2 / p2)) / math.log(2.0)

    def check(self, t: Float64[Tensor, "*n"]) -> None:
        """Raise InputError for a time outside [0, T]."""
        if not bool(((t >= 0) & (t <= self.T)).all()):
            raise InputError(f"time {t.flatten().tolist()[:4]} lies outside [0, {self.T:g}]")


class Tabulated(Schedule):
    """A discrete schedule given by β_1…β_T (float64): ᾱ_t = Π_{s≤t} (1 − β_s), α(t)² = ᾱ_t, σ(t)² = 1 − ᾱ_t, ᾱ_0 = 1.

    `terminal_snr` rescales it to end at that SNR, 0 allowed: √ᾱ is shifted and stretched so that √ᾱ_1 stays and √ᾱ_T is
    what was asked for (Lin et al. 2024, algorithm 1, which asks for 0). `network_steps`: the network is told the time
    as if the table had so many steps, (t − 1) · network_steps/T (improved-diffusion tells it of 1 000)."""

    t_min = 1.0

    def __init__(
        self, betas: Float64[Tensor, "T"], terminal_snr: float | None = None, network_steps: int | None = None
    ):
        betas = betas.double()
        if betas.dim() != 1 or not len(betas) or not bool(((betas > 0) & (betas < 1)).all()):
            got = f"{betas.min():.3g} to {betas.max():.3g}" if betas.numel() else "none"
            raise InputError(f"schedule: every β must lie in (0, 1), got {got}")
        self.steps = len(betas)
        self.T = float(self.steps)
        self.time_scale = (network_steps or self.steps) / self.steps
        log_alpha_bar = torch.log1p(-betas).cumsum(0)
        if terminal_snr is not None:
            log_alpha_bar = _rescaled(log_alpha_bar, terminal_snr)
        log_alpha_bar = torch.cat([betas.new_zeros(1), log_alpha_bar])
        self.alpha_bar = log_alpha_bar.exp()
        self._gamma = torch.log(-torch.expm1(log_alpha_bar)) - log_alpha_bar

    def gamma(self, t: Float64[Tensor, "*n"]) -> Float64[Tensor, "*n"]:
        self.check(t)
        lower = t.floor().clamp(max=self.T - 1).long()
        fraction = t - lower
        left, right = self._gamma[lower], self._gamma[lower + 1]
        # The first interval starts at γ = −∞, where a straight line in γ does not exist: there σ²/α² grows linearly.
        # So does the last where it ends at γ = ∞, at SNR 0: there the SNR falls linearly.
        inside = torch.where(lower == 0, right + torch.log(fraction), torch.lerp(left, right, fraction))
        inside = torch.where(torch.isinf(right), left - torch.log1p(-fraction), inside)
        return torch.where(fraction == 0, left, torch.where(fraction == 1, right, inside))

    def time_of(self, gamma: Float64[Tensor, "*n"]) -> Float64[Tensor, "*n"]:
        table = self._gamma[1:]
        upper = torch.searchsorted(table, gamma.contiguous()).clamp(1, max(len(table) - 1, 1))
        if len(table) == 1:
            return torch.ones_like(gamma)
        left, right = table[upper - 1], table[upper]
        fraction = torch.where(torch.isinf(right), -torch.expm1(left - gamma), (gamma - left) / (right - left))
        return (upper + fraction).clamp(1.0, self.T)

    def network_time(self, t: Float64[Tensor, "*n"]) -> Float64[Tensor, "*n"]:
        return (t - 1.0) * self.time_scale


def _rescaled(log_alpha_bar: Float64[Tensor, "T"], terminal_snr: float) -> Float64[Tensor, "T"]:
    if len(log_alpha_bar) < 2:
        raise InputError("schedule.terminal_snr: a schedule of one step has nothing to rescale")
    root, wanted = (log_alpha_bar / 2).exp(), math.sqrt(terminal_snr / (1 + terminal_snr))
    if wanted >= root[0]:
        raise InputError(f"schedule.terminal_snr {terminal_snr:g} is more than the SNR after the first step")
    scaled = wanted + (root - root[-1]) * (root[0] - wanted) / (root[0] - root[-1])
    return 2 * scaled.log()


TerminalSNR = Annotated[float, Ge(0)] | None
NetworkSteps = Annotated[int, Ge(1)] | None


@register("schedule", "linear")
class Linear(Tabulated):
    """β rises linearly from `beta_start` to `beta_end` over `steps` (Ho et al. 2020, section 4; A 2.1)."""

    def __init__(
        self,
        *,
        steps: Annotated[int, Ge(1), Le(1_000_000)] = 1000,
        beta_start: Annotated[float, Gt(0), Lt(1)] = 1e-4,
        beta_end: Annotated[float, Gt(0), Lt(1)] = 0.02,
        terminal_snr: TerminalSNR = None,
        network_steps: NetworkSteps = None,
    ):
        super().__init__(torch.linspace(beta_start, beta_end, steps, dtype=torch.float64), terminal_snr, network_steps)


@register("schedule", "scaled_linear")
class ScaledLinear(Tabulated):
    """√β rises linearly from √`beta_start` to √`beta_end` (Rombach et al. 2022; their latents' schedule)."""

    def __init__(
        self,
        *,
        steps: Annotated[int, Ge(1), Le(1_000_000)] = 1000,
        beta_start: Annotated[float, Gt(0), Lt(1)] = 0.0015,
        beta_end: Annotated[float, Gt(0), Lt(1)] = 0.0195,
        terminal_snr: TerminalSNR = None,
        network_steps: NetworkSteps = None,
    ):
        roots = torch.linspace(math.sqrt(beta_start), math.sqrt(beta_end), steps, dtype=torch.float64)
        super().__init__(roots**2, terminal_snr, network_steps)


@register("schedule", "cosine")
class Cosine(Tabulated):
    """ᾱ_t = f(t)/f(0), f(t) = cos²(((t/T + s)/(1 + s)) π/2), with β ≤ `max_beta` (Nichol & Dhariwal 2021, eq. 17)."""

    def __init__(
        self,
        *,
        steps: Annotated[int, Ge(1), Le(1_000_000)] = 1000,
        s: Annotated[float, Ge(0), Lt(1)] = 0.008,
        max_beta: Annotated[float, Gt(0), Le(0.9999)] = 0.999,
        terminal_snr: TerminalSNR = None,
        network_steps: NetworkSteps = None,
    ):
        t = torch.arange(steps + 1, dtype=torch.float64) / steps
        f = torch.cos((t + s) / (1 + s) * math.pi / 2) ** 2
        super().__init__((1 - f[1:] / f[:-1]).clamp(max=max_beta), terminal_snr, network_steps)


@register("schedule", "ddgan")
class DDGAN(Tabulated):
    """The variance-preserving SDE's schedule in `steps` large steps, β_t = 1 − exp(−β_min/T − (β_max − β_min)
    (2t − 1)/(2T²)) (Xiao et al. 2022, appendix B.1): between them so much is forgotten that p(x_{t−1} | x_t) is no
    Gaussian."""

    def __init__(
        self,
        *,
        steps: Annotated[int, Ge(1), Le(8)] = 4,
        beta_min: Annotated[float, Gt(0)] = 0.1,
        beta_max: Annotated[float, Gt(0)] = 20.0,
    ):
        t = torch.arange(1, steps + 1, dtype=torch.float64)
        rate = beta_min / steps + (beta_max - beta_min) * (2 * t - 1) / (2 * steps**2)
        super().__init__(-torch.expm1(-rate))


class Prior(Schedule):
    """One step, from nothing but noise to clean data: the walk of a generator of latents alone. Between the two,
    α² = 1 − t."""

    T, steps, t_min = 1.0, 1, 1.0

    def gamma(self, t: Float64[Tensor, "*n"]) -> Float64[Tensor, "*n"]:
        self.check(t)
        return torch.logit(t)

    def time_of(self, gamma: Float64[Tensor, "*n"]) -> Float64[Tensor, "*n"]:
        return torch.sigmoid(gamma)


SCHEDULES = registry("schedule")

# The sources' own by name, each one of the above with these arguments.
preset("schedule", "linear-100", "linear", steps=100, beta_start=4e-4, beta_end=0.18)  # A 4.3
preset("schedule", "linear-200", "linear", steps=200, beta_start=1e-4, beta_end=0.02)  # E 3.1
preset("schedule", "linear-4000", "linear", steps=4000, beta_start=2.5e-5, beta_end=0.005)  # B: β scaled by 1000/T
preset("schedule", "cosine-4000", "cosine", steps=4000)  # B
