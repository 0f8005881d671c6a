"""Changes of resolution without weights: resize(x, size) halves it (odd sizes round up), whatever `size`, or brings it
to `size`, at most twice its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

Resize = Literal["down", "up", "fir_down", "fir_up"]

TAPS = (1.0, 3.0, 3.0, 1.0)


def average(x: Float[Tensor, "n c h w"], size: tuple[int, int] | None = None) -> Float[Tensor, "n c h2 w2"]:
    """The mean of each 2×2 square."""
    return functional.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False)


def repeat(x: Float[Tensor, "n c h w"], size: tuple[int, int] | None) -> Float[Tensor, "n c h2 w2"]:
    """Each pixel repeated."""
    return functional.interpolate(x, size=size, mode="nearest")


def fir(x: Float[Tensor, "n c h w"], stride: int, before: int, after: int) -> Float[Tensor, "n c h2 w2"]:
    """x filtered by `TAPS` along rows and columns, with so many zeros before and after, every `stride`-th value."""
    padded = functional.pad(x, (before, after, before, after))
    return functional.conv2d(padded, _kernel(x, 1.0), stride=stride, groups=x.shape[1])


def fir_down(x: Float[Tensor, "n c h w"], size: tuple[int, int] | None = None) -> Float[Tensor, "n c h2 w2"]:
    """Filtered against aliasing by (1, 3, 3, 1)/8 (Karras et al. 2020, appendix B; Zhang 2019), zeros outside."""
    h, w = x.shape[-2:]
    return fir(functional.pad(x, (0, w % 2, 0, h % 2)), 2, 1, 1)


def fir_up(x: Float[Tensor, "n c h w"], size: tuple[int, int] | None) -> Float[Tensor, "n c h2 w2"]:
    """Zeros between the pixels, filtered by (1, 3, 3, 1)/4: bilinear interpolation with zeros outside."""
    h, w = size or (2 * x.shape[-2], 2 * x.shape[-1])
    doubled = functional.conv_transpose2d(x, _kernel(x, 4.0), stride=2, padding=1, groups=x.shape[1])
    return doubled[..., :h, :w]


def _kernel(x: Tensor, total: float) -> Float[Tensor, "c 1 4 4"]:
    taps = x.new_tensor(TAPS)
    return (torch.outer(taps, taps) * (total / taps.sum() ** 2)).expand(x.shape[1], 1, 4, 4)


RESIZE: dict[Resize, Callable[[Tensor, tuple[int, int] | None], Tensor]] = {
    "down": average,
    "up": repeat,
    "fir_down": fir_down,
    "fir_up": fir_up,
}
