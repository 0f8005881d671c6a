"""RefineNet: features of every resolution, refined from the coarsest to the finest (Lin et al. 2017, section 3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge, Gt, Len, Lt
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from trilemma.networks.blocks import ResidualBlock
from trilemma.networks.embeddings import TimeAndClass, check_label
from trilemma.networks.ends import conv_head
from trilemma.networks.norms import ACTIVATIONS, Activation, Norm, Style, norm_of
from trilemma.networks.trunk import Layer
from trilemma.registry import register

Unit = Callable[[int], nn.Module]


class ChainedPooling(nn.Module):
    """Chained residual pooling (Lin et al. 2017, section 3.2 and figure 3d): act(x), and added to it the outputs of two
    steps of a chain, each a 5×5 max pooling of stride 1 and a 3×3 convolution: context from ever further away."""

    STEPS = 2

    def __init__(self, channels: int, style: Style):
        super().__init__()
        self.activation = style.activation()
        self.convs = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(self.STEPS))

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        link = total = self.activation(x)
        for conv in self.convs:
            link = conv(functional.max_pool2d(link, 5, stride=1, padding=2))
            total = total + link
        return total


class RefineBlock(nn.Module):
    """Paths of features, finest first -> features of the finest path's size and the narrowest path's channels (Lin et
    al. 2017, figure 3): two residual units on each path; fusion, a 3×3 convolution of each path, the coarser ones
    upsampled bilinearly, summed (nothing to do for one path); chained residual pooling; `outputs` more units."""

    def __init__(self, paths: Sequence[int], style: Style, unit: Unit, outputs: int = 1):
        super().__init__()
        self.channels = min(paths)
        self.adapt: Any = nn.ModuleList(nn.ModuleList([unit(c), unit(c)]) for c in paths)
        convs = [nn.Conv2d(c, self.channels, 3, padding=1) for c in paths] if len(paths) > 1 else [nn.Identity()]
        self.fuse = nn.ModuleList(convs)
        self.pool = ChainedPooling(self.channels, style)
        self.out = nn.ModuleList(unit(self.channels) for _ in range(outputs))

    def forward(
        self, paths: list[Float[Tensor, "n _c _h _w"]], e: Float[Tensor, "n e"] | None
    ) -> Float[Tensor, "n d h w"]:
        size = paths[0].shape[-2:]
        fused = []
        for h, units, conv in zip(paths, self.adapt, self.fuse, strict=True):
            for unit in units:
                h = unit(h, e)
            h = conv(h)
            fused.append(h if h.shape[-2:] == size else functional.interpolate(h, size=size, mode="bilinear"))
        h = self.pool(torch.stack(fused).sum(0))
        for unit in self.out:
            h = unit(h, e)
        return h


@register("network", "refinenet")
class RefineNet(nn.Module):
    """F(x, time, label) -> [n, out_channels, h, w]; odd sizes round up on the way down. (Its layers fit any size: it
    takes `size` because every network is given it.)

    An encoder of residual blocks halves the resolution level by level, by averaging inside the first block of each; one
    refine block a level takes the encoder's features there and what the coarser refine block made. This is NCSN's
    network (Song & Ermon 2019, appendix A) but for two things. NCSN has no time; here time and class enter every
    residual unit, encoder and cascade alike, as they enter a U-Net's blocks. For that the unit (activation, 3×3
    convolution, activation, 3×3 convolution, + input: Lin et al. 2017, figure 3b) is the pre-activated
    `ResidualBlock`, which has a normalisation before each activation, the second conditioned on time and class; NCSN
    too normalises there, by the noise level. And NCSN's encoder halves once and then dilates; Lin et al.'s halves.

    Recipe arguments, in the U-Net's words:
        base_channels: channels at the finest resolution; `multipliers`: times this at each resolution, finest first
            (four in the sources); blocks: of the encoder at each.
        dropout: in every unit. norm, groups, norm_eps, activation: of every unit.
        entry: how time and class enter each unit: `added` between its convolutions, `adagn`, or `after` it.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        size: tuple[int, int],
        classes: int = 0,
        *,
        base_channels: Annotated[int, Ge(1)] = 128,
        multipliers: Annotated[Sequence[Annotated[int, Ge(1)]], Len(1)] = (1, 2, 2, 2),
        blocks: Annotated[int, Ge(1)] = 2,
        dropout: Annotated[float, Ge(0), Lt(1)] = 0.1,
        norm: Norm = "group",
        groups: Annotated[int, Ge(1)] | None = None,
        norm_eps: Annotated[float, Gt(0)] = 1e-6,
        activation: Activation = "silu",
        entry: Literal["added", "adagn", "after"] = "added",
    ):
        super().__init__()
        embedding = 4 * base_channels
        style = Style(norm_of(norm, groups, norm_eps), ACTIVATIONS[activation], entry, embedding, dropout)

        def unit(inputs: int, outputs: int | None = None, resample: Literal["down"] | None = None) -> nn.Module:
            outputs = outputs or inputs
            return Layer(ResidualBlock(inputs, outputs, style, resample), outputs, style)

        self.classes = classes
        self.embedding = TimeAndClass(base_channels, embedding, classes)
        widths = [base_channels * m for m in multipliers]
        self.stem = nn.Conv2d(in_channels, widths[0], 3, padding=1)
        levels, channels = [], widths[0]
        for i, width in enumerate(widths):
            first = unit(channels, width, "down" if i else None)
            levels.append(nn.ModuleList([first, *(unit(width) for _ in range(blocks - 1))]))
            channels = width
        self.encoder: Any = nn.ModuleList(levels)
        cascade: list[RefineBlock] = []  # coarsest first
        for i, width in reversed(list(enumerate(widths))):
            paths = [width, *(block.channels for block in cascade[-1:])]
            # Two units more after the last (Lin et al. 2017, section 3.2, "output convolutions").
            cascade.append(RefineBlock(paths, style, unit, outputs=1 if i else 3))
        self.cascade = nn.ModuleList(cascade)
        self.head = conv_head(cascade[-1].channels, out_channels, style)

    def forward(
        self,
        x: Float[Tensor, "n c h w"],
        time: Float[Tensor, "n"],
        label: Int64[Tensor, "n"] | None = None,
    ) -> Float[Tensor, "n d h w"]:
        check_label(self.classes, label)
        e = self.embedding(time, label)
        h = self.stem(x)
        features = []
        for level in self.encoder:
            for unit in level:
                h = unit(h, e)
            features.append(h)
        refined: list[Tensor] = []
        for block in self.cascade:
            refined = [block([features.pop(), *refined], e)]
        return self.head(refined[0])
