"""Blocks computed again for the backward pass: what is learnt stays the same to the last bit, less is kept."""

from __future__ import annotations

import inspect
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.contracts.made import make, names, small
from tests.contracts.test_networks import given
from trilemma.errors import InputError
from trilemma.metrics import kept_for_backward
from trilemma.networks.recompute import blocks_of, recompute

SIZE, CLASSES = (8, 8), 4
BUILT = {"in_channels": 2, "out_channels": 2, "size": SIZE, "classes": CLASSES, "outputs": 6}
VARIANTS = {"dropout": 0.3, "norm": "batch"}
"""What makes a pass random, and what makes it leave something behind, for the networks that take it."""


def built(name: str, **more: Any) -> nn.Module:
    torch.manual_seed(0)
    taken = inspect.signature(make("network", name, *[BUILT[key] for key in given(name)], **small(name)).__init__)
    variants = {key: value for key, value in VARIANTS.items() if key in taken.parameters}
    torch.manual_seed(0)
    network: nn.Module = make("network", name, *[BUILT[key] for key in given(name)], **small(name) | variants | more)
    for weight in network.parameters():  # none at zero, behind which nothing would be seen
        nn.init.normal_(weight, std=0.3)
    return network.train()


def told(network: nn.Module) -> dict[str, Tensor]:
    """What a network is called with, by its names."""
    x, generator = (4, 2, *SIZE), torch.Generator().manual_seed(1)
    shapes = {"x": x, "x_s": x, "x_t": x, "latent": (4, getattr(network, "latent", 0) or 1)}
    found = {key: torch.randn(shape, generator=generator) for key, shape in shapes.items()}
    found |= {"time": torch.tensor([1.0, 250.0, 600.0, 999.0]), "label": torch.tensor([0, 3, 2, 1])}
    taken = inspect.signature(network.forward).parameters
    unlabelled = not getattr(network, "classes", 0)
    latent = getattr(network, "latent", 0)
    return {
        key: value
        for key, value in found.items()
        if key in taken and not (key == "label" and unlabelled) and not (key == "latent" and not latent)
    }


def learnt(network: nn.Module, mixed: bool = False, penalty: bool = False) -> tuple[dict[str, Tensor], int]:
    """The loss, gradients and buffers of two passes that drop some, what is drawn next, and bytes kept."""
    torch.manual_seed(2)
    losses: list[Tensor] = []
    given = told(network)

    def run() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            losses.append(network(**given).float().square().mean())

    for _ in range(2):
        kept = kept_for_backward(network, run)
        if penalty:  # R1 has gradients of gradients
            x = next(iter(given.values())).requires_grad_()
            run()
            (slope,) = torch.autograd.grad(losses[-1], x, create_graph=True)
            losses[-1] = losses[-1] + slope.square().sum()
        losses[-1].backward()
    found = {f"gradient of {key}": weight.grad for key, weight in network.named_parameters() if weight.grad is not None}
    return found | {**dict(network.named_buffers()), "loss": torch.stack(losses), "next": torch.rand(())}, kept


def assert_alike(network: nn.Module, how: Any = recompute, **options: Any) -> tuple[int, int]:
    """Learnt alike with and without; the bytes that each keeps."""
    again = deepcopy(network)
    how(again)
    (expected, much), (found, little) = learnt(network, **options), learnt(again, **options)
    assert expected.keys() == found.keys() and len(found) > 3
    for key, value in expected.items():
        assert torch.equal(value, found[key]), key
    return much, little


@pytest.mark.parametrize("name", names("network"))
def test_every_network_learns_the_same_to_the_last_bit(name: str) -> None:
    """Dropout and batch statistics included; a network that is one plain row of layers is refused."""
    network = built(name)
    if not blocks_of(network):
        assert all(not list(layer.children()) for layer in network.get_submodule("trunk"))
        with pytest.raises(InputError, match=f"recompute true: network {type(network).__name__} is not made of blocks"):
            recompute(network)
        return
    much, little = assert_alike(network)
    assert little < 0.8 * much


def test_batch_statistics_are_updated_once_a_pass() -> None:
    network = built("unet")
    recompute(network)
    learnt(network)
    counts = {int(value) for key, value in network.named_buffers() if key.endswith("num_batches_tracked")}
    assert counts == {2}


def test_in_bf16_too() -> None:
    assert_alike(built("unet", norm="group"), mixed=True)


@pytest.mark.parametrize("name", ["sngan_discriminator", "ddgan_discriminator"])
def test_penalties_on_slopes_too(name: str) -> None:
    assert_alike(built(name), penalty=True)


@pytest.mark.slow
def test_compiled_too() -> None:
    """Blocks with buffers as they are, others within the graphs."""
    for norm in ("group", "batch"):
        network = built("unet", norm=norm, dropout=0.0)
        expected, _ = learnt(network)
        again = built("unet", norm=norm, dropout=0.0)
        recompute(again)
        again.compile(backend="aot_eager")
        found, _ = learnt(again)
        for key, value in expected.items():
            torch.testing.assert_close(found[key], value, rtol=1e-4, atol=1e-5, msg=key)


def test_a_network_of_diffusers_is_told_by_its_own_switch() -> None:
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    blocks = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
    network = diffusers.UNet2DModel(8, 2, 2, block_out_channels=(8, 16), norm_num_groups=4, dropout=0.3, **blocks)

    class Called(nn.Module):
        def __init__(self, network: nn.Module):
            super().__init__()
            self.network = network

        def forward(self, x: Tensor, time: Tensor) -> Tensor:
            return self.network(x, time).sample

    much, little = assert_alike(Called(network).train(), lambda called: recompute(called.network))
    assert little < much


def test_blocks_are_the_outermost_of_any_module_s_lists() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = nn.ModuleList([nn.Sequential(nn.Linear(2, 2), nn.ReLU()), nn.Linear(2, 2)])

        def forward(self, x: Tensor) -> Tensor:
            for part in self.parts:
                x = part(x)
            return x

    own = nn.ModuleDict({"one": nn.Sequential(nn.Sequential(Block()), nn.Linear(2, 2)), "other": nn.Linear(2, 2)})
    assert blocks_of(own) == [own["one"][0][0]]
