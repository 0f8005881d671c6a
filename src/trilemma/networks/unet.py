"""The U-Net skeleton: an encoder that halves the resolution, a middle, a decoder that takes up the encoder's skips.

One skeleton, its parts by name: the block, the changes of resolution, how time and class enter, which skips there are.
DDPM's network is its defaults; E's is `block: double, entry: bottom, skips: level, down: max, up: bilinear`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge, Gt, Len, Lt
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from trilemma.networks.attention import SelfAttention
from trilemma.networks.blocks import BLOCKS, DOWN, UP, BatchNorm2d, group_norm, zero
from trilemma.networks.embeddings import BottomMaps, TimeAndClass


class Layer(nn.Module):
    """A block, followed by self-attention where the resolution has it."""

    def __init__(self, block: nn.Module, attention: nn.Module | None):
        super().__init__()
        self.block = block
        self.attention = attention if attention is not None else nn.Identity()

    def forward(self, x: Float[Tensor, "n c h w"], embedding: Tensor | None) -> Float[Tensor, "n d h w"]:
        return self.attention(self.block(x, embedding))


class Level(nn.Module):
    """The layers at one resolution and the change to the next, if there is one."""

    def __init__(self, layers: Sequence[Layer], resample: nn.Module | None):
        super().__init__()
        self.layers: Any = nn.ModuleList(layers)
        self.resample = resample


class UNet(nn.Module):
    """F(x, time, label) -> [n, out_channels, h, w] for images of `size` (h, w); odd sizes round up on the way down.

    Recipe arguments:
        base_channels: channels at the finest resolution; `multipliers`: times this at each resolution, finest first.
        blocks: blocks at each resolution of the encoder.
        attention: resolutions (the feature map's shorter side) with self-attention, and `middle_attention`.
        heads: attention heads. dropout: in every block.
        patch: side of the square patches that are folded into channels first, unfolded last (1: none).
        block, down, up: parts by name, see `networks.blocks`.
        entry: how time and class enter: `added` between a block's convolutions, or as maps at the `bottom` (E 3.3).
        skips: `block`: the decoder takes every block's output (DDPM); `level`: the last one of each resolution.
        time_range: what the time is divided by where it enters as a number (`entry: bottom`).
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
        attention: Sequence[Annotated[int, Ge(1)]] = (16,),
        middle_attention: bool = True,
        heads: Annotated[int, Ge(1)] = 1,
        dropout: Annotated[float, Ge(0), Lt(1)] = 0.1,
        patch: Annotated[int, Ge(1)] = 1,
        block: Literal["residual", "double"] = "residual",
        down: Literal["strided", "max"] = "strided",
        up: Literal["nearest", "bilinear"] = "nearest",
        entry: Literal["added", "bottom"] = "added",
        skips: Literal["block", "level"] = "block",
        time_range: Annotated[float, Gt(0)] = 1000.0,
    ):
        super().__init__()
        if size[0] % patch or size[1] % patch:
            raise ValueError(f"network.patch {patch} does not divide the image size {size[0]}×{size[1]}")
        if (block == "double") != (entry == "bottom"):
            raise ValueError(
                f"network.block {block!r} and network.entry {entry!r} do not go together: double convolutions take "
                "time and class at the bottom, residual blocks added to each"
            )
        widths = [base_channels * m for m in multipliers]
        if any(width % heads for width in widths):
            raise ValueError(f"network.heads {heads} does not divide the channels {widths}")
        sizes = [(size[0] // patch, size[1] // patch)]
        for _ in widths[1:]:
            sizes.append(((sizes[-1][0] + 1) // 2, (sizes[-1][1] + 1) // 2))
        sides = [min(s) for s in sizes]
        if any(side not in sides for side in attention):
            raise ValueError(f"network.attention {list(attention)}: expected among the network's resolutions, {sides}")
        embedding = 4 * base_channels
        self.patch, self.classes = patch, classes
        self.every_block = skips == "block"

        def layer(inputs: int, outputs: int, attend: bool) -> Layer:
            return Layer(
                BLOCKS[block](inputs, outputs, embedding, dropout), SelfAttention(outputs, heads) if attend else None
            )

        self.embedding = TimeAndClass(base_channels, embedding, classes) if entry == "added" else None
        self.bottom = BottomMaps(widths[-1] // 2, sizes[-1], classes, time_range) if entry == "bottom" else None
        self.stem = nn.Conv2d(in_channels * patch**2, base_channels, 3, padding=1)

        channels, kept = base_channels, [base_channels] if self.every_block else []
        encoder = []
        for i, width in enumerate(widths):
            layers = []
            for _ in range(blocks):
                layers.append(layer(channels, width, min(sizes[i]) in attention))
                channels = width
                kept += [width] if self.every_block else []
            last = i == len(widths) - 1
            kept += [] if last else [width]
            encoder.append(Level(layers, None if last else DOWN[down](width)))
        self.encoder: Any = nn.ModuleList(encoder)

        bottom = channels + (self.bottom.channels if self.bottom else 0)
        self.middle = nn.ModuleList([layer(bottom, channels, middle_attention), layer(channels, channels, False)])

        decoder = []
        for i, width in reversed(list(enumerate(widths))):
            coarsest = i == len(widths) - 1
            layers = []
            for j in range(blocks + 1 if self.every_block else 0 if coarsest else blocks):
                skip = kept.pop() if self.every_block or j == 0 else 0
                layers.append(layer(channels + skip, width, min(sizes[i]) in attention))
                channels = width
            decoder.append(Level(layers, UP[up](channels) if i else None))
        self.decoder: Any = nn.ModuleList(decoder)

        norm = BatchNorm2d(channels) if block == "double" else group_norm(channels)
        activation = nn.ReLU() if block == "double" else nn.SiLU()
        out = nn.Conv2d(channels, out_channels * patch**2, 3, padding=1)
        self.head = nn.Sequential(norm, activation, zero(out))

    def forward(
        self, x: Float[Tensor, "n c h w"], time: Float[Tensor, "n"], label: Int64[Tensor, "n"] | None = None
    ) -> Float[Tensor, "n d h w"]:
        if self.classes and label is None:
            raise ValueError("this network is class-conditional: it needs a label for each image")
        embedding = self.embedding(time, label) if self.embedding is not None else None
        h = self.stem(functional.pixel_unshuffle(x, self.patch) if self.patch > 1 else x)
        skips: list[Tensor] = [h] if self.every_block else []
        for level in self.encoder:
            for layer in level.layers:
                h = layer(h, embedding)
                if self.every_block:
                    skips.append(h)
            if level.resample is not None:
                if not self.every_block:
                    skips.append(h)
                h = level.resample(h)
                if self.every_block:
                    skips.append(h)
        if self.bottom is not None:
            h = torch.cat([h, self.bottom(time, label).to(h.dtype)], dim=1)
        for middle in self.middle:
            h = middle(h, embedding)
        for level in self.decoder:
            for j, layer in enumerate(level.layers):
                if self.every_block or j == 0:
                    h = torch.cat([h, skips.pop()], dim=1)
                h = layer(h, embedding)
            if level.resample is not None:
                h = level.resample(h, skips[-1].shape[-2:])
        h = self.head(h)
        return functional.pixel_shuffle(h, self.patch) if self.patch > 1 else h
