"""Fourier features, and the U-Net without downsampling that they were published with."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trilemma.networks import UNet
from trilemma.networks.embeddings import with_fourier

FLAT: dict[str, Any] = {"base_channels": 8, "multipliers": (1,), "blocks": 1, "attention": (), "dropout": 0.0}


def images(channels: int = 2) -> Tensor:
    return torch.randn(3, channels, 4, 6, generator=torch.Generator().manual_seed(0))


def test_are_sines_and_cosines_of_every_channel() -> None:
    x = images()
    expected = [x]
    for n in (3, 7):
        expected += [torch.sin(2**n * math.pi * x.double()), torch.cos(2**n * math.pi * x.double())]
    found = with_fourier(x, (3, 7))
    assert found.shape == (3, 10, 4, 6)
    torch.testing.assert_close(found.double(), torch.cat(expected, 1).double(), rtol=0, atol=2e-4)
    assert with_fourier(x, ()) is x


def test_are_computed_in_float32_under_bf16() -> None:
    """The next level is half a period away at 2^7: to three digits there would be nothing left of it."""
    x = images()
    with torch.autocast("cpu", torch.bfloat16):
        found = with_fourier(x, (7, 8))
    assert found.dtype == torch.float32 and torch.equal(found, with_fourier(x, (7, 8)))
    assert with_fourier(x.to(torch.bfloat16), (7,)).dtype == torch.float32
    assert with_fourier(x.double(), (7,)).dtype == torch.float64


@pytest.mark.parametrize("more", [{}, {"patch": 2}, {"upsampler": True}], ids=str)
def test_reach_the_first_convolution(more: dict[str, Any]) -> None:
    network = UNet(2, 2, (4, 6), **FLAT, **more, fourier=[7, 8])
    seen: list[Tensor] = []
    network.trunk.stem.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    low = {"low": images()[:, :, ::2, ::2]} if "upsampler" in more else {}
    network(images(), torch.zeros(3), **low)
    patch = more.get("patch", 1)
    expected = with_fourier(images(), (7, 8))
    expected = nn.functional.pixel_unshuffle(expected, patch) if patch > 1 else expected
    assert torch.equal(seen[0][:, : expected.shape[1]], expected)
    assert seen[0].shape[1] == expected.shape[1] + 2 * bool(low)


def test_the_published_network_has_its_parameters() -> None:
    """Counted by hand from Kingma et al. 2021, appendix B: 32 blocks down, 33 up that take what they skip, one
    attention in the middle, 128 channels throughout. Beside theirs each block's layer of the time has a bias."""

    def conv(inputs: int, outputs: int, side: int = 3) -> int:
        return side * side * inputs * outputs + outputs

    def norm(channels: int) -> int:
        return 2 * channels

    def block(inputs: int) -> int:
        time = 4 * 128 * 128 + 128
        shortcut = conv(inputs, 128, 1) if inputs != 128 else 0
        return norm(inputs) + conv(inputs, 128) + time + norm(128) + conv(128, 128) + shortcut

    attention = norm(128) + 4 * conv(128, 128, 1)
    embedding = (128 + 1) * 512 + (512 + 1) * 512
    ends = conv(3 * (1 + 2 * 2), 128) + norm(128) + conv(128, 3)
    expected = ends + embedding + 32 * block(128) + (2 * block(128) + attention) + 33 * block(256)
    with torch.device("meta"):
        network = UNet(
            3, 3, (32, 32), multipliers=[1], blocks=32, attention=(), groups=32, time_endpoint=True, fourier=[7, 8]
        )
    assert sum(parameter.numel() for parameter in network.parameters()) == expected == 30_586_243
    assert {m.num_groups for m in network.modules() if isinstance(m, nn.GroupNorm)} == {32}
    assert network.sizes == ((32, 32),)
