"""Classifiers of images, whose last features serve as a measure of other images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import torch
from annotated_types import Ge, Len, Lt
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from trilemma.networks.norms import BatchNorm2d
from trilemma.networks.unet import UNet
from trilemma.registry import register


@register("network", "classifier")
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

    def stages(self, x: Float[Tensor, "n c h w"]) -> list[Float[Tensor, "n d h2 w2"]]:
        """The last feature maps of each stage."""
        found = []
        for layer in self.trunk:
            if isinstance(layer, nn.MaxPool2d | nn.AdaptiveAvgPool2d):
                found.append(x)
            x = layer(x)
        return found

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        return self.head(self.dropout(self.features(x)))


class AttentionPool(nn.Module):
    """Feature maps of `size` (h, w) -> [n, channels]: their positions and, before them, the mean over positions, each
    with a learned vector added; multi-head attention from the mean to all of them (CLIP: Radford et al. 2021, section
    2.3; Dhariwal & Nichol 2021, section 4)."""

    def __init__(self, channels: int, size: tuple[int, int], heads: int):
        super().__init__()
        self.heads = heads
        self.position = nn.Parameter(torch.randn(channels, 1 + size[0] * size[1]) / channels**0.5)
        self.qkv = nn.Linear(channels, 3 * channels)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c"]:
        tokens, c = x.flatten(2).transpose(1, 2), x.shape[1]
        if tokens.shape[1] + 1 != self.position.shape[1]:
            expected = self.position.shape[1] - 1
            raise ValueError(f"attention pooling over {tokens.shape[1]} positions: made for images with {expected}")
        tokens = torch.cat([tokens.mean(1, keepdim=True), tokens], dim=1) + self.position.T
        # What the other positions would ask is not computed: nobody reads the answers.
        (wq, wkv), (bq, bkv) = (part.split([c, 2 * c]) for part in (self.qkv.weight, self.qkv.bias))
        q = functional.linear(tokens[:, :1], wq, bq)
        k, v = functional.linear(tokens, wkv, bkv).chunk(2, dim=2)
        q, k, v = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in (q, k, v))
        return functional.scaled_dot_product_attention(q, k, v).flatten(1)


@register("network", "noisy_classifier")
class NoisyClassifier(nn.Module):
    """ADM's classifier of noised images, logits [n, classes] of (x_t, time), for images of `size` (h, w): the U-Net's
    trunk, norm, activation, attention pooling over the coarsest resolution, one linear layer (Dhariwal & Nichol 2021,
    section 4; 8×8 there). Images of another size are refused: a learned vector belongs to each position.

    Arguments: the U-Net's, less patch, upsampler and latent; and `pool_head_channels`: of each attention head in the
    pooling.
    """

    passes_on = UNet  # whose arguments `**unet` are: recipes check them against its constructor

    def __init__(
        self,
        in_channels: int,
        classes: int,
        size: tuple[int, int],
        *,
        pool_head_channels: Annotated[int, Ge(1)] = 64,
        **unet: Any,
    ):
        super().__init__()
        whole = UNet(in_channels, in_channels, size, **unet)
        if whole.patch > 1 or whole.upsampler:
            raise ValueError("network.patch and network.upsampler: a classifier of noised images has neither")
        if whole.latent:
            raise ValueError(f"network.latent {whole.latent}: a classifier of noised images takes none")
        self.trunk = whole.trunk
        self.dim = channels = self.trunk.channels
        if channels % pool_head_channels:
            raise ValueError(f"network.pool_head_channels {pool_head_channels} does not divide {channels} channels")
        self.out = nn.Sequential(self.trunk.style.norm(channels), self.trunk.style.activation())
        self.pool = AttentionPool(channels, whole.sizes[-1], channels // pool_head_channels)
        self.head = nn.Linear(channels, classes)

    def features(self, x: Float[Tensor, "n c h w"], time: Float[Tensor, "n"]) -> Float[Tensor, "n d"]:
        """What the attention pooling gives."""
        h, _, _ = self.trunk(x, time, None)
        return self.pool(self.out(h))

    def forward(self, x: Float[Tensor, "n c h w"], time: Float[Tensor, "n"]) -> Float[Tensor, "n k"]:
        return self.head(self.features(x, time))
