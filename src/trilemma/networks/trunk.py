"""The half of a U-Net that goes down, and the layers and levels that both halves are made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from trilemma.networks.blocks import DoubleConv
from trilemma.networks.embeddings import BottomMaps, LatentMapping, TimeAndClass
from trilemma.networks.norms import Style
from trilemma.networks.resampling import DOWN, FilteredDown


def attending(attention: Sequence[int], sides: Sequence[int]) -> tuple[bool, ...]:
    """Which levels have attention, finest first: those whose resolution (`sides`) is named, and those that are counted
    from the coarsest, −1. Raises ValueError for one that is not there."""
    if any(each not in sides and not -len(sides) <= each < 0 for each in attention):
        levels = ", ".join(str(i - len(sides)) for i in range(len(sides)))
        raise ValueError(
            f"network.attention {list(attention)}: expected among the network's resolutions, {list(sides)}, or its "
            f"levels counted from the coarsest, {levels}"
        )
    return tuple(side in attention or i - len(sides) in attention for i, side in enumerate(sides))


class Layer(nn.Module):
    """A block; what time and class add after it, if that is where they enter; self-attention where there is some."""

    def __init__(self, block: nn.Module, outputs: int, style: Style, attention: nn.Module | None = None):
        super().__init__()
        self.block = block
        self.embed = nn.Linear(style.embedding, outputs) if style.entry == "after" else None
        self.attention = attention

    def forward(self, x: Float[Tensor, "n c h w"], e: Float[Tensor, "n e"] | None) -> Float[Tensor, "n d h w"]:
        h = self.block(x, e)
        if self.embed is not None:
            h = h + self.embed(e)[:, :, None, None]
        return h if self.attention is None else self.attention(h)


class Level(nn.Module):
    """The layers at one resolution, which give `channels`, and the change to the next, if there is one; `pyramid` does
    the same to what the input pyramid has at this resolution, if there is such a pyramid."""

    def __init__(
        self, layers: Sequence[Layer], channels: int, resample: nn.Module | None, pyramid: nn.Module | None = None
    ):
        super().__init__()
        self.layers: Any = nn.ModuleList(layers)
        self.channels = channels
        self.resample, self.pyramid = resample, pyramid


@dataclass(frozen=True)
class Plan:
    """What a U-Net is built by: the channels at its entrance; width, count of blocks and whether there is attention at
    each level, finest first; the network's style; and how to make a block of so many inputs and outputs, and attention
    over so many channels."""

    inputs: int
    widths: tuple[int, ...]
    blocks: tuple[int, ...]
    attends: tuple[bool, ...]
    style: Style
    block: Callable[[int, int], nn.Module]
    attention: Callable[[int], nn.Module]
    every_block: bool

    def layer(self, inputs: int, outputs: int, attends: bool) -> Layer:
        block = self.block(inputs, outputs)
        return Layer(block, outputs, self.style, self.attention(outputs) if attends else None)


class Trunk(nn.Module):
    """The half that goes down: stem, levels, middle. Gives the coarsest features, the skips, and the embedding, of the
    time and the class and, after it, of the latent vector.

    `input_pyramid`: beside the levels the image is brought down too, by filtered convolutions, and meets their features
    at each resolution; their (rescaled) sum goes on in both (Song et al. 2021, C.2, "residual")."""

    def __init__(
        self,
        plan: Plan,
        stem: nn.Module,
        embedding: TimeAndClass | None,
        bottom: BottomMaps | None,
        middle: Literal["blocks", "double"],
        middle_attention: bool,
        down: str,
        mapping: LatentMapping | None = None,
        input_pyramid: bool = False,
    ):
        super().__init__()
        self.every_block, self.style = plan.every_block, plan.style
        self.embedding, self.mapping, self.stem, self.bottom = embedding, mapping, stem, bottom
        channels = plan.widths[0]
        kept = [channels] if self.every_block else []
        levels: list[Level] = []
        for i, width in enumerate(plan.widths):
            layers = []
            for _ in range(plan.blocks[i]):
                layers.append(plan.layer(channels, width, plan.attends[i]))
                channels = width
                kept += [channels] if self.every_block else []
            last = i == len(plan.widths) - 1
            kept += [] if last else [channels]
            pyramid = FilteredDown(levels[-1].channels if i else plan.inputs, channels) if input_pyramid else None
            resample = None if last else DOWN[down](channels, plan.style)
            levels.append(Level(layers, channels, resample, None if last else pyramid))
        self.levels: Any = nn.ModuleList(levels)
        self.kept, self.channels = kept, channels
        inputs = channels + (bottom.channels if bottom else 0)
        made: list[nn.Module]
        if middle == "double":
            # D's bottleneck takes no time and is the same whatever the blocks.
            steps = [(inputs, 2 * channels), (2 * channels, 2 * channels), (2 * channels, channels)]
            made = [DoubleConv(a, b, plan.style.plain(), end="norm") for a, b in steps]
        else:
            made = [plan.layer(inputs, channels, middle_attention), plan.layer(channels, channels, False)]
        self.middle = nn.ModuleList(made)

    def forward(
        self,
        x: Float[Tensor, "n c h w"],
        time: Float[Tensor, "n"],
        label: Int64[Tensor, "n"] | None,
        low_time: Float[Tensor, "n"] | None = None,
        latent: Float[Tensor, "n z"] | None = None,
    ) -> tuple[Float[Tensor, "n d h2 w2"], list[Tensor], Float[Tensor, "n e"] | None]:
        e = self.embedding(time, label, low_time) if self.embedding is not None else None
        if self.mapping is not None:
            e = torch.cat([part for part in (e, self.mapping(latent)) if part is not None], dim=1)
        return *self.descend(self.stem(x), e, time, label, image=x), e

    def descend(
        self,
        h: Tensor,
        e: Tensor | None,
        time: Tensor | None = None,
        label: Tensor | None = None,
        first: int = 0,
        image: Tensor | None = None,
    ) -> tuple[Tensor, list[Tensor]]:
        """From the features with which level `first` begins to the coarsest ones, and the skips on the way. `image`:
        where an input pyramid begins."""
        pyramid = image
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
                if level.pyramid is not None:
                    h = pyramid = self.style.residual(level.pyramid(pyramid), h)
                if self.every_block:
                    skips.append(h)
        if self.bottom is not None:
            h = torch.cat([h, self.bottom(time, label).to(h.dtype)], dim=1)
        for middle in self.middle:
            h = middle(h, e)
        return h, skips
