"""The ends of a network: stems, which give the first features, and heads, which make the output of the last."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from trilemma.networks.blocks import DoubleConv
from trilemma.networks.norms import Style


def conv_head(channels: int, outputs: int, style: Style) -> nn.Module:
    """Norm, activation, 3×3 convolution (Ho et al. 2020)."""
    out = style.last(nn.Conv2d(channels, outputs, 3, padding=1))
    return nn.Sequential(style.norm(channels), style.activation(), out)


def point_head(channels: int, outputs: int, style: Style) -> nn.Module:
    """A 1×1 convolution (Ronneberger et al. 2015; D, as the code it adapts has it)."""
    return style.last(nn.Conv2d(channels, outputs, 1))


STEMS: dict[str, Callable[[int, int, Style], nn.Module]] = {
    "conv": lambda inputs, channels, style: nn.Conv2d(inputs, channels, 3, padding=1),
    "point": lambda inputs, channels, style: nn.Conv2d(inputs, channels, 1),
    "double": lambda inputs, channels, style: DoubleConv(inputs, channels, style.plain(), end="norm"),
}
HEADS: dict[str, Callable[[int, int, Style], nn.Module]] = {"conv": conv_head, "point": point_head}
