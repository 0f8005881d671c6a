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
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Le, Lt
from jaxtyping import Float64
from torch import Tensor

from trilemma.errors import InputError


class Schedule(ABC):
    """α, σ and γ as functions of time. `T` is the noisiest time; `steps` the number of tabulated steps, None if
    continuous."""

    T: float
    steps: int | None

    @abstractmethod
    def gamma(self, t: Float64[Tensor, "*n"]) -> Float64[Tensor, "*n"]:
        """γ(t) = −log SNR(t), from −∞ (clean) upwards, strictly increasing in t."""

    def alpha(self, t: Float64[Tensor, "*n"]) -> Float64[Tensor, "*n"]:
        """Signal level α(t) in [0, 1]; variance preserving: α² = sigmoid(−γ)."""
        return torch.sigmoid(-self.gamma(t)).sqrt()

    def sigma(self, t: Float64[Tensor, "*n"]) -> Float64[Tensor, "*n"]:
        """Noise level σ(t) ≥ 0; variance preserving: σ² = sigmoid(γ)."""
        return torch.sigmoid(self.gamma(t)).sqrt()

    def network_time(self, t: Float64[Tensor, "*n"]) -> Float64[Tensor, "*n"]:
        """What the network is told of the time."""
        return t

    def terminal_snr(self) -> float:
        """SNR(T) = α(T)²/σ(T)²: how much signal the noisiest x_T still carries."""
        return math.exp(-self.gamma(torch.tensor(self.T, dtype=torch.float64)).item())

    def prior_bits_per_dim(self, second_moment: float = 1.0) -> float:
        """L_T = KL(q(x_T | x_0) ‖ N(0, I)) in bits per dimension, for data whose pixels have E[x²] = `second_moment`:
        ½ (α² E[x²] + σ² − 1 − log σ²) / log 2. What a start from pure noise pretends away (Ho et al. 2020, eq. 5)."""
        T = torch.tensor(self.T, dtype=torch.float64)
        alpha2, sigma2 = self.alpha(T).item() ** 2, self.sigma(T).item() ** 2
        return 0.5 * (alpha2 * second_moment + sigma2 - 1.0 - math.log(sigma2)) / math.log(2.0)


class Tabulated(Schedule):
    """A discrete schedule given by β_1…β_T (float64): ᾱ_t = Π_{s≤t} (1 − β_s), α(t)² = ᾱ_t, σ(t)² = 1 − ᾱ_t, ᾱ_0 =
    1."""

    def __init__(self, betas: Float64[Tensor, "T"]):
        if betas.dim() != 1 or len(betas) == 0 or bool(((betas <= 0) | (betas >= 1)).any()):
            raise InputError(f"schedule: every β must lie in (0, 1), got {betas.min():.3g} to {betas.max():.3g}")
        self.steps = len(betas)
        self.T = float(self.steps)
        log_alpha_bar = torch.cat([betas.new_zeros(1), torch.log1p(-betas).cumsum(0)])
        self.alpha_bar = log_alpha_bar.exp()
        self._gamma = torch.log(-torch.expm1(log_alpha_bar)) - log_alpha_bar

    def gamma(self, t: Float64[Tensor, "*n"]) -> Float64[Tensor, "*n"]:
        if bool(((t < 0) | (t > self.T)).any()):
            raise InputError(f"time {t.flatten().tolist()[:4]} lies outside [0, {self.T:g}]")
        lower = t.floor().clamp(max=self.T - 1).long()
        fraction = t - lower
        left, right = self._gamma[lower], self._gamma[lower + 1]
        # The first interval starts at γ = −∞, where a straight line in γ does not exist: there σ²/α² grows linearly.
        inside = torch.where(lower == 0, right + torch.log(fraction), torch.lerp(left, right, fraction))
        return torch.where(fraction == 0, left, torch.where(fraction == 1, right, inside))

    def network_time(self, t: Float64[Tensor, "*n"]) -> Float64[Tensor, "*n"]:
        return t - 1.0


class Linear(Tabulated):
    """β rises linearly from `beta_start` to `beta_end` over `steps` (Ho et al. 2020, section 4; A 2.1)."""

    def __init__(
        self,
        *,
        steps: Annotated[int, Ge(1)] = 1000,
        beta_start: Annotated[float, Gt(0), Lt(1)] = 1e-4,
        beta_end: Annotated[float, Gt(0), Lt(1)] = 0.02,
    ):
        super().__init__(torch.linspace(beta_start, beta_end, steps, dtype=torch.float64))


class Cosine(Tabulated):
    """ᾱ_t = f(t)/f(0), f(t) = cos²(((t/T + s)/(1 + s)) π/2), with β ≤ `max_beta` (Nichol & Dhariwal 2021, eq. 17)."""

    def __init__(
        self,
        *,
        steps: Annotated[int, Ge(1)] = 1000,
        s: Annotated[float, Ge(0), Lt(1)] = 0.008,
        max_beta: Annotated[float, Gt(0), Le(0.9999)] = 0.999,
    ):
        t = torch.arange(steps + 1, dtype=torch.float64) / steps
        f = torch.cos((t + s) / (1 + s) * math.pi / 2) ** 2
        super().__init__((1 - f[1:] / f[:-1]).clamp(max=max_beta))


SCHEDULES: dict[str, type[Schedule]] = {"linear": Linear, "cosine": Cosine}
