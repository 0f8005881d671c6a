"""SNGAN's networks against its paper and plain operations."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.networks.test_unet import awake, count
from trilemma.networks import ResNetEncoder, SNGANDiscriminator, SNGANGenerator, norms
from trilemma.networks.norms import BatchNorm2d, ModulatedNorm, Style, xavier
from trilemma.networks.resnet import DownBlock, halved


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def conv(inputs: int, outputs: int, side: int) -> int:
    """Parameters of a convolution."""
    return outputs * (inputs * side**2 + 1)


class TestPublishedSizes:
    """Miyato et al. 2018, table 4, layer by layer."""

    @pytest.mark.parametrize("classes", [0, 10])
    def test_generator(self, classes: int) -> None:
        norm = 2 * 256 * (classes or 1)
        block = 2 * conv(256, 256, 3) + conv(256, 256, 1) + 2 * norm
        expected = (128 + 1) * 4 * 4 * 256 + 3 * block + 2 * 256 + conv(256, 3, 3)
        with torch.device("meta"):
            assert count(SNGANGenerator(3, (32, 32), classes)) == expected
        assert classes or expected == 4_276_739

    @pytest.mark.parametrize("classes", [0, 10])
    def test_discriminator(self, classes: int) -> None:
        first = conv(3, 128, 3) + conv(128, 128, 3) + conv(3, 128, 1)
        second = 2 * conv(128, 128, 3) + conv(128, 128, 1)
        expected = first + second + 2 * 2 * conv(128, 128, 3) + 128 + 128 * classes
        with torch.device("meta"):
            assert count(SNGANDiscriminator(3, (32, 32), classes)) == expected
        assert classes or expected == 1_053_824

    def test_encoder_is_the_discriminator_but_for_its_end(self) -> None:
        with torch.device("meta"):
            judge, encoder = SNGANDiscriminator(1, (28, 28)), ResNetEncoder(1, (28, 28), 64)
        assert count(encoder) - count(judge) == (128 * 7 * 7 + 1) * 64 - 128
        assert not any("parametrizations" in name for name in encoder.state_dict())


@pytest.mark.parametrize("size", [(28, 28), (32, 32), (9, 14)])
def test_sizes_are_those_of_halving(size: tuple[int, int]) -> None:
    """28 begins at 7×7 with two ups, 32 at 4×4 with three; odd sides round up on the way down."""
    ups = 3 if size == (32, 32) else 2
    network = awake(SNGANGenerator(1, size, latent=6, channels=4, ups=ups))
    seen: list[tuple[int, ...]] = []
    for block in network.blocks:
        block.register_forward_hook(lambda _, inputs, output: seen.append(tuple(output.shape[-2:])))
    assert network(rand(2, 6)).shape == (2, 1, *size)
    assert seen == halved(size, ups)[-2::-1]
    smallest = {(28, 28): (7, 7), (32, 32): (4, 4), (9, 14): (3, 4)}[size]
    assert network.stem(rand(2, 6)).shape[-2:] == smallest
    assert SNGANDiscriminator(1, size, channels=4)(rand(2, 1, *size)).shape == (2,)


def test_weights_begin_as_published() -> None:
    """Uniform in ± gain √(6 / (fan_in + fan_out)), the gain √2 in residual branches alone; no bias."""
    torch.manual_seed(0)
    generator, judge = SNGANGenerator(3, (32, 32), channels=64), ResNetEncoder(3, (32, 32), 9, channels=64)
    block, down = generator.blocks[0], judge.trunk[1]
    spread = math.sqrt(2 * 6 / (2 * 64 * 9))
    for layer, bound in (
        (block.conv1, spread),
        (block.conv2, spread),
        (down.conv1, spread),
        (down.conv2, spread),
        (block.shortcut, math.sqrt(6 / 128)),
        (down.shortcut, math.sqrt(6 / 128)),
        (generator.stem[0], math.sqrt(6 / (128 + 1024))),
        (generator.head[2], math.sqrt(6 / (67 * 9))),
    ):
        assert 0.97 * bound < layer.weight.abs().max().item() <= bound
        assert layer.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)
        assert not layer.bias.any()


class TestClassNorm:
    def norm(self) -> ModulatedNorm:
        style = Style(BatchNorm2d, entry="bottom", modulation=lambda channels: nn.Embedding(5, 2 * channels))
        return ModulatedNorm(4, style)

    def test_scales_and_shifts_by_class_what_the_whole_batch_normalises(self) -> None:
        norm, x, label = self.norm().train(), rand(6, 4, 3, 5) * 3 + 1, torch.tensor([0, 1, 2, 4, 4, 1])
        scale, shift = norm.modulation.weight.double()[label].view(6, 2, 4).unbind(1)
        wanted = x.double()
        mean, variance = wanted.mean((0, 2, 3)), wanted.var((0, 2, 3), correction=0)
        wanted = (wanted - mean[:, None, None]) / (variance + 1e-5).sqrt()[:, None, None]
        wanted = (1 + scale[..., None, None]) * wanted + shift[..., None, None]
        torch.testing.assert_close(norm(x, label).double(), wanted, rtol=1e-5, atol=1e-5)
        assert [name for name, _ in norm.named_parameters()] == ["modulation.weight"]

    def test_begins_by_changing_nothing(self) -> None:
        network, x = SNGANGenerator(1, (8, 8), 5, channels=4, ups=1), rand(3, 4, 4, 4)
        norm, label = network.blocks[0].norm1, torch.tensor([0, 1, 4])
        torch.testing.assert_close(norm(x, label), functional.batch_norm(x, None, None, training=True))


@pytest.mark.parametrize("affine", [True, False])
def test_batch_norm_over_two_processes_is_over_both_batches(affine: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the other process had the same images: sums are twice their own, and the norm is as it was."""
    x, alone, together = rand(4, 3, 5, 5) + 2, nn.BatchNorm2d(3, affine=affine), BatchNorm2d(3, affine=affine)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(norms.distributed, "all_reduce", lambda tensor: 2 * tensor)
    awake(alone), together.load_state_dict(alone.state_dict())
    torch.testing.assert_close(together(x), alone.train()(x), rtol=1e-5, atol=1e-5)
    assert together.running_mean is not None and alone.running_mean is not None
    torch.testing.assert_close(together.running_mean, alone.running_mean)


class TestDownBlock:
    @pytest.mark.parametrize("first", [False, True])
    def test_averages_last_and_activates_first_but_for_the_image(self, first: bool) -> None:
        block = awake(DownBlock(3, 6, lambda layer: layer, down=True, first=first))
        x = rand(2, 3, 8, 8)
        h = block.conv2(functional.relu(block.conv1(x if first else functional.relu(x))))
        expected = functional.avg_pool2d(h + block.shortcut(x), 2)
        torch.testing.assert_close(block(x), expected, rtol=1e-4, atol=1e-5)

    def test_leaves_the_size_and_the_input_alone(self) -> None:
        block = awake(DownBlock(6, 6, lambda layer: layer, down=False))
        x = rand(2, 6, 5, 5)
        torch.testing.assert_close(block(x), x + block.conv2(functional.relu(block.conv1(functional.relu(x)))))


def norms_of(network: nn.Module) -> dict[str, float]:
    """The largest singular value of every weight that a layer computes with, by SVD."""
    return {
        name: torch.linalg.matrix_norm(module.weight.detach().flatten(1).double(), 2).item()
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear | nn.Embedding)
    }


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_spectral_norms_stay_at_one_while_it_is_trained(precision: torch.dtype) -> None:
    """Within 2 %, of every layer and the classes' vectors too, in bf16 as well."""
    torch.manual_seed(0)
    network = SNGANDiscriminator(2, (12, 12), 5, channels=16)
    optimizer = torch.optim.Adam(network.parameters(), 2e-4, betas=(0.0, 0.9))
    x, label = rand(8, 2, 12, 12), torch.arange(8) % 5
    before = {name: weight.detach().clone() for name, weight in network.named_parameters()}
    for _ in range(25):
        with torch.autocast("cpu", precision, enabled=precision is torch.bfloat16):
            loss = functional.relu(1 - network(x, label)).mean() + functional.relu(1 + network(-x, label)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    moved = {name for name, weight in network.named_parameters() if not torch.equal(weight, before[name])}
    assert moved == before.keys()
    found = norms_of(network.eval())
    assert len(found) == 2 * 4 + 2 + 2
    assert all(norm == pytest.approx(1, abs=0.02) for norm in found.values()), found
    stale = {name: weight.norm().item() for name, weight in network.named_parameters() if "original" in name}
    assert min(stale.values()) > 1.05, "the weights themselves are not normalised"


def test_projection_is_the_inner_product_of_class_and_features() -> None:
    """Miyato & Koyama 2018, eq. 4: V_y · φ(x) + ψ(φ(x)), φ the sum over positions."""
    network = SNGANDiscriminator(2, (8, 8), 3, channels=8).eval()
    x, label = rand(4, 2, 8, 8), torch.tensor([0, 2, 1, 2])
    features = network.trunk(x).sum((2, 3))
    assert network.label is not None
    expected = torch.einsum("nc,nc->n", network.label.weight[label] + network.head.weight, features)
    torch.testing.assert_close(network(x, label), expected)


def test_xavier_has_a_gain() -> None:
    torch.manual_seed(0)
    assert xavier(nn.Linear(30, 70), 2.0).weight.abs().max().item() == pytest.approx(2 * math.sqrt(6 / 100), rel=0.01)


@pytest.mark.parametrize("network", [SNGANGenerator, SNGANDiscriminator])
def test_classes_need_labels(network: Any) -> None:
    with pytest.raises(ValueError, match="class-conditional: it needs a label"):
        network(1, (8, 8), 3, channels=4)(rand(2, 1, 8, 8) if network is SNGANDiscriminator else rand(2, 128))
