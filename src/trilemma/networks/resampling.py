"""Changes of resolution: `down(x, e)` halves it (odd sizes round up), `up(x, e, size)` brings it to a size. Most have
no use for e, the embedding of time and class; BigGAN's are residual blocks and have."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from trilemma.networks.blocks import ResidualBlock
from trilemma.networks.filters import Resize, average, filtering
from trilemma.networks.norms import Style


class StridedDown(nn.Module):
    """A 3×3 convolution of stride 2, padded on all sides; `same`: even sizes on the right and below
    only, as TensorFlow's SAME does and with it Ho et al.'s published weights."""

    def __init__(self, channels: int, style: Style, same: bool = False):
        super().__init__()
        self.same = same
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=0 if same else 1)

    def forward(self, x: Float[Tensor, "n c h w"], e: Tensor | None) -> Float[Tensor, "n c h2 w2"]:
        if self.same:
            x = functional.pad(x, (x.shape[-1] % 2, 1, x.shape[-2] % 2, 1))
        return self.conv(x)


class Pool(nn.Module):
    """The largest or the mean of each 2×2 square. `blur`: a 3×3 binomial filter before it, against aliasing (D 2.3).

    `summed`: the filter sums over all channels, so that every output channel is the same. D's code does this, D's text
    and StyleGAN, which it follows, do not; D's figure was measured with it."""

    def __init__(self, channels: int, style: Style, pool: str = "average", blur: bool = False, summed: bool = False):
        super().__init__()
        self.pool, self.blur, self.summed = pool, blur, summed
        line = torch.tensor([0.25, 0.5, 0.25])
        self.kernel: Tensor
        self.register_buffer("kernel", torch.outer(line, line)[None, None], persistent=False)

    def forward(self, x: Float[Tensor, "n c h w"], e: Tensor | None) -> Float[Tensor, "n c h2 w2"]:
        if self.blur:
            channels = x.shape[1]
            seen = x.sum(1, keepdim=True) if self.summed else x
            kernel = self.kernel.to(x.dtype).expand(seen.shape[1], 1, 3, 3)
            x = functional.conv2d(seen, kernel, padding=1, groups=seen.shape[1]).expand(-1, channels, -1, -1)
        if self.pool == "max":
            return functional.max_pool2d(x, 2, ceil_mode=True)
        return average(x)


class BigGAN(ResidualBlock):
    """A residual block that halves or doubles the resolution; time and class enter it as every block."""

    def __init__(self, channels: int, style: Style, resample: Resize, projected: bool = False):
        super().__init__(channels, channels, style, resample, projected)
        self.after = nn.Linear(style.embedding, channels) if style.entry == "after" else None

    def forward(
        self, x: Float[Tensor, "n c h w"], e: Float[Tensor, "n e"] | None, size: tuple[int, int] | None = None
    ) -> Float[Tensor, "n c h2 w2"]:
        h = super().forward(x, e, size)
        return h if self.after is None else h + self.after(e)[:, :, None, None]


class FilteredDown(nn.Module):
    """Filtered by (1, 3, 3, 1)/8, then a 3×3 convolution of stride 2, zeros outside the image (Karras et al. 2020)."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, stride=2)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d h2 w2"]:
        rows, columns = (filtering(x, n, n + 1 + n % 2, stride=1, before=2) for n in x.shape[-2:])
        return self.conv(rows @ x @ columns.T)


class NearestUp(nn.Module):
    """Each pixel repeated, then a 3×3 convolution."""

    def __init__(self, channels: int, style: Style):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Float[Tensor, "n c h w"], e: Tensor | None, size: tuple[int, int]) -> Tensor:
        return self.conv(functional.interpolate(x, size=size, mode="nearest"))


class BilinearUp(nn.Module):
    """Bilinear interpolation, of pixels as squares; `aligned`: as points, so that the corners stay where they are."""

    def __init__(self, channels: int, style: Style, aligned: bool = False):
        super().__init__()
        self.aligned = aligned

    def forward(self, x: Float[Tensor, "n c h w"], e: Tensor | None, size: tuple[int, int]) -> Tensor:
        return functional.interpolate(x, size=size, mode="bilinear", align_corners=self.aligned)


DOWN: dict[str, Callable[[int, Style], nn.Module]] = {
    "strided": StridedDown,
    "strided_same": lambda channels, style: StridedDown(channels, style, same=True),
    "average": Pool,
    "max": lambda channels, style: Pool(channels, style, "max"),
    "blurred": lambda channels, style: Pool(channels, style, "max", blur=True),
    "blurred_summed": lambda channels, style: Pool(channels, style, "max", blur=True, summed=True),
    "biggan": lambda channels, style: BigGAN(channels, style, "down"),
    "biggan_fir": lambda channels, style: BigGAN(channels, style, "fir_down", projected=True),
}
UP: dict[str, Callable[[int, Style], nn.Module]] = {
    "nearest": NearestUp,
    "bilinear": BilinearUp,
    "bilinear_aligned": lambda channels, style: BilinearUp(channels, style, aligned=True),
    "biggan": lambda channels, style: BigGAN(channels, style, "up"),
    "biggan_fir": lambda channels, style: BigGAN(channels, style, "fir_up", projected=True),
}
