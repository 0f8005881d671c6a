"""The discriminator that judges patches (Isola et al. 2017)."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge
from jaxtyping import Float, Int64
from torch import Tensor, nn

from trilemma.networks.embeddings import check_label
from trilemma.networks.norms import BatchNorm2d, xavier
from trilemma.registry import register

WIDEST = 8
"""Times `base_channels` are the most channels of a map."""


@register("network", "patch_discriminator")
class PatchDiscriminator(nn.Module):
    """Logits [n] of images, real or made: the mean of those of overlapping patches (Isola et al. 2017, section 3.2 and
    appendix 6.1.2): 4×4 convolutions, padded by one, of which `layers` halve the size and double the channels and two
    more do not, each but the first and the last with batch norm, each but the last with a leaky ReLU. With three,
    patches are 70×70. Where there are classes, the inner product of the last features' mean and a vector of the class
    is added (Miyato & Koyama 2018, eq. 4).

    Recipe arguments: `base_channels`: of the first map. `layers`: convolutions that halve the size."""

    def __init__(
        self,
        in_channels: int,
        size: tuple[int, int],
        classes: int = 0,
        *,
        base_channels: Annotated[int, Ge(1)] = 64,
        layers: Annotated[int, Ge(1)] = 3,
    ):
        super().__init__()
        if min(size) < 3 * 2**layers:
            raise ValueError(
                f"layers {layers}: of images of {size[0]}×{size[1]} they leave nothing, expected sides of "
                f"{3 * 2**layers} or more, or fewer layers"
            )
        self.classes = classes
        made: list[nn.Module] = []
        channels = in_channels
        for i in range(layers + 1):
            width, plain = base_channels * min(2**i, WIDEST), i == 0
            made.append(_drawn(nn.Conv2d(channels, width, 4, 2 if i < layers else 1, padding=1, bias=plain)))
            made += [] if plain else [_drawn(BatchNorm2d(width))]
            made.append(nn.LeakyReLU(0.2))
            channels = width
        self.trunk = nn.Sequential(*made)
        self.head = _drawn(nn.Conv2d(channels, 1, 4, padding=1))
        self.label = xavier(nn.Embedding(classes, channels)) if classes else None

    def forward(self, x: Float[Tensor, "n c h w"], label: Int64[Tensor, "n"] | None = None) -> Float[Tensor, "n"]:
        check_label(self.classes, label)
        features = self.trunk(x)
        logits = self.head(features).mean((1, 2, 3))
        return logits if self.label is None else logits + (self.label(label) * features.mean((2, 3))).sum(1)


def _drawn(layer: nn.Conv2d | BatchNorm2d) -> nn.Module:
    """The layer, its weights about 0, a norm's about 1, of standard deviation 0.02 (Isola et al. 2017, 6.2)."""
    nn.init.normal_(layer.weight, float(isinstance(layer, BatchNorm2d)), 0.02)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
