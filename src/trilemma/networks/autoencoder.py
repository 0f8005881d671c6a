"""The autoencoder whose latents are diffused (Rombach et al. 2022)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import torch
from annotated_types import Ge, Gt, Len, Lt
from jaxtyping import Float
from torch import Tensor, nn

from trilemma.networks.attention import SelfAttention
from trilemma.networks.blocks import ResidualBlock
from trilemma.networks.ends import conv_head
from trilemma.networks.norms import Style, norm_of
from trilemma.networks.resampling import NearestUp
from trilemma.networks.trunk import Level, Plan, Trunk, attending
from trilemma.registry import register

LOG_VARIANCES = (-30.0, 20.0)
"""What log variances are held to."""


@register("network", "autoencoder")
class Autoencoder(nn.Module):
    """Images of `size` (h, w) to latents of a side 1/f of theirs and back (Rombach et al. 2022, appendix E.1: Esser et
    al. 2021, table 7): the U-Net's trunk without time, of which the encoder is made, and its mirror image without
    skips, a block more at each resolution; a norm, an activation and a 3×3 convolution end both, and a 1×1 convolution
    lies on either side of the latents. f = 2^(levels − 1). It is convolutional: images of any size that f divides.

    Recipe arguments:
        base_channels: channels at the finest resolution; `multipliers`: times this at each resolution, finest first.
        blocks: residual blocks at each resolution of the encoder; the decoder has one more.
        latent_channels: of the latents.
        attention: resolutions (the feature map's shorter side) with self-attention, or levels, −1 the coarsest; and
            `middle_attention`.
        dropout: in every block. groups: of group norm, as many as leave four channels in each unless given.
    """

    def __init__(
        self,
        in_channels: int,
        size: tuple[int, int],
        *,
        base_channels: Annotated[int, Ge(1)] = 128,
        multipliers: Annotated[Sequence[Annotated[int, Gt(0)]], Len(1)] = (1, 2, 4),
        blocks: Annotated[int, Ge(1)] = 2,
        latent_channels: Annotated[int, Ge(1)] = 3,
        attention: Sequence[int] = (),
        middle_attention: bool = True,
        dropout: Annotated[float, Ge(0), Lt(1)] = 0.0,
        groups: Annotated[int, Ge(1)] | None = None,
    ):
        super().__init__()
        widths = tuple(base_channels * m for m in multipliers)
        self.latent_channels, self.factor = latent_channels, 2 ** (len(widths) - 1)
        self._check(size)
        sides = [min(size) // 2**i for i in range(len(widths))]
        style = Style(norm_of("group", groups, 1e-6), entry="bottom", dropout=dropout, zero_init=False)
        plan = Plan(
            inputs=in_channels,
            widths=widths,
            blocks=(blocks,) * len(widths),
            attends=attending(attention, sides),
            style=style,
            block=lambda inputs, outputs: ResidualBlock(inputs, outputs, style),
            attention=lambda channels: SelfAttention(channels, 1, style),
            every_block=False,
        )
        stem = nn.Conv2d(in_channels, widths[0], 3, padding=1)
        self.encoder = Trunk(plan, stem, None, None, "blocks", middle_attention, "strided_same")
        channels = widths[-1]
        self.encoder_head = conv_head(channels, 2 * latent_channels, style)
        self.to_latents = nn.Conv2d(2 * latent_channels, 2 * latent_channels, 1)
        self.of_latents = nn.Conv2d(latent_channels, latent_channels, 1)
        self.decoder_stem = nn.Conv2d(latent_channels, channels, 3, padding=1)
        self.decoder_middle = nn.ModuleList(plan.layer(channels, channels, at) for at in (middle_attention, False))
        decoder = []
        for i, width in reversed(list(enumerate(widths))):
            layers = [plan.layer(channels if j == 0 else width, width, plan.attends[i]) for j in range(blocks + 1)]
            channels = width
            decoder.append(Level(layers, channels, NearestUp(channels, style) if i else None))
        self.decoder: Any = nn.ModuleList(decoder)
        self.decoder_head = conv_head(channels, in_channels, style)

    def _check(self, size: tuple[int, int]) -> None:
        nearest = [max(1, round(side / self.factor)) * self.factor for side in size]
        if nearest != list(size):
            raise ValueError(
                f"network.multipliers: {self.factor.bit_length()} resolutions, the coarsest 1/{self.factor} of the "
                f"images', and {self.factor} does not divide the image size {size[0]}×{size[1]}; the nearest size that "
                f"it divides is {nearest[0]}×{nearest[1]}"
            )

    def encode(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d2 h2 w2"]:
        """Means and log variances of q(z | x), one after the other: 2 `latent_channels`. Raises ValueError for images
        of a size that f does not divide."""
        self._check((x.shape[2], x.shape[3]))
        h, _ = self.encoder.descend(self.encoder.stem(x), None)
        mean, log_variance = self.to_latents(self.encoder_head(h)).chunk(2, dim=1)
        return torch.cat([mean, log_variance.clamp(*LOG_VARIANCES)], dim=1)

    def decode(self, z: Float[Tensor, "n d h2 w2"]) -> Float[Tensor, "n c h w"]:
        """Images of latents."""
        h = self.decoder_stem(self.of_latents(z))
        for layer in self.decoder_middle:
            h = layer(h, None)
        for level in self.decoder:
            for layer in level.layers:
                h = layer(h, None)
            if level.resample is not None:
                h = level.resample(h, None, (2 * h.shape[2], 2 * h.shape[3]))
        return self.decoder_head(h)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """Images of the means of their latents."""
        return self.decode(self.encode(x)[:, : self.latent_channels])
