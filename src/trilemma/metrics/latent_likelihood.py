"""What a latent model's likelihood says of images: the bound of a codec and a model of its latents together."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from trilemma.errors import InputError
from trilemma.process import Codec, Draw, discretized_nll


@dataclass(frozen=True)
class OfLatents:
    """For n images a draw z of q(z | x), and what there is of the bound beside −log p(z), in bits/dim of the images
    [n]: `distortion`, −log₂ p(x | z) of their levels, and `entropy`, that of q(z | x), which is taken off. `share`: the
    numbers of a latent for each of an image."""

    z: Float[Tensor, "n d h w"]
    distortion: Float64[Tensor, "n"]
    entropy: Float64[Tensor, "n"]
    share: float

    def total(self, of_z: Float64[Tensor, "n"]) -> Float64[Tensor, "n"]:
        """The bound on −log₂ p(x) in bits/dim of the images, from −log₂ p(z), or a bound on it, in those of latents."""
        return self.distortion + self.share * of_z - self.entropy


@torch.no_grad()
def of_latents(
    codec: Codec, x: Float[Tensor, "n c h w"], data_range: tuple[float, float], draw: Draw, levels: int = 256
) -> OfLatents:
    """The bound −log p(x) ≤ E_q[−log p(x | z) − log p(z) + log q(z | x)] (Vahdat et al. 2021, eq. 6) of images in the
    data's range, less its middle term, at one z an image. Raises InputError as `check_bound`."""
    check_bound(codec)
    mean, deviation = codec.moments(x)
    if deviation is None:
        raise InputError("nll: the codec's encoder states no spread of its latents, and without one nothing is bounded")
    z = mean + deviation * draw.normal(mean)
    assert codec.log_sigma is not None
    made = codec.decode(z)
    nats = discretized_nll(x, made, 2 * codec.log_sigma.to(made), data_range, levels)
    dims = x[0].numel()
    entropy = (deviation.double().log() + 0.5 * math.log(2 * math.pi * math.e)).flatten(1).sum(1)
    to_bits = 1 / (dims * math.log(2))
    distortion = nats.double().flatten(1).sum(1) * to_bits
    return OfLatents(z, distortion.cpu(), (entropy * to_bits).cpu(), z[0].numel() / dims)


def check_bound(codec: Codec) -> None:
    """Raises InputError for a codec that says no p(x | z): then a model of its latents bounds no likelihood of
    images."""
    if codec.log_sigma is None:
        raise InputError(
            "nll: the codec states no σ of p(x | z), so a model of its latents bounds no likelihood of images; "
            "expected one that learner autoencoder trained, with reconstruction l2"
        )
