"""The network of every packaged recipe: its size against the source's, and what any denoiser's network must do."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.runs.test_recipe_bases import narrowed
from trilemma.data import open_data
from trilemma.process import reduced, to_model
from trilemma.recipes import Images, Recipe, load, packaged
from trilemma.runs.build import build_network

DENOISING = [name for name in sorted(packaged()) if load(name).learner["name"] == "denoising"]
PIXELS = [  # those of latents are these, with other inputs; of those by size one a family differs in more than levels
    name
    for name in DENOISING
    if load(name).codec is None and (not name.startswith(("images-", "small-")) or name in ("images-64", "small-48"))
]
CLASSES = ["a", "b", "c"]


def network_of(name: str, side: int, overrides: tuple[str, ...] = (), channels: int = 1) -> nn.Module:
    recipe = load(name, overrides)
    images = Images(channels=channels, height=side, width=side, classes=CLASSES)
    return build_network(recipe.model_copy(update={"images": images}))


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def distinct() -> list[str]:
    """One recipe of each network, the shortest name first."""
    seen: dict[str, str] = {}
    for name in sorted(PIXELS, key=lambda n: ("mnist" not in n, len(n))):
        recipe: Recipe = load(name, narrowed(name))
        network = {key: value for key, value in recipe.network.items() if key not in ("dropout", "multipliers")}
        assert recipe.learner["name"] == "denoising"
        seen.setdefault(str((network, recipe.learner["conditional"])), name)
    return sorted(seen.values())


NETWORKS = distinct()


def small(name: str, side: int = 16) -> nn.Module:
    """The recipe's network at a small width, for grey images of half the side, its attention moved along."""
    attention = load(name).network.get("attention")
    full = load(name).data.size or (28 if "mnist" in load(name).data.name else 32)
    assert isinstance(full, int)
    halved = (
        ()
        if attention is None
        else (f"network.attention={[max(1, a * side // full) if a > 0 else a for a in attention]}",)
    )
    overrides = (*narrowed(name), *halved, *(("network.start=4",) if "start" in load(name).network else ()))
    torch.manual_seed(0)
    return network_of(name, side, overrides)


def inputs(name: str, side: int = 16, n: int = 3) -> tuple[Any, ...]:
    recipe = load(name)
    x = torch.randn(n, 1, side, side, generator=torch.Generator().manual_seed(1))
    time = torch.tensor([1.0, 150.0, 700.0])[:n]
    assert recipe.learner["name"] == "denoising"
    label = torch.arange(n) % 3 if recipe.learner["conditional"] else None
    if recipe.learner["low"] is not None:
        low = torch.randn(n, 1, side // 2, side // 2, generator=torch.Generator().manual_seed(3))
        return x, time, label, low, *((torch.full((n,), 20.0),) if recipe.network["low_time"] else ())
    return (x, time) if label is None else (x, time, label)


def awake(network: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(2)
    for name, parameter in network.named_parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=(2 / parameter[0].numel()) ** 0.5, generator=generator)
        else:
            nn.init.normal_(parameter, float(name.endswith("weight") or "scale" in name), 0.3, generator=generator)
    grown(network)
    return network.eval()


def grown(network: nn.Module) -> None:
    """A growing network in the middle of fading in its finest level: every part has a say."""
    for name, buffer in network.named_buffers():
        if name == "fade":
            buffer.fill_(0.5)


@pytest.mark.parametrize(
    ("name", "printed", "tolerance"),
    [
        ("ddpm-cifar10", 34.21, 0.01),
        ("cifar10-deepres1", 23.27, 0.01),
        ("cifar10-shallowres2", 24.76, 0.01),
        ("cifar10-shallowres1", 17.02, 0.01),
        ("cifar10-mbconv64", 11.51, 0.05),
        ("cifar10-mbconv96", 25.68, 0.05),
    ],
)
def test_parameters_of_table_4_3(name: str, printed: float, tolerance: float) -> None:
    """In units of 2²⁰, as A's are."""
    assert count(network_of(name, 32, channels=3)) / 2**20 == pytest.approx(printed, rel=tolerance)


@pytest.mark.parametrize("name", NETWORKS)
class TestEveryNetwork:
    def test_gradients_reach_every_parameter(self, name: str) -> None:
        network = awake(small(name)).train()
        network(*inputs(name)).square().sum().backward()
        without = [key for key, p in network.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
        assert without == []

    def test_the_output_depends_on_time_and_class(self, name: str) -> None:
        network = awake(small(name))
        x, time, *others = inputs(name)
        found = network(x, time, *others)
        assert found.shape[0] == 3
        assert found.shape[-2:] == x.shape[-2:]
        scale = found.std()
        assert (network(x, time + 200, *others) - found).abs().amax((1, 2, 3)).min() > 1e-3 * scale
        if others:
            assert (network(x, time, (others[0] + 1) % 3, *others[1:]) - found).abs().amax(
                (1, 2, 3)
            ).min() > 1e-3 * scale
        for other in range(1, len(others)):
            moved = [*others[:other], others[other] + 1, *others[other + 1 :]]
            assert (network(x, time, *moved) - found).abs().amax((1, 2, 3)).min() > 1e-4 * scale

    def test_channels_last_is_the_same(self, name: str) -> None:
        network = awake(small(name))
        x, *rest = inputs(name)
        expected = network(x, *rest)
        found = copy.deepcopy(network).to(memory_format=torch.channels_last)(
            x.contiguous(memory_format=torch.channels_last), *rest
        )
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * float(expected.std()))

    def test_bf16_is_close(self, name: str) -> None:
        network = awake(small(name))
        expected = network(*inputs(name))
        with torch.autocast("cpu", torch.bfloat16):
            found = network(*inputs(name)).float()
        assert (found - expected).square().mean().sqrt() < 0.1 * expected.std()

    def test_the_loss_falls_on_digits(self, name: str) -> None:
        """At fixed digits, times and noise, in a few steps of Adam: from 1, ε's variance, if the output begins at zero,
        and from not much more if it begins anywhere."""
        network = small(name).train()
        images, labels = open_data("mnist5k", size=16).batch(range(0, 4500, 300))
        assert labels is not None
        x0, generator = to_model(images, (-1.0, 1.0)), torch.Generator().manual_seed(4)
        eps, t = torch.randn(x0.shape, generator=generator), torch.linspace(0.1, 1.4, len(x0))
        x_t = t.cos()[:, None, None, None] * x0 + t.sin()[:, None, None, None] * eps
        rest: tuple[Tensor, ...] = (t * 500, torch.from_numpy(labels) % 3, reduced(x0, (8, 8)), 0 * t)[
            : len(inputs(name)) - 1
        ]
        grown(network)
        optimizer = torch.optim.Adam(network.parameters(), 3e-3)
        losses = []
        for _ in range(12):
            loss = (network(x_t, *rest)[:, :1] - eps).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[0] < 2
        assert losses[-1] < 0.9 * losses[0]

    @pytest.mark.parametrize("size", [(15, 15), (12, 20)])
    def test_odd_and_oblong_images_work_or_are_refused(self, name: str, size: tuple[int, int]) -> None:
        recipe = load(
            name, (*narrowed(name), *(("network.attention=[]",) if "attention" in load(name).network else ()))
        )
        images = Images(channels=1, height=size[0], width=size[1], classes=CLASSES)
        try:
            network = awake(build_network(recipe.model_copy(update={"images": images})))
        except ValueError as error:
            # A patch has to divide the image; `start` names a resolution, and other images have others.
            refusals = (
                f"network.patch {recipe.network.get('patch')} does not divide the image size {size[0]}×{size[1]}",
                "network.start 8: expected",
            )
            assert any(refusal in str(error) for refusal in refusals)  # noqa: PT017
            return
        found = network(torch.randn(3, 1, *size), *inputs(name)[1:])
        assert found.shape[-2:] == size
        assert torch.isfinite(found).all()

    @pytest.mark.slow
    def test_compiled_equals_eager(self, name: str) -> None:
        compiled_equals_eager(name)


def test_one_network_compiled_equals_eager() -> None:
    compiled_equals_eager("demo")


def compiled_equals_eager(name: str) -> None:
    network = awake(small(name))
    expected = network(*inputs(name))
    torch._dynamo.reset()
    found = torch.compile(network)(*inputs(name))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3 * float(expected.std()))
