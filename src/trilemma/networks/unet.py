"""The U-Net skeleton: a trunk that halves the resolution level by level, and a decoder that takes up its skips.

One skeleton, its parts by name: the block, the changes of resolution, how time and class enter, which skips there are.
DDPM's network is its defaults; every other U-Net of the sources is a few other words in a recipe.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge, Gt, Len, Lt
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from trilemma.networks.attention import SelfAttention
from trilemma.networks.blocks import DoubleConv, zero
from trilemma.networks.embeddings import BottomMaps, TimeAndClass
from trilemma.networks.norms import ACTIVATIONS, Activation, Entry, Norm, Style, norm_of
from trilemma.networks.resampling import DOWN, UP
from trilemma.registry import register, registry


class Layer(nn.Module):
    """A block; what time and class add after it, if that is where they enter; self-attention where there is some."""

    def __init__(self, block: nn.Module, outputs: int, style: Style, heads: int):
        super().__init__()
        self.block = block
        self.embed = nn.Linear(style.embedding, outputs) if style.entry == "after" else None
        self.attention = SelfAttention(outputs, heads, style) if heads else None

    def forward(self, x: Float[Tensor, "n c h w"], e: Float[Tensor, "n e"] | None) -> Float[Tensor, "n d h w"]:
        h = self.block(x, e)
        if self.embed is not None:
            h = h + self.embed(e)[:, :, None, None]
        return h if self.attention is None else self.attention(h)


class Level(nn.Module):
    """The layers at one resolution and the change to the next, if there is one."""

    def __init__(self, layers: Sequence[Layer], resample: nn.Module | None):
        super().__init__()
        self.layers: Any = nn.ModuleList(layers)
        self.resample = resample


@dataclass(frozen=True)
class Plan:
    """What a U-Net is built by: channels, sizes and the count of blocks at each level, finest first; the network's
    style; and how to make a layer of so many inputs and outputs (`heads` 0: without attention)."""

    inputs: int
    widths: tuple[int, ...]
    sizes: tuple[tuple[int, int], ...]
    blocks: tuple[int, ...]
    heads: tuple[int, ...]
    style: Style
    block: Callable[[int, int], nn.Module]
    every_block: bool

    def layer(self, inputs: int, outputs: int, heads: int) -> Layer:
        return Layer(self.block(inputs, outputs), outputs, self.style, heads)


class Trunk(nn.Module):
    """The half that goes down: stem, levels, middle. Gives the coarsest features, the skips, and the embedding."""

    def __init__(
        self,
        plan: Plan,
        stem: nn.Module,
        embedding: TimeAndClass | None,
        bottom: BottomMaps | None,
        middle: Literal["blocks", "double"],
        middle_heads: int,
        down: str,
    ):
        super().__init__()
        self.every_block, self.style = plan.every_block, plan.style
        self.embedding, self.stem, self.bottom = embedding, stem, bottom
        channels = plan.widths[0]
        kept = [channels] if self.every_block else []
        levels = []
        for i, width in enumerate(plan.widths):
            layers = []
            for _ in range(plan.blocks[i]):
                layers.append(plan.layer(channels, width, plan.heads[i]))
                channels = width
                kept += [channels] if self.every_block else []
            last = i == len(plan.widths) - 1
            kept += [] if last else [channels]
            levels.append(Level(layers, None if last else DOWN[down](channels, plan.style)))
        self.levels: Any = nn.ModuleList(levels)
        self.kept, self.channels = kept, channels
        inputs = channels + (bottom.channels if bottom else 0)
        if middle == "double":
            # D's bottleneck takes no time and is the same whatever the blocks.
            plain = Style(plan.style.norm, plan.style.activation, "bottom")
            steps = [(inputs, 2 * channels), (2 * channels, 2 * channels), (2 * channels, channels)]
            made = [Layer(DoubleConv(a, b, plain), b, plain, 0) for a, b in steps]
        else:
            made = [plan.layer(inputs, channels, middle_heads), plan.layer(channels, channels, 0)]
        self.middle = nn.ModuleList(made)

    def forward(
        self, x: Float[Tensor, "n c h w"], time: Float[Tensor, "n"], label: Int64[Tensor, "n"] | None
    ) -> tuple[Float[Tensor, "n d h2 w2"], list[Tensor], Float[Tensor, "n e"] | None]:
        e = self.embedding(time, label) if self.embedding is not None else None
        return *self.descend(self.stem(x), e, time, label), e

    def descend(
        self, h: Tensor, e: Tensor | None, time: Tensor, label: Tensor | None, first: int = 0
    ) -> tuple[Tensor, list[Tensor]]:
        """From the features with which level `first` begins to the coarsest ones, and the skips on the way."""
        skips: list[Tensor] = [h] if self.every_block else []
        for level in self.levels[first:]:
            for layer in level.layers:
                h = layer(h, e)
                if self.every_block:
                    skips.append(h)
            if level.resample is not None:
                if not self.every_block:
                    skips.append(h)
                h = level.resample(h, e)
                if self.every_block:
                    skips.append(h)
        if self.bottom is not None:
            h = torch.cat([h, self.bottom(time, label).to(h.dtype)], dim=1)
        for middle in self.middle:
            h = middle(h, e)
        return h, skips


@register("network", "unet")
class UNet(nn.Module):
    """F(x, time, label) -> [n, out_channels, h, w] for images of `size` (h, w); odd sizes round up on the way down.

    Recipe arguments:
        base_channels: channels at the finest resolution; `multipliers`: times this at each resolution, finest first.
        blocks: blocks at each resolution of the trunk, one number or one a resolution. With `skips: block` the decoder
            has one more at each; with `skips: level` as many, but none at the coarsest and elsewhere at least one.
        attention: resolutions (the feature map's shorter side) with self-attention, and `middle_attention`.
        heads, or head_channels: attention heads (1), or the channels of each. dropout: in every block.
        patch: side of the square patches that are folded into channels first, unfolded last (1: none).
        block: its name (`trilemma list blocks`); `repeats`: double convolutions in one
            `double` block, `links`: which of them have residual links.
        norm, activation: in every block; groups: of group norm, as many as leave four channels in each unless given;
            norm_eps: its ε. rescale: residual sums are divided by √2.
        down, up: changes of resolution (`networks.resampling`).
        entry: how time and class enter each block: `added` between its convolutions (DDPM), `adagn` (ADM), `after` it
            (D); or once, as maps at the `bottom` (E 3.3).
        time_range: what the time is divided by where it enters as a number (`entry: bottom`). time_endpoint: the
            spacing of its frequencies, see `Sinusoidal`.
        skips: `block`: the decoder takes every block's output (DDPM); `level`: the last one of each resolution.
        stem: the first convolution, 3×3 (`conv`), 1×1 (`point`) or a `double` convolution.
        middle: two of the network's `blocks`, or D's three `double` convolutions, twice as wide inside.
        upsampler: takes a second image `low`, of any size, interpolated bilinearly and joined to x (B, two stages).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        size: tuple[int, int],
        classes: int = 0,
        *,
        base_channels: Annotated[int, Ge(1)] = 128,
        multipliers: Annotated[Sequence[Annotated[int | float, Gt(0)]], Len(1)] = (1, 2, 2, 2),
        blocks: Annotated[int, Ge(1)] | Sequence[Annotated[int, Ge(0)]] = 2,
        attention: Sequence[Annotated[int, Ge(1)]] = (16,),
        middle_attention: bool = True,
        heads: Annotated[int, Ge(1)] | None = None,
        head_channels: Annotated[int, Ge(1)] | None = None,
        dropout: Annotated[float, Ge(0), Lt(1)] = 0.1,
        patch: Annotated[int, Ge(1)] = 1,
        block: str = "residual",
        repeats: Annotated[int, Ge(1)] = 1,
        links: Literal["none", "same", "all"] = "none",
        norm: Norm = "group",
        groups: Annotated[int, Ge(1)] | None = None,
        norm_eps: Annotated[float, Gt(0)] = 1e-6,
        activation: Activation = "silu",
        rescale: bool = False,
        down: Literal["strided", "strided_same", "average", "max", "blurred", "blurred_summed", "biggan"] = "strided",
        up: Literal["nearest", "bilinear", "biggan"] = "nearest",
        entry: Entry = "added",
        time_range: Annotated[float, Gt(0)] = 1000.0,
        time_endpoint: bool = False,
        skips: Literal["block", "level"] = "block",
        stem: Literal["conv", "point", "double"] = "conv",
        middle: Literal["blocks", "double"] = "blocks",
        upsampler: bool = False,
    ):
        super().__init__()
        if size[0] % patch or size[1] % patch:
            raise ValueError(f"network.patch {patch} does not divide the image size {size[0]}×{size[1]}")
        if block != "double" and (repeats > 1 or links != "none"):
            raise ValueError(f"network.repeats and network.links are those of block 'double', and block is {block!r}")
        if head_channels is not None and heads is not None:
            raise ValueError(f"network.heads {heads} and network.head_channels {head_channels}: expected one of them")
        if groups is not None and norm != "group":
            raise ValueError(f"network.groups {groups}: norm {norm!r} has none, only 'group' has")
        if middle == "double" and middle_attention:
            raise ValueError("network.middle 'double' has no attention: it goes with middle_attention false")
        widths = tuple(round(base_channels * m) for m in multipliers)
        if any(abs(w - base_channels * m) > 1e-6 * w for w, m in zip(widths, multipliers, strict=True)):
            raise ValueError(
                f"network.multipliers {list(multipliers)} of {base_channels} channels are no whole numbers"
            )
        counts = (blocks,) * len(widths) if isinstance(blocks, int) else tuple(blocks)
        if len(counts) != len(widths):
            raise ValueError(f"network.blocks {list(counts)}: expected one number, or {len(widths)} as multipliers has")
        sizes = [(size[0] // patch, size[1] // patch)]
        for _ in widths[1:]:
            sizes.append(((sizes[-1][0] + 1) // 2, (sizes[-1][1] + 1) // 2))
        sides = [min(s) for s in sizes]
        if any(side not in sides for side in attention):
            raise ValueError(f"network.attention {list(attention)}: expected among the network's resolutions, {sides}")
        embedding = 4 * base_channels
        style = Style(norm_of(norm, groups, norm_eps), ACTIVATIONS[activation], entry, embedding, dropout, rescale)
        if block not in registry("block"):
            raise registry("block").unknown(block, "network.block")
        made = partial(registry("block")[block], **({"repeats": repeats, "links": links} if block == "double" else {}))
        many = partial(_heads, heads=heads, head_channels=head_channels)
        plan = Plan(
            inputs=(in_channels * (2 if upsampler else 1)) * patch**2,
            widths=widths,
            sizes=tuple(sizes),
            blocks=counts,
            heads=tuple(many(w) if side in attention else 0 for w, side in zip(widths, sides, strict=True)),
            style=style,
            block=lambda inputs, outputs: made(inputs, outputs, style),
            every_block=skips == "block",
        )
        self.patch, self.classes, self.upsampler = patch, classes, upsampler
        self.widths, self.sizes = widths, plan.sizes
        self.trunk = Trunk(
            plan,
            _stem(stem, plan),
            TimeAndClass(base_channels, embedding, classes, time_endpoint) if entry != "bottom" else None,
            BottomMaps(widths[-1] // 2, sizes[-1], classes, time_range) if entry == "bottom" else None,
            middle,
            many(widths[-1]) if middle_attention else 0,
            down,
        )
        kept, channels = list(self.trunk.kept), self.trunk.channels
        decoder = []
        for i, width in reversed(list(enumerate(widths))):
            layers = []
            coarsest = i == len(widths) - 1
            for j in range(counts[i] + 1 if plan.every_block else 0 if coarsest else max(1, counts[i])):
                skip = kept.pop() if plan.every_block or j == 0 else 0
                layers.append(plan.layer(channels + skip, width, plan.heads[i]))
                channels = width
            decoder.append(Level(layers, UP[up](channels, style) if i else None))
        self.decoder: Any = nn.ModuleList(decoder)
        out = nn.Conv2d(channels, out_channels * patch**2, 3, padding=1)
        self.head = nn.Sequential(style.norm(channels), style.activation(), zero(out))

    def forward(
        self,
        x: Float[Tensor, "n c h w"],
        time: Float[Tensor, "n"],
        label: Int64[Tensor, "n"] | None = None,
        low: Float[Tensor, "n c h2 w2"] | None = None,
    ) -> Float[Tensor, "n d h w"]:
        if self.classes and label is None:
            raise ValueError("this network is class-conditional: it needs a label for each image")
        if self.upsampler:
            if low is None:
                raise ValueError("this network is an upsampler: it needs a `low` image for each image")
            x = torch.cat([x, functional.interpolate(low, size=x.shape[-2:], mode="bilinear")], dim=1)
        elif low is not None:
            raise ValueError("this network is no upsampler (network.upsampler): it takes no `low` image")
        h, skips, e = self.trunk(functional.pixel_unshuffle(x, self.patch) if self.patch > 1 else x, time, label)
        h = self.head(self.ascend(h, skips, e))
        return functional.pixel_shuffle(h, self.patch) if self.patch > 1 else h

    def ascend(self, h: Tensor, skips: list[Tensor], e: Tensor | None) -> Tensor:
        """From the coarsest features to the finest that the skips lead to."""
        skips = list(skips)
        for level in self.decoder:
            for j, layer in enumerate(level.layers):
                if self.trunk.every_block or j == 0:
                    h = torch.cat([h, skips.pop()], dim=1)
                h = layer(h, e)
            if not skips:
                break
            if level.resample is not None:
                h = level.resample(h, e, skips[-1].shape[-2:])
        return h


def _heads(width: int, heads: int | None, head_channels: int | None) -> int:
    each = head_channels or width // (heads or 1)
    if width % (head_channels or heads or 1):
        what = f"head_channels {head_channels}" if head_channels else f"heads {heads}"
        raise ValueError(f"network.{what} does not divide {width} channels")
    return width // each


def _stem(kind: str, plan: Plan) -> nn.Module:
    if kind == "double":
        plain = Style(plan.style.norm, plan.style.activation, "bottom")
        return Plain(DoubleConv(plan.inputs, plan.widths[0], plain))
    side = 3 if kind == "conv" else 1
    return nn.Conv2d(plan.inputs, plan.widths[0], side, padding=side // 2)


class Plain(nn.Module):
    """A block that is given no embedding."""

    def __init__(self, block: nn.Module):
        super().__init__()
        self.block = block

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d h w"]:
        return self.block(x, None)
