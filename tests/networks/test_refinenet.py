"""RefineNet: every resolution reaches the finest, time and class reach every residual unit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.networks.test_unet import awake, images
from trilemma.networks import RefineNet
from trilemma.networks.norms import Style
from trilemma.networks.refinenet import ChainedPooling, RefineBlock
from trilemma.networks.trunk import Layer

SMALL: dict[str, Any] = {"base_channels": 8, "multipliers": (1, 2, 2, 2), "blocks": 1, "dropout": 0.0}
ENTRIES = pytest.mark.parametrize("entry", ["added", "adagn", "after"])
TIME, LABEL = torch.tensor([3.0, 40.0]), torch.tensor([0, 2])


def build(size: tuple[int, int] = (9, 12), classes: int = 3, **changes: Any) -> Any:
    return awake(RefineNet(2, 2, size, classes, **{**SMALL, **changes}))


def units(network: nn.Module) -> list[Layer]:
    return [module for module in network.modules() if isinstance(module, Layer)]


@pytest.mark.parametrize("size", [(32, 32), (28, 28), (9, 7), (5, 12), (1, 1), (2, 31)])
def test_the_output_is_shaped_like_the_image(size: tuple[int, int]) -> None:
    network: Any = awake(RefineNet(3, 6, size, **SMALL))
    found = network(images(2, 3, *size), TIME)
    assert found.shape == (2, 6, *size)
    assert torch.isfinite(found).all()


@ENTRIES
def test_it_begins_at_zero(entry: str) -> None:
    network = RefineNet(2, 2, (8, 8), **SMALL, entry=entry)
    assert torch.equal(network(images(2, 2, 8, 8), TIME), torch.zeros(2, 2, 8, 8))


@ENTRIES
def test_gradients_reach_every_parameter(entry: str) -> None:
    network = build((16, 16), entry=entry).train()
    (network(images(2, 2, 16, 16), TIME, LABEL) * images(2, 2, 16, 16)).sum().backward()
    assert [n for n, p in network.named_parameters() if p.grad is None or not p.grad.abs().max() > 1e-6] == []


@ENTRIES
def test_time_and_class_enter_every_residual_unit(entry: str) -> None:
    network = build(entry=entry)
    # An encoder block a level, two units on each of 1 + 2 + 2 + 2 paths, one after each refine block, three after the
    # last.
    assert len(units(network)) == 4 + 14 + 3 + 3
    x = images(2, 2, 9, 12)
    found = network(x, TIME, LABEL)
    for unit in units(network):
        hook = unit.register_forward_pre_hook(lambda _, inputs: (inputs[0], inputs[1] + 1.0))
        assert (network(x, TIME, LABEL) - found).abs().amax((1, 2, 3)).min() > 1e-3 * found.std()
        hook.remove()
    assert torch.equal(network(x, TIME, LABEL), found)
    assert (network(x, TIME + 20, LABEL) - found).abs().amax((1, 2, 3)).min() > 1e-2 * found.std()
    assert (network(x, TIME, (LABEL + 1) % 3) - found).abs().amax((1, 2, 3)).min() > 1e-2 * found.std()


def test_the_finest_sees_the_coarsest() -> None:
    """What one position of the coarsest features says reaches every position of the output: it covers 8×8 pixels, and
    each level's poolings and convolutions carry it further."""
    network = build((64, 64), classes=0)
    x = images(1, 2, 64, 64)
    found = network(x, TIME[:1])
    seen: list[tuple[int, ...]] = []

    def at_one_position(_: nn.Module, inputs: Any, h: Tensor) -> Tensor:
        seen.append(tuple(h.shape[-2:]))
        changed = h.clone()
        changed[..., 0, 0] += 10.0
        return changed

    hook = network.encoder[-1][-1].register_forward_hook(at_one_position)
    moved = network(x, TIME[:1]) - found
    hook.remove()
    assert seen == [(8, 8)]
    assert (moved.abs().amax(1) > 0).float().mean() > 0.99


def test_every_level_of_the_encoder_has_its_own_say() -> None:
    """Each level's features matter at their own refine block, and not by way of the next level only."""
    network, x = build((16, 16), classes=0), images(1, 2, 16, 16)
    paths: list[list[tuple[int, ...]]] = []
    for block in network.cascade:
        block.register_forward_pre_hook(lambda _, inputs: paths.append([tuple(h.shape[1:]) for h in inputs[0]]))
    found = network(x, TIME[:1])
    assert paths == [
        [(16, 2, 2)],
        [(16, 4, 4), (16, 2, 2)],
        [(16, 8, 8), (16, 4, 4)],
        [(8, 16, 16), (16, 8, 8)],
    ]
    for block in network.cascade:
        hook = block.register_forward_pre_hook(lambda _, inputs: ([inputs[0][0] * 0, *inputs[0][1:]], inputs[1]))
        assert (network(x, TIME[:1]) - found).abs().max() > 1e-3 * found.std()
        hook.remove()


def test_fusion_by_hand() -> None:
    """With units that do nothing, a refine block is: convolved paths, upsampled and summed, then pooled in a chain."""
    style, asleep = Style(), Nothing()
    block = RefineBlock([4, 6], style, lambda channels: asleep)
    fine, coarse = images(2, 4, 7, 5), images(2, 6, 4, 3)
    up = functional.interpolate(block.fuse[1](coarse), size=(7, 5), mode="bilinear")
    torch.testing.assert_close(block([fine, coarse], None), block.pool(block.fuse[0](fine) + up))
    single = RefineBlock([4], style, lambda channels: asleep)
    torch.testing.assert_close(single([fine], None), single.pool(fine))


class Nothing(nn.Module):
    def forward(self, x: Tensor, e: Tensor | None) -> Tensor:
        return x


def test_chained_pooling_by_hand() -> None:
    pool, x = ChainedPooling(3, Style()), images(2, 3, 8, 6)
    first = nn.functional.silu(x)
    padded = functional.pad(first, (2, 2, 2, 2), value=float("-inf"))
    largest = padded.unfold(2, 5, 1).unfold(3, 5, 1).amax((-2, -1))
    second = pool.convs[0](largest)
    padded = functional.pad(second, (2, 2, 2, 2), value=float("-inf"))
    third = pool.convs[1](padded.unfold(2, 5, 1).unfold(3, 5, 1).amax((-2, -1)))
    torch.testing.assert_close(pool(x), first + second + third)


def test_a_pixel_reaches_as_far_as_the_chain_carries_it() -> None:
    """Two poolings of 5×5 and two convolutions of 3×3: 2·2 + 2·1 = 6 pixels each way."""
    pool, x = ChainedPooling(1, Style(activation=nn.ReLU)), torch.zeros(1, 1, 21, 21)
    for conv in pool.convs:
        nn.init.constant_(conv.weight, 1.0)
        nn.init.zeros_(conv.bias)
    x[..., 10, 10] = 1.0
    reached = (pool(x)[0, 0] != 0).nonzero()
    assert reached.amin(0).tolist() == [4, 4] and reached.amax(0).tolist() == [16, 16]
