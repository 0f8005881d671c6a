"""Deterministic encoding: DDIM run from image to noise (Song et al. 2021, section 5.4), and walks between encodings."""

from __future__ import annotations

from itertools import pairwise

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from trilemma.process import BoundDenoiser, over_image


@torch.inference_mode()
def encode(
    denoiser: BoundDenoiser, x: Float[Tensor, "n c h w"], grid: Float64[Tensor, "k1"]
) -> Float[Tensor, "n c h w"]:
    """The encoding x_{grid[0]} of images at time grid[-1], by Euler steps of the probability-flow ODE in σ/α against
    the grid's direction. No clipping, which would not be undone. Its error falls with the first power of the steps.

    From clean data (grid[-1] = 0), where σ/α has no slope, the first step takes ε̂ at the first noisy time from the
    mean α x_0 of what is there."""
    schedule, rising = denoiser.schedule, grid.flip(0)
    for t, s in pairwise(rising):
        clean = bool(t == 0)
        at = over_image(schedule.alpha(s), x) * x if clean else x
        prediction = denoiser(at, s if clean else t)
        eps = prediction.eps
        x0 = x if clean else prediction.x0
        x = over_image(schedule.alpha(s), x) * x0 + over_image(schedule.sigma(s), x) * eps
    return x


def slerp(a: Float[Tensor, "n c h w"], b: Float[Tensor, "n c h w"], fraction: float) -> Float[Tensor, "n c h w"]:
    """Spherical interpolation between encodings (Song et al. 2021, eq. 67): what lies between two Gaussian noises on a
    straight line is less noisy than they are, on the arc it is not. `fraction` 0 gives a, 1 gives b."""
    first, second = a.flatten(1), b.flatten(1)
    cosine = (first * second).sum(1) / (first.norm(dim=1) * second.norm(dim=1))
    angle = torch.arccos(cosine.clamp(-1.0, 1.0))[:, None]
    near = angle < 1e-4
    sine = torch.where(near, torch.ones_like(angle), torch.sin(angle))
    left = torch.where(near, 1 - fraction + torch.zeros_like(angle), torch.sin((1 - fraction) * angle) / sine)
    right = torch.where(near, fraction + torch.zeros_like(angle), torch.sin(fraction * angle) / sine)
    return (left * first + right * second).reshape(a.shape)
