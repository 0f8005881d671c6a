"""The walk from noise to image: a start, then the kernel over the grid's pairs. It yields every step, so that progress
bars, strips and figures only watch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from trilemma.process import BoundDenoiser, Draw
from trilemma.samplers.kernels import Kernel


@dataclass(frozen=True)
class Step:
    """The state after `index` of `count` steps: images x at time `t`. Index 0 is the start itself."""

    index: int
    count: int
    t: float
    x: Float[Tensor, "n c h w"]


@torch.inference_mode()
def walk(
    kernel: Kernel, denoiser: BoundDenoiser, grid: Float64[Tensor, "k1"], start: Float[Tensor, "n c h w"], draw: Draw
) -> Iterator[Step]:
    """Yield the start and then every step of the walk from grid[0] to grid[-1]; the last one's x is the sample."""
    x, state = start, None
    count = len(grid) - 1
    yield Step(0, count, float(grid[0]), x)
    for index, (t, s) in enumerate(pairwise(grid), start=1):
        x, state = kernel.step(denoiser, x, t, s, state, draw)
        yield Step(index, count, float(s), x)


@contextmanager
def evaluating(networks: Sequence[nn.Module]) -> Iterator[None]:
    """The networks in evaluation mode; each of their modules is left in the mode it was in."""
    training = [module for network in networks for module in network.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True
