"""D's networks: their parameters counted from D's text, its baseline written out a second time, what else D says."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tests.runs.test_recipe_bases import narrowed
from trilemma.jobs.network_costs import resolve
from trilemma.networks import Growing, UNet
from trilemma.networks.attention import TransformerLayer
from trilemma.recipes import load, packaged
from trilemma.runs.build import build_network

# Parameters, by hand. The widths are those of the code that D adapts: 64 of the stem, 128, 256, 256 down, 512 at the
# bottom, 128, 64, 64 up; what a level on the way up takes is what comes from below and a skip as wide.
DOWN, UP = [(64, 128), (128, 256), (256, 256)], [(256 + 256, 128), (128 + 128, 64), (64 + 64, 64)]
DEEP_DOWN = [(32, 64), (64, 128), (128, 256), (256, 256)]
DEEP_UP = [(256 + 256, 128), (128 + 128, 64), (64 + 64, 32), (32 + 32, 32)]
WIDE_DOWN = [(96, 192), (192, 384), (384, 768)]
WIDE_UP = [(768 + 384, 192), (192 + 192, 96), (96 + 96, 96)]

Count = Callable[[int, int], int]


def convolution(a: int, b: int, side: int = 3) -> int:
    return a * b * side**2 + b


def norm(c: int) -> int:
    return 2 * c


def double(a: int, b: int, middle: int | None = None) -> int:
    """Two 3×3 convolutions without biases, a norm behind each."""
    middle = middle or b
    return 9 * a * middle + norm(middle) + 9 * middle * b + norm(b)


def link(a: int, b: int) -> int:
    """A 1×1 convolution "to project the dimension of the input channels", where they differ."""
    return convolution(a, b, side=1) if a != b else 0


def pair(a: int, b: int) -> int:
    """The baseline's block: a linked double convolution and one that changes the channels; its middle is as wide as its
    output on the way down, half as wide as its input on the way up."""
    going_up = (a, b) in UP + DEEP_UP
    return double(a, a) + double(a, b, a // 2 if going_up else b)


def dense(a: int, b: int) -> int:
    """Four convolutions, each of which sees the input and all before it, a norm behind each; 1×1 fusion; the link."""
    seen = [a, a + b, a + 2 * b, a + 3 * b]
    return sum(convolution(c, b) + norm(b) for c in seen) + convolution(a + 4 * b, b, side=1) + link(a, b)


def convnext(a: int, b: int) -> int:
    """Depthwise 7×7, norm, a linear layer to four times the channels, one back, a scale of each channel; the link."""
    return 49 * a + a + norm(a) + convolution(a, 4 * a, side=1) + convolution(4 * a, b, side=1) + b + link(a, b)


def residual(a: int, b: int) -> int:
    """Norm, convolution, norm, convolution; the link."""
    return norm(a) + convolution(a, b) + norm(b) + convolution(b, b) + link(a, b)


def attention(c: int) -> int:
    """Norm, queries, keys and values, projection; norm, two linear layers."""
    return norm(c) + 3 * (c * c + c) + (c * c + c) + norm(c) + 2 * (c * c + c)


def time(c: int) -> int:
    """A linear layer of the 256 sinusoids."""
    return 256 * c + c


def whole(
    block: Count,
    levels: Iterable[tuple[int, int]] = (*DOWN, *UP),
    *,
    stem: int = double(3, 64),
    bottom: tuple[int, int] = (256, 512),
    last: int = 64,
    attends: bool = True,
) -> int:
    c, wide = bottom
    bottleneck = double(c, wide) + double(wide, wide) + double(wide, c)
    body = sum(block(a, b) + time(b) + (attention(b) if attends else 0) for a, b in levels)
    return stem + body + bottleneck + convolution(last, 3, side=1)


COUNTS = {
    "cifar10-double": whole(pair),
    "cifar10-anti-aliasing": whole(pair),  # the filter is fixed
    "cifar10-pure": whole(pair, attends=False),
    "cifar10-additional-link": whole(lambda a, b: pair(a, b) + link(a, b)),
    "cifar10-4-double": whole(lambda a, b: double(a, a) + double(a, a) + pair(a, b)),
    "cifar10-rdn": whole(dense),
    "cifar10-deep": whole(pair, DEEP_DOWN + DEEP_UP, stem=double(3, 32), last=32),
    "cifar10-convnext": whole(
        convnext, WIDE_DOWN + WIDE_UP, stem=convolution(3, 96, side=1), bottom=(768, 1536), last=96, attends=False
    ),
    # Before each level's own block one that changes the resolution and no channels, with the time too.
    "cifar10-biggan": whole(residual) + sum(residual(c, c) + time(c) for c in (64, 128, 256, 256, 128, 64)),
    "cifar10-biggan-pure": whole(residual, attends=False)
    + sum(residual(c, c) + time(c) for c in (64, 128, 256, 256, 128, 64)),
}


@pytest.mark.parametrize("name", COUNTS)
def test_parameters_by_hand(name: str) -> None:
    with torch.device("meta"):
        network = build_network(resolve(name))
    assert sum(parameter.numel() for parameter in network.parameters()) == COUNTS[name]


def test_the_baseline_has_as_many_as_the_code_it_adapts() -> None:
    assert COUNTS["cifar10-double"] == 23_332_739


class Restated:
    """D's baseline once more, in plain functions of named weights: sines before cosines, skips before what comes from
    below, as the adapted code has them; ours has the other order of both, so halves of weights are exchanged."""

    def __init__(self, network: UNet):
        self.ours = network.state_dict()

    def weight(self, name: str, *swapped: int) -> Tensor:
        value = self.ours[name]
        for axis in swapped:
            value = value.roll(value.shape[axis] // 2, axis)
        return value

    def double(self, x: Tensor, name: str, linked: bool = False, swapped: bool = False) -> Tensor:
        """`swapped`: what goes in has its halves exchanged; then what comes out has, too, if that is linked to it."""
        columns, rows = [1] if swapped else [], [0] if swapped and linked else []
        h = functional.conv2d(x, self.weight(f"{name}.conv1.weight", *columns), padding=1)
        h = functional.gelu(self.normed(h, f"{name}.norm1.norm"))
        h = functional.conv2d(h, self.weight(f"{name}.conv2.weight", *rows), padding=1)
        h = self.normed(h, f"{name}.norm2", *rows)
        return functional.gelu(x + h) if linked else h

    def normed(self, h: Tensor, name: str, *swapped: int) -> Tensor:
        """One group: over all channels and positions."""
        mean, variance = h.mean((1, 2, 3), keepdim=True), h.var((1, 2, 3), correction=0, keepdim=True)
        weight, bias = (self.weight(f"{name}.{kind}", *swapped)[:, None, None] for kind in ("weight", "bias"))
        return (h - mean) / (variance + 1e-5).sqrt() * weight + bias

    def block(self, x: Tensor, t: Tensor, name: str, swapped: bool) -> Tensor:
        h = self.double(x, f"{name}.block.parts.0", linked=True, swapped=swapped)
        h = self.double(h, f"{name}.block.parts.1", swapped=swapped)
        entering = functional.silu(t) @ self.weight(f"{name}.embed.weight", 1).T + self.ours[f"{name}.embed.bias"]
        return self.attended(h + entering[:, :, None, None], f"{name}.attention")

    def attended(self, x: Tensor, name: str) -> Tensor:
        n, c, height, width = x.shape
        tokens = x.permute(0, 2, 3, 1).reshape(n, height * width, c)
        normed = self.of_tokens(tokens, f"{name}.norm")
        q, k, v = (part.reshape(n, -1, 4, c // 4) for part in self.linear(normed, f"{name}.qkv").split(c, -1))
        weights = (torch.einsum("nihd,njhd->nhij", q, k) / math.sqrt(c // 4)).softmax(-1)
        mixed = torch.einsum("nhij,njhd->nihd", weights, v).reshape(n, -1, c)
        tokens = tokens + self.linear(mixed, f"{name}.project")
        inner = functional.gelu(self.linear(self.of_tokens(tokens, f"{name}.feed.0"), f"{name}.feed.1"))
        tokens = tokens + self.linear(inner, f"{name}.feed.3")
        return tokens.reshape(n, height, width, c).permute(0, 3, 1, 2)

    def linear(self, h: Tensor, name: str) -> Tensor:
        return h @ self.ours[f"{name}.weight"].T + self.ours[f"{name}.bias"]

    def of_tokens(self, h: Tensor, name: str) -> Tensor:
        h = h - h.mean(-1, keepdim=True)
        h = h / (h.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return h * self.ours[f"{name}.weight"] + self.ours[f"{name}.bias"]

    def __call__(self, x: Tensor, time: Tensor) -> Tensor:
        angles = time[:, None] / 10000 ** (torch.arange(128) / 128)
        t = torch.cat([angles.sin(), angles.cos()], dim=1)
        h, skips = self.double(x, "trunk.stem"), []
        for i in (1, 2, 3):
            skips.append(h)
            h = self.block(functional.max_pool2d(h, 2), t, f"trunk.levels.{i}.layers.0", swapped=False)
        for i in range(3):
            h = self.double(h, f"trunk.middle.{i}")
        for i in (1, 2, 3):
            h = functional.interpolate(h, scale_factor=2, mode="bilinear", align_corners=True)
            h = self.block(torch.cat([skips.pop(), h], dim=1), t, f"decoder.{i}.layers.0", swapped=True)
        return functional.conv2d(h, self.ours["head.weight"], self.ours["head.bias"])


@torch.inference_mode()
def test_the_baseline_is_what_d_describes() -> None:
    torch.manual_seed(0)
    network = build_network(resolve("cifar10-double"))
    for parameter in network.parameters():
        if parameter.dim() == 1:  # so that none of them is without effect
            torch.nn.init.normal_(parameter, 0.5, 0.3)
    assert isinstance(network, UNet)
    x, time = torch.randn(2, 3, 32, 32), torch.tensor([3.0, 700.0])
    found, expected = network(x, time), Restated(network)(x, time)
    assert expected.std() > 0.1 and (expected[0] - expected[1]).abs().max() > 0.1
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_attention_stands_behind_every_block_and_nowhere_else() -> None:
    """D 2.1: three chunks down, three up, each with a self-attention layer; skips of 32×32, 16×16 and 8×8."""
    with torch.device("meta"):
        network = build_network(resolve("cifar10-double"))
    assert isinstance(network, UNet)
    sides = {f"trunk.levels.{i}" if half else f"decoder.{3 - i}": 32 >> i for half in (0, 1) for i in range(4)}
    attended = [sides[n.partition(".layers")[0]] for n, m in network.named_modules() if isinstance(m, TransformerLayer)]
    assert attended == [16, 8, 4, 8, 16, 32]
    assert all(part.heads == 4 for part in network.modules() if isinstance(part, TransformerLayer))
    assert network.trunk.kept == [64, 128, 256]


ON_D = sorted(
    name
    for name in packaged()
    if name.startswith("cifar10-") and (recipe := load(name)).training.optimizer == "adamw" and recipe.schedule
    if name not in ("cifar10-ldm", "cifar10-vdm")  # others' published settings
)


@pytest.mark.parametrize("name", ["cifar10-double", *ON_D])
def test_training_is_d_s(name: str) -> None:
    """D 2.5: AdamW at 2e-4, batches of 128, 100 epochs; D mentions no clipping, of gradients or of samples."""
    recipe = load(name)
    training = recipe.training
    assert (training.optimizer, training.learning_rate, training.batch) == ("adamw", 2e-4, 128)
    assert training.weight_decay == 0.01 and training.clip_norm == 0 and training.warmup == 0
    assert training.steps * training.batch == pytest.approx(100 * 50_000, rel=0.01)
    assert recipe.sampling.kernel.clip == "none" and recipe.sampling.sampler == "ancestral"


@pytest.mark.parametrize("name", [*COUNTS, "cifar10-growing"])
def test_no_weights_begin_at_zero(name: str) -> None:
    recipe = load(name, narrowed(name)).model_copy(update={"images": resolve(name).images})
    network = build_network(recipe)
    own = network.unet if isinstance(network, Growing) else network
    assert [key for key, weight in own.named_parameters() if weight.dim() > 1 and not weight.any()] == []


@pytest.mark.parametrize("data", ["cifar10", "mnist"])
def test_what_grows_is_the_baseline(data: str) -> None:
    grown, baseline = (load(f"{data}-{name}").network for name in ("growing", "double"))
    assert {key: value for key, value in grown.items() if key not in ("start", "stage_steps")} == {
        **baseline,
        "name": "growing",
    }
