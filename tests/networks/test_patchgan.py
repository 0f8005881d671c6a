"""The discriminator of patches against its paper's sizes."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import nn

from tests.networks.test_unet import count, images
from trilemma.networks import PatchDiscriminator


def test_has_the_published_layers() -> None:
    """C64-C128-C256-C512 (Isola et al. 2017, appendix 6.1.2), the first without a norm, and one channel after them."""
    widths = [64, 128, 256, 512]
    expected = 64 * (3 * 16 + 1) + sum(16 * a * b + 2 * b for a, b in pairwise(widths))
    assert count(PatchDiscriminator(3, (256, 256))) == expected + 512 * 16 + 1


@pytest.mark.parametrize(("layers", "side"), [(1, 16), (2, 34), (3, 70)])
def test_its_patches_are_of_the_published_sides(layers: int, side: int) -> None:
    """A logit in the middle hears a square of the image: 70×70 with three layers, and so on."""
    network = PatchDiscriminator(1, (128, 128), base_channels=2, layers=layers).eval()
    x = images(1, 1, 128, 128).requires_grad_()
    logits = network.head(network.trunk(x))
    middle = logits.shape[-1] // 2
    (slopes,) = torch.autograd.grad(logits[0, 0, middle, middle], x)
    heard = slopes[0, 0].abs().sum(0).nonzero()
    assert int(heard.max() - heard.min()) + 1 == side


def test_a_logit_is_the_mean_over_patches() -> None:
    network, x = PatchDiscriminator(1, (32, 32), base_channels=2).eval(), images(3, 1, 32, 32)
    patches = network.head(network.trunk(x))
    assert patches.shape == (3, 1, 2, 2)
    torch.testing.assert_close(network(x), patches.mean((1, 2, 3)))


def test_begins_with_small_weights() -> None:
    torch.manual_seed(0)
    network = PatchDiscriminator(3, (64, 64)).requires_grad_(False)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            assert module.weight.std() == pytest.approx(0.02, rel=0.1) and module.weight.mean().abs() < 2e-3
        if isinstance(module, nn.BatchNorm2d):
            assert module.weight.mean() == pytest.approx(1, abs=0.01)


def test_images_that_it_leaves_nothing_of_are_refused() -> None:
    assert PatchDiscriminator(1, (24, 30))(images(2, 1, 24, 30)).shape == (2,)
    with pytest.raises(
        ValueError, match="layers 3: of images of 23×30 they leave nothing, expected sides of 24 or more"
    ):
        PatchDiscriminator(1, (23, 30))
