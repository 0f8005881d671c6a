"""Generators of latents alone, as the learners of GANs and VAEs have them."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from trilemma.errors import InputError
from trilemma.process import Denoiser, Draw, Prior, latent_of
from trilemma.training.learners import Given


def drawn(generator: nn.Module, given: Given) -> Denoiser:
    """A generator as a denoiser of one step: what it makes of a latent is an x̂_0 of nothing but noise."""
    return Denoiser(generator, Prior(), "x0", "fixed_small", given.range)


def latents(denoiser: Denoiser, draw: Draw, like: Float[Tensor, "n ..."]) -> Float[Tensor, "n d"]:
    """A latent for each of `like`, and placed as it is."""
    return draw.normal(like.new_empty(len(like), denoiser.latent))


def generator_of(given: Given, conditional: bool) -> nn.Module:
    """The recipe's network as a generator of latents."""
    channels, *size = given.shape
    generator = given.network(out_channels=channels, size=tuple(size), classes=len(given.classes) if conditional else 0)
    check_generator(generator, given)
    return generator


def check_generator(generator: nn.Module, given: Given) -> None:
    """Raises InputError for a network that takes no latent, and for a range that its images do not lie in."""
    if not latent_of(generator):
        raise InputError(
            f"network {type(generator).__name__}: it takes no latent, and what it makes of nothing else would be one "
            "image; expected network.latent, such as 100"
        )
    if given.range != (-1.0, 1.0):
        raise InputError(f"data.range {list(given.range)}: a generator's images lie in [-1, 1]; expected that range")
