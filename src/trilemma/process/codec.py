"""Codecs: between images and the space that is diffused (Rombach et al. 2022, section 3)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from trilemma.errors import InputError
from trilemma.process.noise import Draw

ENCODED = 64
"""Images that are encoded at once, however many are given."""


class Codec(nn.Module):
    """A network's two halves, `encode` and `decode`, with the `scale` that its latents are multiplied by, so that what
    is diffused has unit variance (Rombach et al. 2022, appendix G). Without a network it is the identity: images times
    the scale.

    The network is any module with `latent_channels`, `encode(x)`, images [n, c, h, w] in the data's range to
    [n, latent_channels, h', w'], latents, or twice as many channels, the means and the log variances of q(z | x); and
    `decode(z)`, latents to images. `log_sigma`: log σ of p(x | z) = N(decode(z), σ² I), None where nothing says it:
    then there is no likelihood of images."""

    def __init__(self, network: nn.Module | None = None, scale: float = 1.0, log_sigma: Tensor | None = None):
        super().__init__()
        self.network, self.scale = network, scale
        self._shapes: dict[tuple[int, int, int], tuple[int, int, int]] = {}
        self.log_sigma: Tensor | None
        self.register_buffer("log_sigma", log_sigma, persistent=False)

    @property
    def identity(self) -> bool:
        """Whether latents are the images themselves, scaled."""
        return self.network is None

    def moments(
        self, x: Float[Tensor, "n c h w"]
    ) -> tuple[Float[Tensor, "n d h2 w2"], Float[Tensor, "n d h2 w2"] | None]:
        """Mean and standard deviation of the latents of images in the data's range, scaled; no deviation where the
        encoder states none. Raises InputError for a network whose output has other channels."""
        if self.network is None:
            return x * self.scale, None
        encoded = torch.cat([self.network.encode(part) for part in x.split(ENCODED)])  # type: ignore[operator]
        channels = self.latent_channels
        if encoded.shape[1] == channels:
            return encoded * self.scale, None
        if encoded.shape[1] != 2 * channels:
            raise InputError(
                f"codec {type(self.network).__name__}: its encoder gave {encoded.shape[1]} channels, expected "
                f"{channels} or {2 * channels}, means and log variances"
            )
        mean, log_variance = encoded.chunk(2, dim=1)
        return mean * self.scale, torch.exp(0.5 * log_variance) * self.scale

    def decode(self, z: Float[Tensor, "n d h2 w2"]) -> Float[Tensor, "n c h w"]:
        """Images of scaled latents, about in the data's range."""
        z = z / self.scale
        return z if self.network is None else self.network.decode(z)  # type: ignore[operator]

    def joined(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d2 h2 w2"]:
        """The moments as one: the means and, behind them, the deviations where there are any."""
        mean, deviation = self.moments(x)
        return mean if deviation is None else torch.cat([mean, deviation], dim=1)

    def drawn(self, joined: Float[Tensor, "n d2 h2 w2"], draw: Callable[[], Draw]) -> Float[Tensor, "n d h2 w2"]:
        """Latents of joined moments, a draw of q(z | x) where they have deviations."""
        if self.network is None or joined.shape[1] == self.latent_channels:
            return joined
        mean, deviation = joined.chunk(2, dim=1)
        return mean + deviation * draw().normal(mean)

    @property
    def latent_channels(self) -> int:
        assert self.network is not None
        return int(self.network.latent_channels)  # type: ignore[arg-type]

    @torch.no_grad()
    def shape_of(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """The shape (d, h', w') of the latents of images of this shape (c, h, w)."""
        if self.network is None:
            return shape
        if shape not in self._shapes:
            weight = next(self.network.parameters(), torch.zeros(()))
            channels, height, width = self.moments(weight.new_zeros(1, *shape))[0].shape[1:]
            self._shapes[shape] = (channels, height, width)
        return self._shapes[shape]
