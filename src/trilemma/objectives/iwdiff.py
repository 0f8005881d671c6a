"""IWDiff: several noises an image at one time, weighted by how badly they are predicted (A 3.1, algorithm 3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt, Le
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from trilemma.errors import InputError
from trilemma.objectives.losses import Losses
from trilemma.objectives.simple import output_error
from trilemma.process import Condition, Denoiser, Draw, Times
from trilemma.registry import register


@register("objective", "iwdiff")
@dataclass(frozen=True, kw_only=True)
class IWDiff:
    """Σ_i w_i l_i over `k` noises of one image at one time, l_i = ‖F* − F(x_t,i)‖² (for ε-prediction ‖ε_i − ε_θ‖²), the
    weights constants in the gradient. k = 1 is L_simple with the same draws.

    `weighting`: `printed` is algorithm 3's softmax(l), where the larger loss gets the larger weight; `iwae` is what its
    eq. 14 gives, softmax(−c l), `c` = ½ being that of a unit Gaussian on ε. `exponent`: whether the l of the exponent
    is a sum or a mean over pixels; the loss itself is a mean, like L_simple's. `accumulate`: hold one noise's
    activations at a time: each forward pass is made again, dropout replayed, when its gradient is taken. Same gradient;
    networks with batch normalisation, whose statistics would be taken twice, are refused."""

    k: Annotated[int, Ge(1), Le(10_000)] = 2
    weighting: Literal["printed", "iwae"] = "printed"
    exponent: Literal["sum", "mean"] = "sum"
    c: Annotated[float, Gt(0)] = 0.5
    accumulate: bool = False

    def __call__(
        self, denoiser: Denoiser, x0: Float[Tensor, "n c h w"], condition: Condition, times: Times, draw: Draw
    ) -> Losses:
        def loss(eps: Float[Tensor, "n c h w"]) -> Float[Tensor, "n"]:
            return output_error(denoiser, x0, condition, times.t, eps)[0].flatten(1).mean(1)

        if self.accumulate:
            _refuse_batch_norm(denoiser.network)
        each = [
            checkpoint(loss, eps, use_reentrant=False) if self.accumulate else loss(eps)
            for eps in (draw.normal(x0) for _ in range(self.k))
        ]
        losses = torch.stack(each)
        total = (self.weights(losses.detach(), x0[0].numel()) * losses).sum(0)
        return Losses(total, {"iwdiff": total})

    def weights(self, losses: Float[Tensor, "k n"], pixels: int) -> Float[Tensor, "k n"]:
        """The weight of each noise of each image, from the losses as means over so many pixels. They sum to 1 over
        k."""
        scale = pixels if self.exponent == "sum" else 1
        return torch.softmax(losses * (scale if self.weighting == "printed" else -self.c * scale), dim=0)


def _refuse_batch_norm(network: nn.Module) -> None:
    for name, module in network.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            raise InputError(f"objective.accumulate: the network has batch normalisation ({name}); set it to false")
