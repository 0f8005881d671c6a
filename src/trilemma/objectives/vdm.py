"""The bound of variational diffusion models, which a schedule is learned by (Kingma et al. 2021)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge
from jaxtyping import Float, Float64
from torch import Tensor

from trilemma.errors import InputError
from trilemma.objectives.losses import Losses
from trilemma.objectives.variational import bits, bound_term, prior_term, read_nll
from trilemma.process import Condition, Denoiser, Draw, Schedule, Times, over_image, perturb
from trilemma.registry import register


@register("objective", "vdm")
@dataclass(frozen=True, kw_only=True)
class VariationalDiffusion:
    """The bound on −log₂ p(x_0) in bits/dim, estimated at one time an image, under any continuous schedule; its ends
    and its inside, where they are learned (Kingma et al. 2021, eq. 11; C 1). Its parts add up to it: `prior`, what of
    x_T is not noise; `diffusion`; and `reconstruction`, −log₂ p(x_0 | x_{t_min}) of the levels nearest to x_{t_min}.

    `steps` None: in continuous time, ½ γ'(t) ‖ε − ε̂‖² (eq. 17). A number K: the bound of K even steps, K times the KL
    of the pair of times around t (eq. 13). Even is in t where the schedule is learned, else in γ (see `between`)."""

    variances: ClassVar = ("fixed_small",)
    learns_schedule: ClassVar = True
    uniform_mean: ClassVar = True

    steps: Annotated[int, Ge(1)] | None = None

    def check(self, schedule: Schedule) -> None:
        if schedule.steps is not None:
            raise InputError(
                f"objective vdm: schedule {schedule!r} is a table, expected a continuous one, such as vdm or vp (of a "
                "table the bound is objective vlb)"
            )

    def __call__(
        self, denoiser: Denoiser, x0: Float[Tensor, "n c h w"], condition: Condition, times: Times, draw: Draw
    ) -> Losses:
        schedule, eps, least = denoiser.schedule, draw.normal(x0), draw.normal(x0)
        self.check(schedule)
        with schedule.learning() as told:
            parts = {
                "prior": prior_term(schedule, x0, torch.tensor(schedule.T, dtype=torch.float64)),
                "diffusion": self.diffusion(denoiser, x0, eps, condition, times.t),
                "reconstruction": bits(read_nll(denoiser, x0, least, schedule.ends()[0])),
            }
        told(parts["diffusion"] * over_image(times.weight, parts["diffusion"]))
        return Losses(torch.stack(list(parts.values())).sum(0), parts)

    def diffusion(
        self,
        denoiser: Denoiser,
        x0: Float[Tensor, "n c h w"],
        eps: Float[Tensor, "n c h w"],
        condition: Condition,
        drawn: Float64[Tensor, "n"],
    ) -> Float[Tensor, "n"]:
        """The diffusion term in bits/dim; its mean over `drawn`, uniform in (0, T], is that of t_min to T."""
        schedule, share = denoiser.schedule, drawn / denoiser.schedule.T
        if self.steps is None:
            t, rate = between(schedule, share)
            prediction = denoiser(perturb(schedule, x0, t, eps), t, condition)
            error = bits((eps - prediction.eps).square())
            return over_image(0.5 * rate, error) * error
        upper = (share * self.steps).ceil().clamp(1, self.steps)
        (t, _), (s, _) = (between(schedule, place / self.steps) for place in (upper, upper - 1))
        prediction = denoiser(perturb(schedule, x0, t, eps), t, condition)
        return self.steps * bound_term(denoiser, x0, eps, prediction, t, s)


def between(schedule: Schedule, share: Float64[Tensor, "n"]) -> tuple[Float64[Tensor, "n"], Float64[Tensor, "n"]]:
    """The times at these shares, in [0, 1], of the way from t_min to T, and dγ/dshare there. The way is even in t where
    the schedule is learned, which makes that the way to go; in γ elsewhere, or a schedule such as EDM's would be looked
    at where next to nothing happens."""
    if schedule.learned:
        length = schedule.T - schedule.t_min
        start, end = share.new_tensor([schedule.t_min, schedule.T])
        t = torch.lerp(start, end, share)
        return t, length * schedule.slope(t)
    first, last = schedule.ends()
    t = schedule.time_of(torch.lerp(first, last, share)).clamp(schedule.t_min, schedule.T)
    return t, (last - first).expand_as(t)
