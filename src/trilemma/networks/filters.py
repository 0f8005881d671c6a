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


def fir_down(x: Float[Tensor, "n c h w"], size: tuple[int, int] | None = None) -> Float[Tensor, "n c h2 w2"]:
    """Filtered against aliasing by (1, 3, 3, 1)/8 along rows and columns, zeros outside; every second value of that
    (Zhang 2019; Karras et al. 2020)."""
    h, w = x.shape[-2:]
    return filtering(x, h, (h + 1) // 2) @ x @ filtering(x, w, (w + 1) // 2).T


def fir_up(x: Float[Tensor, "n c h w"], size: tuple[int, int] | None) -> Float[Tensor, "n c h2 w2"]:
    """Zeros between the pixels, filtered by (1, 3, 3, 1)/4: bilinear interpolation with zeros outside. But for a factor
    the transpose of `fir_down`."""
    (h, w), (up, across) = x.shape[-2:], size or (2 * x.shape[-2], 2 * x.shape[-1])
    return (2 * filtering(x, up, h)).T @ x @ (2 * filtering(x, across, w))


def filtering(x: Tensor, n: int, outputs: int, stride: int = 2, before: int = 1) -> Float[Tensor, "outputs n"]:
    """The matrix, of x's type, that filters a line of n values: output i is of those from `stride` i − `before` on. A
    product of matrices is fast in bf16 on a CPU too, where gradients of channelwise convolutions are not."""
    offsets = torch.arange(n, device=x.device) - (stride * torch.arange(outputs, device=x.device)[:, None] - before)
    return sum(tap / sum(TAPS) * (offsets == k).to(x.dtype) for k, tap in enumerate(TAPS))  # type: ignore[return-value]


RESIZE: dict[Resize, Callable[[Tensor, tuple[int, int] | None], Tensor]] = {
    "down": average,
    "up": repeat,
    "fir_down": fir_down,
    "fir_up": fir_up,
}
