"""L_simple: the mean squared error of the network's output."""

from __future__ import annotations

from typing import Protocol

from jaxtyping import Float
from torch import Tensor

from trilemma.objectives.losses import Losses
from trilemma.process import Condition, Denoiser, Draw, Times, perturb


class Objective(Protocol):
    """(denoiser, x0, condition, times, draw) -> one loss an image. `draw` is the images' own noise."""

    def __call__(
        self, denoiser: Denoiser, x0: Float[Tensor, "n c h w"], condition: Condition, times: Times, draw: Draw
    ) -> Losses: ...


class Simple:
    """‖F* − F(x_t)‖², the mean over pixels, F* being the output that would be right: for ε-prediction Ho et al.'s
    L_simple (eq. 14; A eq. 6), for x0- and v-prediction the same with their targets."""

    def __call__(
        self, denoiser: Denoiser, x0: Float[Tensor, "n c h w"], condition: Condition, times: Times, draw: Draw
    ) -> Losses:
        eps = draw.normal(x0)
        prediction = denoiser(perturb(denoiser.schedule, x0, times.t, eps), times.t, condition)
        assert prediction.output is not None
        loss = (denoiser.target(x0, eps, times.t) - prediction.output).square().flatten(1).mean(1)
        return Losses(loss, {"simple": loss})


OBJECTIVES: dict[str, type[Objective]] = {"simple": Simple}
