"""Likelihood in bits per dimension: the variational bound term by term, and an estimate of the value itself by the
probability-flow ODE.

Both are of a pixel's 256 levels. The bound of a grid T = t_K > … > t_1 > 0 is L_T + Σ L_t + L_0 (A eq. 3): how much of
x_T is not noise, how far each reverse step is from the posterior, and how well x_{t_1} decodes. As steps grow many the
sum becomes an integral, ½ ∫ γ'(t) E‖ε − ε̂‖² dt from t_min to T (Kingma et al. 2021, eq. 17).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from trilemma.errors import InputError
from trilemma.objectives import between, bits, bound_term, prior_term, read_nll
from trilemma.process import Condition, Denoiser, Draw, Schedule, perturb
from trilemma.samplers import Clipping, held


@dataclass(frozen=True)
class Bound:
    """The bound's terms for n images, in bits/dim: `prior` [n] is L_T; `terms` [n, K] are the L_t of the grid's pairs
    from the noisiest on, the last one L_0; `times` [K] the noisier time of each pair. In continuous time the parts of
    the integral, and the middles of theirs; with the last one t_min."""

    prior: Float64[Tensor, "n"]
    terms: Float64[Tensor, "n k"]
    times: Float64[Tensor, "k"]

    @property
    def total(self) -> Float64[Tensor, "n"]:
        """The bound of each image."""
        return self.prior + self.terms.sum(1)


@torch.inference_mode()
def variational_bound(
    denoiser: Denoiser,
    x0: Float[Tensor, "n c h w"],
    condition: Condition,
    grid: Float64[Tensor, "k1"],
    draw: Draw,
    clip: Clipping = "none",
) -> Bound:
    """One draw of noise an image and term. `grid` ends in 0, and has two steps or more.
    `clip`: how x̂_0 is held in the data's range, static as improved-diffusion's `image_nll` does by default.

    Raises InputError for a denoiser that draws its x̂_0, and for a grid of one step, whose decoder would have no
    variance floor."""
    denoiser.check_stated()
    if len(grid) < 3:
        raise InputError("steps 1: the bound needs 2 or more, its decoder's variance is the second step's")
    schedule = denoiser.schedule
    terms = []
    noisier = grid[0]
    for t, s in pairwise(grid):
        eps = draw.normal(x0)
        x_t = perturb(schedule, x0, t, eps)
        prediction = held(denoiser(x_t, t, condition), clip, denoiser, x_t, t)
        terms.append(bound_term(denoiser, x0, eps, prediction, t, s, noisier).double().cpu())
        noisier = t
    prior = prior_term(schedule, x0.double(), grid[0]).cpu()
    return Bound(prior, torch.stack(terms, 1), grid[:-1])


@torch.inference_mode()
def continuous_bound(
    denoiser: Denoiser,
    x0: Float[Tensor, "n c h w"],
    condition: Condition,
    draws: int,
    draw: Draw,
    clip: Clipping = "none",
) -> Bound:
    """The bound in continuous time, its integral by `draws` times an image, one in each of as many equal parts of the
    way from t_min to T (`between`), with one noise each: without bias, whatever their number. x_{t_min} is decoded to
    the levels nearest to it. `clip` as `variational_bound` has it.

    Raises InputError for a denoiser that draws its x̂_0, and for a schedule that is not continuous."""
    denoiser.check_stated()
    schedule, terms = denoiser.schedule, []
    for k in reversed(range(draws)):
        (t, rate), eps = between(schedule, (k + 1.0 - draw.uniform()) / draws), draw.normal(x0)
        x_t = perturb(schedule, x0, t, eps)
        prediction = held(denoiser(x_t, t, condition), clip, denoiser, x_t, t)
        terms.append(0.5 / draws * rate * bits((eps - prediction.eps).square()).double().cpu())
    decoded = bits(read_nll(denoiser, x0, draw.normal(x0), schedule.ends()[0]))
    prior = prior_term(schedule, x0.double(), torch.tensor(schedule.T, dtype=torch.float64)).cpu()
    middles, _ = between(schedule, (torch.arange(draws, dtype=torch.float64).flip(0) + 0.5) / draws)
    times = torch.cat([middles, middles.new_tensor([schedule.t_min])])
    return Bound(prior, torch.stack([*terms, decoded.double().cpu()], 1), times)


def ode_bits_per_dim(
    denoiser: Denoiser,
    x: Float[Tensor, "n c h w"],
    condition: Condition,
    steps: int,
    draw: Draw | None,
    levels: int = 256,
) -> Float64[Tensor, "n"]:
    """−log₂ p of images by the probability-flow ODE, in bits/dim of their `levels` (Song et al. 2021, section 4.3).

    x are images at the schedule's t_min, uniformly dequantised (see `dequantised`). The ODE dx̄/d log σ̄ = σ̄ ε̂ (x̄ =
    x/α, σ̄ = σ/α) is followed to T in `steps` Runge-Kutta steps of fourth order, even in log σ̄, together with the
    integral of its divergence: by Hutchinson's estimator with `draw`'s noise as probes, or without a draw exactly, at
    as many backward passes as there are pixels. Biased by ODE and network error, not by a bound.

    Raises InputError as `check_flow` does."""
    schedule, low_high = denoiser.schedule, denoiser.bounds
    check_flow(schedule)
    ends = schedule.gamma(torch.tensor([schedule.t_min, schedule.T], dtype=torch.float64)) / 2
    log_noise = torch.linspace(float(ends[0]), float(ends[1]), 2 * steps + 1, dtype=torch.float64)
    times = schedule.time_of(2 * log_noise)
    dims = x[0].numel()
    probes = torch.eye(dims, dtype=x.dtype, device=x.device).reshape(dims, 1, *x.shape[1:])
    probes = probes.expand(dims, *x.shape) if draw is None else draw.normal(x).sign()[None]

    def slope(x_bar: Tensor, index: int) -> tuple[Tensor, Tensor]:
        t, noise = times[index], float(log_noise[index].exp())
        with torch.enable_grad():
            at = x_bar.detach().requires_grad_(True)
            velocity = noise * denoiser(float(schedule.alpha(t)) * at, t, condition).eps
            divergence = torch.zeros(len(x), dtype=torch.float64)
            for i, probe in enumerate(probes):
                (product,) = torch.autograd.grad(velocity, at, probe, retain_graph=i < len(probes) - 1)
                divergence += (product * probe).flatten(1).sum(1).double().cpu()
        return velocity.detach(), divergence

    h = float(log_noise[2] - log_noise[0])
    x_bar = x / float(schedule.alpha(times[0]))
    change = torch.zeros(len(x), dtype=torch.float64)
    for k in range(0, 2 * steps, 2):
        v1, d1 = slope(x_bar, k)
        v2, d2 = slope(x_bar + h / 2 * v1, k + 1)
        v3, d3 = slope(x_bar + h / 2 * v2, k + 1)
        v4, d4 = slope(x_bar + h * v3, k + 2)
        x_bar = x_bar + h / 6 * (v1 + 2 * v2 + 2 * v3 + v4)
        change += h / 6 * (d1 + 2 * d2 + 2 * d3 + d4)
    alpha_T, alpha_0 = float(schedule.alpha(times[-1])), float(schedule.alpha(times[0]))
    spread = schedule.prior_std(schedule.T)
    last = (alpha_T * x_bar / spread).double().flatten(1).cpu()
    log_prior = -0.5 * last.square().sum(1) - dims * (0.5 * math.log(2 * math.pi) + math.log(spread))
    # p is a density of x at t_min: from x̄_T by x_T = α_T x̄_T, along the flow, then back by x = α x̄.
    log_p = log_prior + dims * math.log(alpha_T) + change - dims * math.log(alpha_0)
    width = (low_high[1] - low_high[0]) / (levels - 1)
    return -(log_p / dims + math.log(width)) / math.log(2)


def check_flow(schedule: Schedule) -> None:
    """Raises InputError where the flow has no end: at SNR 0, log σ̄ is infinite."""
    if schedule.terminal_snr() == 0:
        raise InputError(
            "ode: the schedule ends at SNR 0, where the ODE's log(σ/α) is infinite: expected a terminal SNR above 0 "
            "(the bound needs none)"
        )


def dequantised(
    x0: Float[Tensor, "n c h w"], data_range: tuple[float, float], draw: Draw, levels: int = 256
) -> Float[Tensor, "n c h w"]:
    """x_0 moved uniformly within its level's bin, so that it has a density; its expected −log₂ density, per level, is
    at least the −log₂ probability of the level (Theis et al. 2016)."""
    width = (data_range[1] - data_range[0]) / (levels - 1)
    uniform = torch.special.ndtr(draw.normal(x0))
    return x0 + (uniform - 0.5) * width
