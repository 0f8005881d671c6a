"""Any module is a denoiser's network: what it calls its arguments, in which order, and what it must give."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trilemma.errors import InputError
from trilemma.networks import UNet
from trilemma.process import Call, Condition, Cosine, Denoiser

X, LABEL = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([2, 0, 1])
T = torch.tensor([1.0, 5.0, 9.0], dtype=torch.float64)


class Plain(nn.Module):
    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return said(x, t)


class Labelled(nn.Module):
    def forward(self, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        return said(x, t, label)


class Optional(nn.Module):
    def forward(self, x: Tensor, timesteps: Tensor, y: Tensor | None = None) -> Tensor:
        return said(x, timesteps, y)


class Turned(nn.Module):
    def forward(self, t: Tensor, x: Tensor, class_labels: Tensor | None = None) -> Tensor:
        return said(x, t, class_labels)


class Unknown(nn.Module):
    def forward(self, noisy: Tensor, level: Tensor, kind: Tensor) -> Tensor:
        return said(noisy, level, kind)


class Keywords(nn.Module):
    def forward(self, x: Tensor, *, time: Tensor, **condition: Tensor) -> Tensor:
        return said(x, time, condition.get("label"))


class Wrapped(nn.Module):
    def forward(self, sample: Tensor, timestep: Tensor, return_dict: bool = True) -> Any:
        return SimpleNamespace(sample=said(sample, timestep))


def said(x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
    """Its own weights for each argument, so that none can stand in another's place."""
    return x + 10 * t[:, None, None, None] + (0 if label is None else 1000 * label[:, None, None, None])


@pytest.mark.parametrize("network", [Plain, Labelled, Optional, Turned, Unknown, Keywords, Wrapped])
def test_each_argument_goes_where_it_belongs(network: type[nn.Module]) -> None:
    output = Denoiser(network(), Cosine(steps=10))(X, T, Condition(LABEL)).output
    takes_label = network not in (Plain, Wrapped)
    assert torch.equal(output, said(X, (T - 1).float(), LABEL if takes_label else None))
    assert (Call.of(network()).label is not None) == takes_label


@pytest.mark.parametrize("network", [Optional, Turned, Keywords])
def test_a_label_may_be_left_out(network: type[nn.Module]) -> None:
    assert torch.equal(Denoiser(network(), Cosine(steps=10))(X, T).output, said(X, (T - 1).float()))


def test_a_label_that_is_missing_is_said() -> None:
    with pytest.raises(InputError, match=r"network Labelled takes a class \(label\): none is given"):
        Denoiser(Labelled(), Cosine(steps=10))(X, T)


def test_a_compiled_network_is_called_as_the_plain_one() -> None:
    compiled = torch.compile(Turned(), backend="eager")
    assert Call.of(compiled) == Call.of(Turned())  # type: ignore[arg-type]


def test_our_own_network_without_classes_takes_none() -> None:
    def built(classes: int) -> UNet:
        return UNet(1, 1, (8, 8), classes, base_channels=8, multipliers=(1,), blocks=1, attention=())

    assert [Call.of(built(classes)).label for classes in (0, 3)] == [None, "label"]


class TestDiffusers:
    def built(self, **changes: Any) -> nn.Module:
        diffusers = pytest.importorskip("diffusers")
        torch.manual_seed(0)
        return diffusers.UNet2DModel(
            **{"sample_size": 8, "in_channels": 1, "out_channels": 1, "block_out_channels": (8, 16)},
            **{"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2},
            **{"norm_num_groups": 4, "layers_per_block": 1, **changes},
        ).eval()

    def test_an_unconditional_one_goes_in_as_any_other(self) -> None:
        unet = self.built()
        output = Denoiser(unet, Cosine(steps=10))(X, T, Condition(LABEL)).output
        assert torch.equal(output, unet(X, T - 1).sample)

    def test_a_conditional_one_hears_the_class(self) -> None:
        unet = self.built(num_class_embeds=3)
        output = Denoiser(unet, Cosine(steps=10))(X, T, Condition(LABEL)).output
        assert torch.equal(output, unet(X, T - 1, class_labels=LABEL).sample)
        assert not torch.equal(output, unet(X, T - 1, class_labels=LABEL.flip(0)).sample)


class Shaped(nn.Module):
    def __init__(self, output: Any) -> None:
        super().__init__()
        self.output = output

    def forward(self, x: Tensor, t: Tensor) -> Any:
        return self.output


@pytest.mark.parametrize(
    ("output", "variance", "says"),
    [
        (torch.zeros(3, 1, 8, 7), "fixed_small", r"Shaped gave \[3, 1, 8, 7\], expected \[3, 1, 8, 8\]"),
        (torch.zeros(3, 2, 8, 8), "fixed_small", r"gave \[3, 2, 8, 8\], expected \[3, 1, 8, 8\]"),
        (torch.zeros(3, 1, 8, 8), "learned_range", r"expected \[3, 2, 8, 8\], the image's channels twice over"),
        ((torch.zeros(3, 1, 8, 8),), "fixed_small", r"gave a tuple, expected \[3, 1, 8, 8\]"),
    ],
)
def test_another_shape_is_refused(output: Any, variance: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        Denoiser(Shaped(output), Cosine(steps=10), variance=variance)(X, T)


def test_a_network_without_a_time_is_refused() -> None:
    with pytest.raises(InputError, match=r"network Conv2d: forward\(input\) takes no time, expected forward\(x, t\)"):
        Denoiser(nn.Conv2d(1, 1, 3), Cosine(steps=10))


def test_a_denoiser_prints_what_it_is_made_of() -> None:
    assert repr(Denoiser(Plain(), Cosine(steps=10), "v")) == (
        "Denoiser(Plain of 0 parameters, Cosine(steps=10), V(), 'fixed_large')"
    )
