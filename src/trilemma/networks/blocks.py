"""The blocks a network is built from: (x, e) -> features of the same size, e the embedding of time and class.

Each keeps to its network's `Style`: the same normalisation and activation, and time and class enter at the one
`ConditionedNorm` in its middle, so that any block goes with any entry.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from trilemma.networks.filters import RESIZE, Resize
from trilemma.networks.norms import ConditionedNorm, Style, TokenNorm, block_norm, normalise
from trilemma.registry import register

End = Literal["norm", "activation", "link"]


def shortcut(inputs: int, outputs: int) -> nn.Module:
    """What a residual link passes on: the input, through a 1×1 convolution where the channels change."""
    return nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()


@register("block", "residual")
class ResidualBlock(nn.Module):
    """The pre-activated residual block (A figure 4.1): norm, activation, convolution, conditioned norm, activation,
    dropout, convolution, + shortcut. With swish it is DDPM's, with ReLU BigGAN's (D figure 8).

    `resample`: how the resolution changes, both before the first convolution and on the shortcut (`networks.filters`;
    BigGAN's up- and downsampling in B, section 3). `projected`: the shortcut is a 1×1 convolution even where the
    channels stay.
    """

    def __init__(
        self, inputs: int, outputs: int, style: Style, resample: Resize | None = None, projected: bool = False
    ):
        super().__init__()
        self.style, self.resample = style, resample
        self.norm1 = block_norm(inputs, style)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm2 = ConditionedNorm(outputs, style)
        self.conv2 = style.last(nn.Conv2d(outputs, outputs, 3, padding=1))
        self.activation = style.activation()
        self.dropout = nn.Dropout(style.dropout)
        self.shortcut = nn.Conv2d(inputs, outputs, 1) if projected else shortcut(inputs, outputs)

    def forward(
        self, x: Float[Tensor, "n c h w"], e: Tensor | None, size: tuple[int, int] | None = None
    ) -> Float[Tensor, "n d h2 w2"]:
        h = self.activation(normalise(self.norm1, x, e))
        if self.resample is not None:
            h, x = (RESIZE[self.resample](part, size) for part in (h, x))
        h = self.activation(self.norm2(self.conv1(h), e))
        return self.style.residual(self.shortcut(x), self.conv2(self.dropout(h)))


@register("block", "mbconv")
class MBConv(nn.Module):
    """The inverted bottleneck with squeeze-and-excitation (A 4.4: Sandler et al. 2018, Hu et al. 2018, as CoAtNet has
    it, Dai et al. 2021): norm, 1×1 convolution to four times the channels, norm, activation, depthwise 3×3, conditioned
    norm, activation, channels reweighted by a bottleneck of a quarter of the input's channels, 1×1 convolution,
    + shortcut."""

    EXPANSION, SQUEEZE = 4, 0.25

    def __init__(self, inputs: int, outputs: int, style: Style):
        super().__init__()
        wide, narrow = self.EXPANSION * inputs, max(1, int(self.SQUEEZE * inputs))
        self.style = style
        self.norm = style.norm(inputs)
        self.expand = nn.Sequential(nn.Conv2d(inputs, wide, 1, bias=False), style.norm(wide), style.activation())
        self.depthwise = nn.Conv2d(wide, wide, 3, padding=1, groups=wide, bias=False)
        self.entry = ConditionedNorm(wide, style)
        self.activation = style.activation()
        squeeze = [nn.AdaptiveAvgPool2d(1), nn.Conv2d(wide, narrow, 1), style.activation()]
        self.excite = nn.Sequential(*squeeze, nn.Conv2d(narrow, wide, 1), nn.Sigmoid())
        self.dropout = nn.Dropout(style.dropout)
        self.project = style.last(nn.Conv2d(wide, outputs, 1))
        self.shortcut = shortcut(inputs, outputs)

    def forward(self, x: Float[Tensor, "n c h w"], e: Float[Tensor, "n e"] | None) -> Float[Tensor, "n d h w"]:
        h = self.activation(self.entry(self.depthwise(self.expand(self.norm(x))), e))
        return self.style.residual(self.shortcut(x), self.project(self.dropout(h * self.excite(h))))


class DoubleConv(nn.Module):
    """Two 3×3 convolutions, each followed by a norm, with an activation between them (D figure 2, E 3.2).

    `end`: what comes then. `norm`: nothing more (D, as the code it adapts has it). `activation`: one more (E). `link`:
    a residual link around both, and the activation of the sum, act(shortcut(x) + f(x)) (D 2.3). `middle`: the channels
    between the two, the outputs' unless given."""

    def __init__(self, inputs: int, outputs: int, style: Style, end: End, middle: int | None = None):
        super().__init__()
        middle = middle or outputs
        self.style, self.end = style, end
        self.conv1 = nn.Conv2d(inputs, middle, 3, padding=1, bias=False)
        self.norm1 = ConditionedNorm(middle, style)
        self.conv2 = nn.Conv2d(middle, outputs, 3, padding=1, bias=False)
        self.norm2 = style.norm(outputs)
        self.activation = style.activation()
        self.dropout = nn.Dropout(style.dropout)
        self.shortcut = shortcut(inputs, outputs) if end == "link" else None

    def forward(self, x: Float[Tensor, "n c h w"], e: Float[Tensor, "n e"] | None = None) -> Float[Tensor, "n d h w"]:
        h = self.dropout(self.activation(self.norm1(self.conv1(x), e)))
        h = self.norm2(self.conv2(h))
        if self.shortcut is not None:
            h = self.style.residual(self.shortcut(x), h)
        return self.dropout(h if self.end == "norm" else self.activation(h))


@register("block", "double")
class DoubleConvs(nn.Module):
    """Several double convolutions as one block (D figures 2, 3 and 7), the channels changing in the last.

    `repeats`: how many. `links`: which have residual links: none (E); all but the last, which may change the channels
    and ends with its norm (`same`, D's baseline); or all (AdditionalResLink). With links, what lies in the middle of
    one is at least half its input: in the decoder, which takes twice the channels it gives, that is more than its
    output (as in D's code)."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        style: Style,
        *,
        repeats: int = 1,
        links: Literal["none", "same", "all"] = "none",
    ):
        super().__init__()
        linked: list[End] = ["link"] * (repeats - 1)
        ends: dict[str, list[End]] = {
            "none": ["activation"] * repeats,
            "same": [*linked, "norm"],
            "all": [*linked, "link"],
        }
        self.parts = nn.ModuleList(
            DoubleConv(a, b, style, end, None if links == "none" else max(b, a // 2))
            for (a, b), end in zip(pairwise([inputs] * repeats + [outputs]), ends[links], strict=True)
        )

    def forward(self, x: Float[Tensor, "n c h w"], e: Float[Tensor, "n e"] | None) -> Float[Tensor, "n d h w"]:
        for part in self.parts:
            x = part(x, e)
        return x


@register("block", "dense")
class DenseBlock(nn.Module):
    """The residual dense block (D 2.2: Zhang et al. 2018, eqs. 5-8): four 3×3 convolutions, each of which sees the
    input and all before it, fused by a 1×1 convolution, + shortcut. Its growth is the number of output channels (D 2.3:
    by "the output channels of the baseline"); each convolution is followed by a norm, which the paper does without."""

    LAYERS = 4

    def __init__(self, inputs: int, outputs: int, style: Style):
        super().__init__()
        self.style = style
        seen = [inputs + i * outputs for i in range(self.LAYERS + 1)]
        self.convs = nn.ModuleList(nn.Conv2d(channels, outputs, 3, padding=1) for channels in seen[:-1])
        self.norms = nn.ModuleList(
            ConditionedNorm(outputs, style) if i == 0 else style.norm(outputs) for i in range(self.LAYERS)
        )
        self.activation = style.activation()
        self.dropout = nn.Dropout(style.dropout)
        self.fuse = nn.Conv2d(seen[-1], outputs, 1)
        self.shortcut = shortcut(inputs, outputs)

    def forward(self, x: Float[Tensor, "n c h w"], e: Float[Tensor, "n e"] | None) -> Float[Tensor, "n d h w"]:
        seen = x
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            h = conv(seen)
            seen = torch.cat([seen, self.activation(norm(h, e) if i == 0 else norm(h))], dim=1)
        return self.style.residual(self.shortcut(x), self.fuse(self.dropout(seen)))


@register("block", "convnext")
class ConvNeXt(nn.Module):
    """The ConvNeXt block (D 2.2: Liu et al. 2022, figure 4): depthwise 7×7, conditioned norm, 1×1 convolution to four
    times the channels, activation, 1×1 convolution, scaled by channel (from 1e-6), + shortcut. Its norm is its own
    whatever the network's: over the channels of each position."""

    def __init__(self, inputs: int, outputs: int, style: Style):
        super().__init__()
        self.style = style
        self.depthwise = nn.Conv2d(inputs, inputs, 7, padding=3, groups=inputs)
        self.entry = ConditionedNorm(inputs, replace(style, norm=TokenNorm))
        self.expand = nn.Conv2d(inputs, 4 * inputs, 1)
        self.activation = style.activation()
        self.dropout = nn.Dropout(style.dropout)
        self.project = nn.Conv2d(4 * inputs, outputs, 1)
        self.scale = nn.Parameter(torch.full((outputs, 1, 1), 1e-6))
        self.shortcut = shortcut(inputs, outputs)

    def forward(self, x: Float[Tensor, "n c h w"], e: Float[Tensor, "n e"] | None) -> Float[Tensor, "n d h w"]:
        h = self.activation(self.expand(self.entry(self.depthwise(x), e)))
        return self.style.residual(self.shortcut(x), self.scale * self.project(self.dropout(h)))
