"""Conditions: kept together by device and by image, and handed to the network by name."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.networks.test_unet import awake, images
from trilemma.networks import UNet
from trilemma.process import SCHEDULES, Condition, Denoiser

LABEL, LOW = torch.tensor([0, 2, 1]), images(3, 2, 5, 4)
T = torch.tensor([3.0, 40.0, 90.0], dtype=torch.float64)


def build(classes: int = 3) -> Denoiser:
    network: Any = UNet(
        2, 2, (9, 8), classes, base_channels=16, multipliers=(1, 2), blocks=1, attention=(), upsampler=True
    )
    return Denoiser(awake(network), SCHEDULES["linear"](steps=100))


def test_what_is_given_is_named() -> None:
    assert Condition().given() == {}
    assert Condition(LABEL).given() == {"label": LABEL}
    assert Condition(low=LOW).given() == {"low": LOW}
    assert list(Condition(LABEL, LOW).given()) == ["label", "low"]


@pytest.mark.parametrize("condition", [Condition(), Condition(LABEL), Condition(low=LOW), Condition(LABEL, LOW)])
def test_every_part_is_taken_along(condition: Condition) -> None:
    def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
        return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)

    some = {name: value[1:] for name, value in condition.given().items()}
    assert same(condition[1:].given(), some)
    assert same(condition[torch.tensor([False, True, True])].given(), some)
    moved = condition.to("meta")
    assert moved.given().keys() == condition.given().keys()
    assert all(value.device.type == "meta" for value in moved.given().values())


def test_an_upsampler_hears_its_low_image() -> None:
    denoiser, x = build(), images(3, 2, 9, 8)
    found = denoiser(x, T, Condition(LABEL, LOW))
    assert found.eps.shape == x.shape
    other = denoiser(x, T, Condition(LABEL, LOW.flip(-1)))
    assert (other.eps - found.eps).abs().amax((1, 2, 3)).min() > 1e-2
    alone = denoiser(x[1:], T[1:], Condition(LABEL, LOW)[1:])
    torch.testing.assert_close(alone.eps, found.eps[1:], rtol=1e-4, atol=1e-4)
    bound = denoiser.bind(Condition(LABEL, LOW))
    assert torch.equal(bound(x, T).x0, found.x0)


def test_the_low_image_is_joined_bilinearly() -> None:
    """One already at the image's size, interpolated by hand, means the same."""
    denoiser, x = build(classes=0), images(3, 2, 9, 8)
    grown = torch.nn.functional.interpolate(LOW, size=(9, 8), mode="bilinear")
    small, large = (denoiser(x, T, Condition(low=low)).eps for low in (LOW, grown))
    torch.testing.assert_close(small, large, rtol=1e-4, atol=1e-4)


def test_a_low_image_is_asked_for() -> None:
    with pytest.raises(ValueError, match="it needs a `low` image"):
        build()(images(3, 2, 9, 8), T, Condition(LABEL))
