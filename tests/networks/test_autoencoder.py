"""The autoencoder against its published size and what its parts do."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.networks.test_unet import awake, count, images
from trilemma.networks import Autoencoder
from trilemma.networks.autoencoder import LOG_VARIANCES

TINY: dict[str, Any] = {"base_channels": 8, "multipliers": (1, 2), "blocks": 1}


def conv(inputs: int, outputs: int, side: int) -> int:
    """Parameters of a convolution."""
    return outputs * (inputs * side**2 + 1)


def block(inputs: int, outputs: int) -> int:
    """Parameters of a residual block."""
    shortcut = conv(inputs, outputs, 1) if inputs != outputs else 0
    return 2 * inputs + conv(inputs, outputs, 3) + 2 * outputs + conv(outputs, outputs, 3) + shortcut


def test_has_the_published_size() -> None:
    """Rombach et al. 2022's f = 4 with three channels (128 channels times 1, 2, 4; two blocks), layer by layer."""
    middle = 2 * block(512, 512) + 2 * 512 + 4 * conv(512, 512, 1)
    encoder = conv(3, 128, 3) + 2 * block(128, 128) + block(128, 256) + block(256, 256) + block(256, 512)
    encoder += block(512, 512) + conv(128, 128, 3) + conv(256, 256, 3) + middle + 2 * 512 + conv(512, 6, 3)
    decoder = conv(3, 512, 3) + middle + 3 * block(512, 512) + block(512, 256) + 2 * block(256, 256)
    decoder += block(256, 128) + 2 * block(128, 128) + conv(512, 512, 3) + conv(256, 256, 3) + 2 * 128 + conv(128, 3, 3)
    with torch.device("meta"):
        assert count(Autoencoder(3, (256, 256))) == encoder + decoder + conv(6, 6, 1) + conv(3, 3, 1)


@pytest.mark.parametrize(("multipliers", "factor"), [((1,), 1), ((1, 2), 2), ((1, 2, 2, 4), 8)])
def test_each_level_but_the_last_halves_the_size(multipliers: tuple[int, ...], factor: int) -> None:
    network = Autoencoder(1, (16, 24), base_channels=4, multipliers=multipliers, blocks=1, latent_channels=5)
    encoded = network.encode(images(2, 1, 16, 24))
    assert encoded.shape == (2, 10, 16 // factor, 24 // factor)
    assert network.decode(encoded[:, :5]).shape == (2, 1, 16, 24)


def test_the_whole_is_the_mean_decoded() -> None:
    network, x = awake(Autoencoder(1, (8, 8), **TINY)), images(2, 1, 8, 8)
    assert torch.equal(network(x), network.decode(network.encode(x)[:, :3]))


def test_log_variances_are_held() -> None:
    network, x = awake(Autoencoder(1, (8, 8), **TINY)), images(2, 1, 8, 8)
    before = network.encode(x)
    with torch.no_grad():
        network.to_latents.bias += 1000 * torch.tensor([1, 1, 1, 1, -1, 0])
    mean, log_variance = network.encode(x).chunk(2, dim=1)
    torch.testing.assert_close(mean, before[:, :3] + 1000, rtol=1e-5, atol=1e-3)
    assert (log_variance[:, 0] == LOG_VARIANCES[1]).all() and (log_variance[:, 1] == LOG_VARIANCES[0]).all()
    torch.testing.assert_close(log_variance[:, 2], before[:, 5])


def test_takes_images_of_other_sizes_that_it_divides() -> None:
    network = Autoencoder(1, (8, 8), **TINY)
    assert network(images(1, 1, 12, 6)).shape == (1, 1, 12, 6)
    with pytest.raises(ValueError, match="7×6; the nearest size that it divides is 8×6"):
        network(images(1, 1, 7, 6))


@pytest.mark.parametrize(
    ("size", "told"),
    [((30, 28), "4 does not divide the image size 30×28; the nearest size that it divides is 32×28"), ((1, 4), "4×4")],
)
def test_a_size_that_it_does_not_divide_is_refused(size: tuple[int, int], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Autoencoder(1, size)


def test_attention_lies_where_it_is_named() -> None:
    network = Autoencoder(1, (8, 8), **TINY, attention=(4,), middle_attention=False)
    for levels in (network.encoder.levels, reversed(network.decoder)):
        assert [level.layers[0].attention is not None for level in levels] == [False, True]
    assert all(layer.attention is None for layer in [*network.encoder.middle, *network.decoder_middle])
    with pytest.raises(
        ValueError, match=r"network.attention \[5\]: expected among the network's resolutions, \[8, 4\]"
    ):
        Autoencoder(1, (8, 8), **TINY, attention=(5,))


def test_groups_are_those_that_are_given() -> None:
    norms = [m for m in Autoencoder(1, (8, 8), **TINY, groups=8).modules() if isinstance(m, torch.nn.GroupNorm)]
    assert norms and all(norm.num_groups == 8 for norm in norms)
    with pytest.raises(ValueError, match="groups 3 does not divide 8 channels"):
        Autoencoder(1, (8, 8), **TINY, groups=3)
