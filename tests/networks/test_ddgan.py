"""DDGAN's generator, a U-Net with a latent vector, and its discriminator, against the paper and plain operations."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.signal import upfirdn
from torch import Tensor, nn
from torch.nn import functional

from tests.networks.test_unet import awake, count
from trilemma.networks import DDGANDiscriminator, Growing, NoisyClassifier, UNet
from trilemma.networks.attention import SelfAttention
from trilemma.networks.blocks import ResidualBlock
from trilemma.networks.ddgan import TimedDownBlock, group_deviation
from trilemma.networks.embeddings import LatentMapping, pixel_norm
from trilemma.networks.filters import fir_down, fir_up
from trilemma.networks.norms import ConditionedNorm, Modulation, Style, norm_of
from trilemma.networks.resampling import FilteredDown

PUBLISHED: dict[str, Any] = {
    **{"base_channels": 128, "multipliers": (1, 2, 2, 2), "blocks": 2, "attention": (16,), "dropout": 0.0},
    **{"rescale": True, "down": "biggan_fir", "up": "biggan_fir", "time_endpoint": True, "input_pyramid": True},
    **{"decoder_attention": "level", "tanh": True, "latent": 100, "latent_width": 256, "latent_layers": 5},
}
SMALL = {**PUBLISHED, "base_channels": 8, "multipliers": (1, 2), "blocks": 1, "attention": (), "latent": 6}
SMALL |= {"latent_width": 10}


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def conv(inputs: int, outputs: int, side: int, bias: bool = True) -> int:
    return outputs * (inputs * side**2 + bias)


class TestPublishedSizes:
    """Xiao et al. 2022, table 6: the network for CIFAR-10, layer by layer."""

    def test_generator(self) -> None:
        def block(inputs: int, outputs: int, projected: bool = False) -> int:
            """Two norms scaled and shifted by z, the time's linear layer, and the convolutions."""
            linear = 257 * 2 * (inputs + outputs) + 513 * outputs
            short = conv(inputs, outputs, 1) if projected or inputs != outputs else 0
            return linear + conv(inputs, outputs, 3) + conv(outputs, outputs, 3) + short

        def attention(width: int) -> int:
            return 2 * width + 4 * conv(width, width, 1)

        down = [block(128, 128), block(128, 128), block(128, 128, True), conv(3, 128, 3)]
        down += [block(128, 256), block(256, 256), 2 * attention(256), block(256, 256, True), conv(128, 256, 3)]
        down += [block(256, 256), block(256, 256), block(256, 256, True), conv(256, 256, 3)]
        down += [block(256, 256), block(256, 256)]
        middle = [block(256, 256), attention(256), block(256, 256)]
        up = [3 * block(512, 256), block(256, 256, True), 3 * block(512, 256), block(256, 256, True)]
        up += [2 * block(512, 256), block(384, 256), attention(256), block(256, 256, True)]
        up += [block(384, 128), 2 * block(256, 128)]
        ends = [conv(3, 128, 3), 2 * 128, conv(128, 3, 3)]
        embeddings = [129 * 512 + 513 * 512, 101 * 256 + 4 * 257 * 256]
        with torch.device("meta"):
            network = UNet(3, 3, (32, 32), **PUBLISHED)
        assert count(network) == sum([*down, *middle, *up, *ends, *embeddings]) == 48_432_515

    def test_discriminator(self) -> None:
        def block(inputs: int, outputs: int) -> int:
            convs = conv(inputs, outputs, 3) + conv(outputs, outputs, 3) + conv(inputs, outputs, 1, bias=False)
            return convs + 257 * outputs

        blocks = block(128, 128) + block(128, 256) + block(256, 512) + block(512, 512)
        expected = 2 * 257 * 256 + conv(6, 128, 1) + blocks + conv(513, 512, 3) + 513
        with torch.device("meta"):
            found = [count(DDGANDiscriminator(3, (32, 32), classes)) for classes in (0, 10)]
        assert found == [expected, expected + 10 * 512] and expected == 12_741_633


class TestLatent:
    def test_pixel_norm(self) -> None:
        z = rand(5, 7) * 4
        found = pixel_norm(z).double()
        wanted = z.double() / z.double().square().mean(1, keepdim=True).sqrt()
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)

    def test_mapping_is_linear_layers_with_swish(self) -> None:
        mapping, z = awake(LatentMapping(7, 5, 3)), rand(4, 7)
        h = pixel_norm(z)
        linear = [layer for layer in mapping.layers if isinstance(layer, nn.Linear)]
        assert [layer.in_features for layer in linear] == [7, 5, 5]
        for layer in linear:
            h = functional.silu(h @ layer.weight.T + layer.bias)
        torch.testing.assert_close(mapping(z), h)
        torch.testing.assert_close(mapping(3 * z), h)

    @pytest.mark.parametrize("entry", ["added", "adagn"])
    def test_scales_and_shifts_the_norm_of_a_block(self, entry: Any) -> None:
        """Time and class come first in e, z after them; norm(h + We) for `added`, z's map inside time's for `adagn`."""
        style = Style(entry=entry, embedding=6, modulation=lambda channels: Modulation(4, channels))
        part = awake(ConditionedNorm(8, style))
        h, time, z = rand(2, 8, 3, 3), rand(2, 6, seed=1), rand(2, 4, seed=2)
        entering = (time @ part.embed.weight.T + part.embed.bias)[:, :, None, None]
        by = part.norm.modulation
        scale, shift = (z @ by.weight.T + by.bias)[:, :, None, None].chunk(2, 1)
        wanted = functional.group_norm(h + entering if entry == "added" else h, 2, eps=1e-6) * (1 + scale) + shift
        if entry == "adagn":
            wanted = wanted * (1 + entering[:, :8]) + entering[:, 8:]
        torch.testing.assert_close(part(h, torch.cat([time, z], 1)), wanted)

    @pytest.mark.parametrize("size", [(28, 28), (32, 32), (9, 14)])
    @pytest.mark.parametrize("classes", [0, 3])
    def test_every_pixel_hears_it(self, size: tuple[int, int], classes: int) -> None:
        network = awake(UNet(2, 1, size, classes, **SMALL))
        x, time, label = rand(2, 2, *size), torch.tensor([1.0, 4.0]), torch.tensor([0, 2]) if classes else None
        found = network(x, time, label, latent=rand(2, 6))
        assert found.shape == (2, 1, *size) and 0 < found.abs().max() < 1
        assert ((network(x, time, label, latent=rand(2, 6, seed=1)) - found).abs() > 0).all()
        assert ((network(x, time + 1, label, latent=rand(2, 6)) - found).abs() > 0).all()

    def test_gradients_reach_the_mapping_network_as_the_network_begins(self) -> None:
        """A network whose branches begin at zero makes zeros whatever z; after a step or two it hears it."""
        torch.manual_seed(0)
        network = UNet(1, 1, (8, 8), **SMALL)
        x, time, z = rand(4, 1, 8, 8), torch.ones(4), rand(4, 6)
        assert not network(x, time, latent=z).any()
        optimizer = torch.optim.Adam(network.parameters(), 1e-3)
        for _ in range(3):
            optimizer.zero_grad()
            (network(x, time, latent=z) - z[:, :1, None, None]).square().mean().backward()
            optimizer.step()
        weights = [weight for name, weight in network.named_parameters() if "mapping" in name or "modulation" in name]
        assert len(weights) == 2 * 5 + 2 * 2 * 10
        assert all(weight.grad is not None and weight.grad.abs().max() > 0 for weight in weights)

    def test_both_norms_of_a_residual_block_are_scaled_and_no_other(self) -> None:
        network = UNet(1, 1, (8, 8), **{**SMALL, "attention": (4,)})
        blocks = [module for module in network.modules() if isinstance(module, ResidualBlock)]
        assert all(isinstance(block.norm1.modulation, Modulation) for block in blocks)
        assert all(isinstance(block.norm2.norm.modulation, Modulation) for block in blocks)
        assert sum(isinstance(module, Modulation) for module in network.modules()) == 2 * len(blocks)

    def test_is_refused_where_it_is_missing_or_not_expected(self) -> None:
        x, time = rand(2, 1, 8, 8), torch.ones(2)
        with pytest.raises(ValueError, match=r"network.latent 6: it needs a `latent` \[n, 6\]"):
            UNet(1, 1, (8, 8), **SMALL)(x, time)
        with pytest.raises(ValueError, match=r"network.latent 0: it takes no `latent`"):
            UNet(1, 1, (8, 8), **{**SMALL, "latent": 0})(x, time, latent=rand(2, 6))

    @pytest.mark.parametrize("entry", ["after", "bottom"])
    def test_goes_with_entries_inside_a_block(self, entry: Any) -> None:
        with pytest.raises(ValueError, match=rf"network.latent 6: goes with entry 'added' or 'adagn', not .*'{entry}'"):
            UNet(1, 1, (8, 8), **{**SMALL, "entry": entry})

    def test_networks_made_of_a_u_net_refuse_it(self) -> None:
        latent = {"base_channels": 8, "multipliers": (1, 2), "attention": (), "blocks": 1, "latent": 6}
        with pytest.raises(
            ValueError, match=r"network.latent, network.input_pyramid and network.fourier: a growing network"
        ):
            Growing(1, 1, (8, 8), start=4, **latent)
        with pytest.raises(ValueError, match=r"network.latent 6: a classifier of noised images"):
            NoisyClassifier(1, 3, (8, 8), pool_head_channels=8, **latent)


def by_scipy(x: Tensor, taps: list[float], up: int = 1, down: int = 1) -> Tensor:
    """SciPy's filter along columns, then rows: all of it, before anything is cut off."""
    made = x.double().numpy()
    for axis in (2, 3):
        made = upfirdn(taps, made, up, down, axis=axis)
    return torch.from_numpy(np.ascontiguousarray(made)).float()


class TestFilters:
    @pytest.mark.parametrize("size", [(6, 8), (7, 5), (1, 1)])
    def test_down(self, size: tuple[int, int]) -> None:
        x, (h, w) = rand(2, 3, *size), size
        whole = by_scipy(
            x, [1 / 8, 3 / 8, 3 / 8, 1 / 8]
        )  # its value i has x_{i−3} … x_i; ours at 2i x_{2i−1} … x_{2i+2}
        padded = functional.pad(whole, (0, 2, 0, 2))
        expected = padded[:, :, 2 : h + 2 + h % 2 : 2, 2 : w + 2 + w % 2 : 2]
        found = fir_down(x)
        assert found.shape[-2:] == ((h + 1) // 2, (w + 1) // 2)
        torch.testing.assert_close(found, expected)

    @pytest.mark.parametrize("size", [(6, 8), (7, 5), (1, 1)])
    def test_up(self, size: tuple[int, int]) -> None:
        """To twice the size, or one less."""
        x, (h, w) = rand(2, 3, (size[0] + 1) // 2, (size[1] + 1) // 2), size
        expected = by_scipy(x, [1 / 4, 3 / 4, 3 / 4, 1 / 4], up=2)[:, :, 1 : h + 1, 1 : w + 1]
        torch.testing.assert_close(fir_up(x, size), expected)

    def test_up_is_bilinear_inside(self) -> None:
        x = rand(1, 2, 5, 6)
        bilinear = functional.interpolate(x, scale_factor=2, mode="bilinear")
        torch.testing.assert_close(fir_up(x, None)[..., 1:-1, 1:-1], bilinear[..., 1:-1, 1:-1])

    def test_then_a_convolution(self) -> None:
        """At even sizes: of the image filtered and padded by two, a 3×3 convolution at every second position."""
        part, x = awake(FilteredDown(3, 4)), rand(2, 3, 8, 6)
        filtered = by_scipy(functional.pad(x, (2, 2, 2, 2)), [1 / 8, 3 / 8, 3 / 8, 1 / 8])[..., 3:-3, 3:-3]
        torch.testing.assert_close(part(x), part.conv(filtered), rtol=1e-4, atol=1e-5)
        assert part(x).shape == (2, 4, 4, 3)
        assert part(rand(2, 3, 7, 5)).shape == (2, 4, 4, 3)


class TestSkeleton:
    """The further words of the skeleton that the published generator needs."""

    def test_filtered_blocks_filter_both_ways_around(self) -> None:
        block = awake(ResidualBlock(4, 4, Style(embedding=6, rescale=True), "fir_down", projected=True))
        x, e = rand(2, 4, 6, 6), rand(2, 6)
        h = block.norm2(block.conv1(fir_down(functional.silu(block.norm1(x)))), e)
        expected = (block.shortcut(fir_down(x)) + block.conv2(functional.silu(h))) / math.sqrt(2)
        torch.testing.assert_close(block(x, e), expected)
        assert isinstance(block.shortcut, nn.Conv2d)

    def test_the_pyramid_meets_the_features_at_each_resolution(self) -> None:
        """Song et al. 2021, "residual": p ← (F(p) + h)/√2, h ← p."""
        options = {**SMALL, "multipliers": (1, 2, 2), "latent": 0, "down": "average", "skips": "level"}
        network = awake(UNet(2, 1, (8, 8), **options))
        x, time = rand(2, 2, 8, 8), torch.ones(2)
        e = network.trunk.embedding(time, None)
        h, pyramid = network.trunk.stem(x), x
        for level in network.trunk.levels:
            h = level.layers[0](h, e)
            if level.resample is not None:
                h = pyramid = (level.pyramid(pyramid) + functional.avg_pool2d(h, 2)) / math.sqrt(2)
        for middle in network.trunk.middle:
            h = middle(h, e)
        torch.testing.assert_close(network.trunk(x, time, None)[0], h)
        assert [level.pyramid and level.pyramid.conv.in_channels for level in network.trunk.levels] == [2, 8, None]

    def test_attention_after_the_last_block_of_a_resolution_of_the_decoder(self) -> None:
        options = {**SMALL, "blocks": 2, "attention": (8,), "middle_attention": False}
        every, last = (UNet(1, 1, (8, 8), **{**options, "decoder_attention": kind}) for kind in ("block", "level"))
        for network, expected in ((every, [True, True, True]), (last, [False, False, True])):
            assert [layer.attention is not None for layer in network.decoder[-1].layers] == expected
            assert sum(isinstance(module, SelfAttention) for module in network.trunk.modules()) == 2

    def test_tanh_is_the_last_thing(self) -> None:
        options = {**SMALL, "patch": 2}
        bounded, free = (awake(UNet(1, 1, (8, 8), **{**options, "tanh": tanh})) for tanh in (True, False))
        free.load_state_dict({key.replace("head.0.", "head."): value for key, value in bounded.state_dict().items()})
        given = rand(2, 1, 8, 8), torch.ones(2)
        torch.testing.assert_close(bounded(*given, latent=rand(2, 6)), free(*given, latent=rand(2, 6)).tanh())


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 6, 7, 8, 9, 12])
def test_deviation_in_groups_by_hand(n: int) -> None:
    """In NumPy, group by group, in the images' order: four in each where four divides n; of any other number groups of
    one size but for the last."""
    x = rand(n, 3, 2, 5)
    size = math.ceil(n / math.ceil(n / 4))
    expected = np.empty(n)
    for first in range(0, n, size):
        members = x.double().numpy()[first : first + size]
        assert len(members) == 4 or n % 4
        expected[first : first + size] = np.sqrt(members.var(0) + 1e-8).mean()
    np.testing.assert_allclose(group_deviation(x).numpy(), expected, rtol=1e-5)


class TestDiscriminator:
    def test_a_block_by_hand(self) -> None:
        for down in (False, True):
            block, x, e = awake(TimedDownBlock(3, 5, 6, down)), rand(2, 3, 7, 8), rand(2, 6)
            h = functional.leaky_relu(block.conv1(functional.leaky_relu(x, 0.2)) + block.embed(e)[..., None, None], 0.2)
            halve = fir_down if down else nn.Identity()
            expected = (block.conv2(halve(h)) + halve(block.shortcut(x))) / math.sqrt(2)
            torch.testing.assert_close(block(x, e), expected, rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("size", [(28, 28), (32, 32), (9, 14)])
    def test_sees_both_images_and_the_time(self, size: tuple[int, int]) -> None:
        network = awake(DDGANDiscriminator(1, size, 3, base_channels=4, time_width=8))
        x_s, x_t = rand(4, 1, *size, seed=1), rand(4, 1, *size, seed=2)
        time, label = torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([0, 1, 2, 0])
        whole = network(x_s, x_t, time, label)
        assert whole.shape == (4,)
        assert (network(x_t, x_s, time, label) != whole).all()
        assert (network(x_s, x_t, time + 1, label) != whole).all()
        assert (network(x_s, x_t, time, label.flip(0)) != whole)[label != label.flip(0)].all()

    def test_an_image_meets_those_of_its_group_alone(self) -> None:
        """Of eight, the first four: the deviation is one number, so others make the same difference to each; and in
        parts of four they are the whole batch's."""
        network = awake(DDGANDiscriminator(1, (8, 8), base_channels=4, time_width=8))
        x_s, x_t, time = rand(8, 1, 8, 8), rand(8, 1, 8, 8, seed=1), torch.ones(8)
        whole = network(x_s, x_t, time)
        changed = x_s.clone()
        changed[2] += 3
        moved = (network(changed, x_t, time) != whole).nonzero()[:, 0].tolist()
        assert moved == [0, 1, 2, 3]
        parts = [network(*(part[i : i + 4] for part in (x_s, x_t, time))) for i in (0, 4)]
        torch.testing.assert_close(torch.cat(parts), whole)

    def test_begins_undecided(self) -> None:
        network = DDGANDiscriminator(1, (8, 8), base_channels=4, time_width=8)
        assert not network(rand(4, 1, 8, 8), rand(4, 1, 8, 8), torch.ones(4)).any()


def test_a_norm_without_its_own_map_is_the_same_in_either_memory_format() -> None:
    norm = norm_of("group", 4, 1e-6)(16, affine=False)
    x = (rand(3, 16, 5, 7) * 2 + 1).bfloat16()
    expected = functional.group_norm(x.float(), 4, eps=1e-6)
    for memory_format in (torch.contiguous_format, torch.channels_last):
        given = x.clone(memory_format=memory_format)
        torch.testing.assert_close(norm(given).float(), expected, rtol=0.03, atol=0.05)
