"""Changes of resolution without weights: resize(x, size) halves it (odd sizes round up), whatever `size`, or brings it
to `size`, at most twice its own."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Literal

import numpy as np
from jaxtyping import Float, Float64
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
    """x filtered by `TAPS`/8 along rows and columns, with so many zeros before and after, every `stride`-th value."""
    rows, columns = (_line(side, stride, before, after) for side in x.shape[-2:])
    return _filtered(x, rows, columns)


def fir_down(x: Float[Tensor, "n c h w"], size: tuple[int, int] | None = None) -> Float[Tensor, "n c h2 w2"]:
    """Filtered against aliasing by (1, 3, 3, 1)/8 (Karras et al. 2020, appendix B; Zhang 2019), zeros outside."""
    rows, columns = (_line(side, 2, 1, 1 + side % 2) for side in x.shape[-2:])
    return _filtered(x, rows, columns)


def fir_up(x: Float[Tensor, "n c h w"], size: tuple[int, int] | None) -> Float[Tensor, "n c h2 w2"]:
    """Zeros between the pixels, filtered by (1, 3, 3, 1)/4: bilinear interpolation with zeros outside."""
    h, w = x.shape[-2:]
    # The transpose of the way down, twice over for the zeros.
    rows, columns = (
        2 * _line(2 * side, 2, 1, 1).T[:to] for side, to in zip((h, w), size or (2 * h, 2 * w), strict=True)
    )
    return _filtered(x, rows, columns)


def _filtered(x: Float[Tensor, "n c h w"], rows: np.ndarray, columns: np.ndarray) -> Float[Tensor, "n c h2 w2"]:
    """Rows and columns, each by its matrix: a depthwise convolution of so few values takes some twenty times as long on
    a CPU in bf16, forward and backward."""
    return x.new_tensor(rows) @ x @ x.new_tensor(columns.T)


@cache
def _line(side: int, stride: int, before: int, after: int) -> Float64[np.ndarray, "m n"]:
    """The matrix that filters a line of `side` values, see `fir`."""
    starts = np.arange(-before, side + after - len(TAPS) + 1, stride)
    return sum((tap / sum(TAPS)) * np.eye(side + 1, side)[_at(starts + i, side)] for i, tap in enumerate(TAPS))


def _at(places: np.ndarray, side: int) -> np.ndarray:
    """The places in a line, `side` for those outside, where there are zeros."""
    return np.where((places >= 0) & (places < side), places, side)


RESIZE: dict[Resize, Callable[[Tensor, tuple[int, int] | None], Tensor]] = {
    "down": average,
    "up": repeat,
    "fir_down": fir_down,
    "fir_up": fir_up,
}
