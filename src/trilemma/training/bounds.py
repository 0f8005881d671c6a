"""The two terms of a variational bound on −log p(x), in nats a dimension (Kingma & Welling 2014, eq. 10)."""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

Reconstruction = Literal["l2", "l1"]


class Spread(nn.Module):
    """log σ of p(x | z), one number for all pixels, learnt with the rest (Rybkin et al. 2021)."""

    def __init__(self) -> None:
        super().__init__()
        self.log_sigma = nn.Parameter(torch.zeros(()))


def distortion(
    x: Float[Tensor, "n ..."], made: Float[Tensor, "n ..."], log_sigma: Float[Tensor, ""], kind: Reconstruction = "l2"
) -> Float[Tensor, "n"]:
    """−log p(x | z) in nats a dimension: `l2` of N(x̂, σ² I), `l1` of Laplace distributions of scale σ."""
    off = (x - made).flatten(1)
    if kind == "l1":
        return off.abs().mean(1) * torch.exp(-log_sigma) + log_sigma + math.log(2)
    return 0.5 * off.square().mean(1) * torch.exp(-2 * log_sigma) + log_sigma + 0.5 * math.log(2 * math.pi)


def standard_kl(mean: Float[Tensor, "n ..."], log_variance: Float[Tensor, "n ..."]) -> Float[Tensor, "n"]:
    """KL(q(z | x) ‖ N(0, I)) in nats, of diagonal Gaussians, summed over the latent."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).flatten(1).sum(1)
