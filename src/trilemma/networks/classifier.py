"""Classifiers of images, whose last features serve as a measure of other images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from annotated_types import Ge, Len, Lt
from jaxtyping import Float
from torch import Tensor, nn

from trilemma.networks.blocks import BatchNorm2d


class ConvClassifier(nn.Module):
    """A small convolutional classifier: 3×3 convolutions with batch normalisation and ReLU, max pooling between
    stages, the mean over positions as features [n, widths[-1][-1]], one linear layer to the logits.

    Recipe arguments: `widths`: the channels of every convolution, one list a stage. `dropout`: on the features.
    """

    def __init__(
        self,
        in_channels: int,
        classes: int,
        *,
        widths: Annotated[Sequence[Sequence[Annotated[int, Ge(1)]]], Len(1)] = ((32,), (64,), (128, 128)),
        dropout: Annotated[float, Ge(0), Lt(1)] = 0.2,
    ):
        super().__init__()
        layers: list[nn.Module] = []
        channels = in_channels
        for i, stage in enumerate(widths):
            layers += [nn.MaxPool2d(2)] if i else []
            for width in stage:
                layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), BatchNorm2d(width), nn.ReLU()]
                channels = width
        self.trunk = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(channels, classes)
        self.dim = channels

    def features(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """The mean of the last feature maps over positions."""
        return self.trunk(x)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        return self.head(self.dropout(self.features(x)))
