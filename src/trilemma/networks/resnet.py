"""The residual networks of GANs at small sizes (Miyato et al. 2018, appendix B.4), and of a VAE's encoder."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

from annotated_types import Ge
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations

from trilemma.networks.blocks import ResidualBlock
from trilemma.networks.embeddings import check_label
from trilemma.networks.filters import average
from trilemma.networks.norms import BatchNorm2d, Style, xavier, zero
from trilemma.registry import register

ROOT_2 = 2**0.5
"""Gain of the weights of residual convolutions, as they begin in the published code."""


def halved(size: tuple[int, int], times: int) -> list[tuple[int, int]]:
    """The size, and what is left of it after each halving, odd sides rounded up."""
    sizes = [size]
    for _ in range(times):
        sizes.append(((sizes[-1][0] + 1) // 2, (sizes[-1][1] + 1) // 2))
    return sizes


@register("network", "sngan")
class SNGANGenerator(nn.Module):
    """Images [n, out_channels, h, w] in (−1, 1) of latent vectors [n, latent], and of their classes where there are
    some (Miyato et al. 2018, table 4): a linear layer makes the smallest map, residual blocks (batch norm, ReLU, 3×3
    convolution, twice; a 1×1 convolution on the shortcut) double it by repetition, batch norm, ReLU, 3×3 convolution,
    tanh. A class has its own scale and shift at every norm inside a block (Miyato & Koyama 2018).

    Recipe arguments:
        latent: length of the latent vector. channels: of every map.
        ups: how often the smallest map is doubled; sides that are no multiple of 2^ups round up on the way down, so 28
            begins at 7 with two, and at 4 with three.
    """

    def __init__(
        self,
        out_channels: int,
        size: tuple[int, int],
        classes: int = 0,
        *,
        latent: Annotated[int, Ge(1)] = 128,
        channels: Annotated[int, Ge(1)] = 256,
        ups: Annotated[int, Ge(1)] = 3,
    ):
        super().__init__()
        self.latent, self.classes = latent, classes
        *self.sizes, smallest = halved(size, ups)
        by_class = partial(_by_class, classes) if classes else None
        style = Style(BatchNorm2d, nn.ReLU, entry="bottom", zero_init=False, modulation=by_class)
        maps = xavier(nn.Linear(latent, channels * smallest[0] * smallest[1]))
        self.stem = nn.Sequential(maps, nn.Unflatten(1, (channels, *smallest)))
        made = [ResidualBlock(channels, channels, style, "up", projected=True) for _ in range(ups)]
        self.blocks: Any = nn.ModuleList(made)
        for block in made:
            for conv, gain in ((block.conv1, ROOT_2), (block.conv2, ROOT_2), (block.shortcut, 1.0)):
                assert isinstance(conv, nn.Conv2d)
                xavier(conv, gain)
        out = xavier(nn.Conv2d(channels, out_channels, 3, padding=1))
        self.head = nn.Sequential(BatchNorm2d(channels), nn.ReLU(), out, nn.Tanh())

    def forward(
        self, latent: Float[Tensor, "n z"], label: Int64[Tensor, "n"] | None = None
    ) -> Float[Tensor, "n c h w"]:
        check_label(self.classes, label)
        h = self.stem(latent)
        for block, size in zip(self.blocks, reversed(self.sizes), strict=True):
            h = block(h, label, size)
        return self.head(h)


def _by_class(classes: int, channels: int) -> nn.Module:
    """The scales and shifts of each class, which begin by changing nothing."""
    return zero(nn.Embedding(classes, 2 * channels))


class DownBlock(nn.Module):
    """ReLU, 3×3 convolution, twice, + shortcut (Miyato et al. 2018, figure 8), both averaged over 2×2 squares where
    the block goes `down`; its shortcut is then a 1×1 convolution. `first`: no ReLU before the image's first
    convolution. `each`: what is done to each convolution."""

    def __init__(self, inputs: int, outputs: int, each: Callable[[Any], Any], down: bool, first: bool = False):
        super().__init__()
        self.down, self.first = down, first
        self.conv1 = each(xavier(nn.Conv2d(inputs, outputs, 3, padding=1), ROOT_2))
        self.conv2 = each(xavier(nn.Conv2d(outputs, outputs, 3, padding=1), ROOT_2))
        projected = down or inputs != outputs
        self.shortcut = each(xavier(nn.Conv2d(inputs, outputs, 1))) if projected else nn.Identity()

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d h2 w2"]:
        h = self.conv2(functional.relu(self.conv1(x if self.first else functional.relu(x))))
        # Averaging commutes with the 1×1 convolution, which then sees a quarter of the positions.
        return average(h) + self.shortcut(average(x)) if self.down else h + self.shortcut(x)


def residual_trunk(in_channels: int, channels: int, downs: int, blocks: int, each: Callable[[Any], Any]) -> nn.Module:
    """Images -> features at 1/2^downs of their size: so many blocks that halve it, so many that leave it, ReLU."""
    made = [
        DownBlock(channels if i else in_channels, channels, each, down=i < downs, first=i == 0)
        for i in range(downs + blocks)
    ]
    return nn.Sequential(*made, nn.ReLU())


@register("network", "sngan_discriminator")
class SNGANDiscriminator(nn.Module):
    """Logits [n] of images, real or made (Miyato et al. 2018, table 4): residual blocks, ReLU, the sum over positions,
    a linear layer; every layer's weight is divided by its largest singular value, of which each pass in training makes
    one step of the power iteration. Where there are classes, the inner product of the summed features and a vector of
    the class, so normalised too, is added (Miyato & Koyama 2018, eq. 4).

    Recipe arguments: `channels`: of every map. `downs`: blocks that halve the size (odd sides round up), the first one
    among them; `blocks`: those after them."""

    def __init__(
        self,
        in_channels: int,
        size: tuple[int, int],
        classes: int = 0,
        *,
        channels: Annotated[int, Ge(1)] = 128,
        downs: Annotated[int, Ge(1)] = 2,
        blocks: Annotated[int, Ge(0)] = 2,
    ):
        super().__init__()
        self.classes = classes
        self.trunk = residual_trunk(in_channels, channels, downs, blocks, parametrizations.spectral_norm)
        self.head = parametrizations.spectral_norm(xavier(nn.Linear(channels, 1, bias=False)))
        self.label = parametrizations.spectral_norm(xavier(nn.Embedding(classes, channels))) if classes else None

    def forward(self, x: Float[Tensor, "n c h w"], label: Int64[Tensor, "n"] | None = None) -> Float[Tensor, "n"]:
        check_label(self.classes, label)
        features = self.trunk(x).sum((2, 3))
        logits = self.head(features)[:, 0]
        return logits if self.label is None else logits + (self.label(label) * features).sum(1)


@register("network", "resnet_encoder")
class ResNetEncoder(nn.Module):
    """Numbers [n, outputs] of images, such as the means and log-variances of a VAE's posterior: the discriminator's
    blocks without spectral norm, and one linear layer of all positions, as the generator begins with one.

    Recipe arguments: the discriminator's, for images of `size` alone."""

    def __init__(
        self,
        in_channels: int,
        size: tuple[int, int],
        outputs: int,
        *,
        channels: Annotated[int, Ge(1)] = 128,
        downs: Annotated[int, Ge(1)] = 2,
        blocks: Annotated[int, Ge(0)] = 2,
    ):
        super().__init__()
        self.trunk = residual_trunk(in_channels, channels, downs, blocks, lambda layer: layer)
        height, width = halved(size, downs)[-1]
        self.head = nn.Sequential(nn.Flatten(), xavier(nn.Linear(channels * height * width, outputs)))

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        return self.head(self.trunk(x))
