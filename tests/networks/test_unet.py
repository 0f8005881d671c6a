from __future__ import annotations

import math
from itertools import product
from typing import Any, TypeVar

import pytest
import torch
from torch import Tensor, nn

from trilemma.networks import UNet
from trilemma.networks.attention import ATTENTION
from trilemma.networks.embeddings import Sinusoidal
from trilemma.networks.ends import HEADS, STEMS
from trilemma.networks.norms import Style
from trilemma.networks.resampling import DOWN, UP

# E's networks (E 3.2–3.5): two convolutions a block, embeddings as maps at the bottom, one skip a resolution.
E_MNIST: dict[str, Any] = {
    "base_channels": 64,
    "multipliers": (1, 2, 4),
    "blocks": 1,
    "attention": (),
    "middle_attention": False,
    "dropout": 0.0,
    "block": "double",
    "norm": "batch",
    "activation": "relu",
    "down": "max",
    "up": "bilinear",
    "entry": "bottom",
    "skips": "level",
    "time_range": 200.0,
}
SMALL: dict[str, Any] = {"base_channels": 64, "multipliers": (1, 2), "blocks": 1, "attention": (), "dropout": 0.0}
SMALL_E = {**E_MNIST, "base_channels": 8}
# D's baseline in small, but for how its weights begin.
D_BASELINE: dict[str, Any] = {
    **{"base_channels": 8, "multipliers": (1, 2, 2), "blocks": (0, 1, 1), "attention": (), "middle_attention": False},
    **{"attention_kind": "transformer", "heads": 4, "dropout": 0.0, "block": "double", "repeats": 2, "links": "same"},
    **{"norm": "layer", "norm_eps": 1e-5, "activation": "gelu", "entry": "after", "time_sinusoids": 32},
    **{"down": "max", "up": "bilinear_aligned", "skips": "level", "decoder_widths": "narrowed"},
    **{"stem": "double", "middle": "double", "head": "point"},
}
BUILDS = [pytest.param(SMALL, id="ddpm"), pytest.param(SMALL_E, id="e"), pytest.param(D_BASELINE, id="d")]


Network = TypeVar("Network", bound=nn.Module)


def awake(network: Network, seed: int = 0) -> Network:
    """The network with random parameters throughout, so that no branch is asleep behind zeros; scaled so that signals
    neither die nor grow on the way."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in network.named_parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=(2 / parameter[0].numel()) ** 0.5, generator=generator)
        else:
            nn.init.normal_(parameter, float(name.endswith("weight")), 0.3, generator=generator)
    return network.eval()


def images(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


class TestPublishedSizes:
    def test_ddpm_on_cifar10(self) -> None:
        """Ho et al.'s own network has 35 746 307 parameters (35.7 M); A's figures are in the recipes' tests."""
        with torch.device("meta"):
            network = UNet(3, 3, (32, 32))
        assert count(network) == 35_746_307

    @pytest.mark.parametrize(
        ("size", "arguments", "millions"),
        [
            (64, {"base_channels": 192, "multipliers": (1, 2, 3, 4), "blocks": 3, "head_channels": 64}, 296),
            (128, {"base_channels": 256, "multipliers": (1, 1, 2, 3, 4), "heads": 4}, 422),
            (256, {"base_channels": 256, "multipliers": (1, 1, 2, 2, 4, 4), "head_channels": 64}, 554),
        ],
    )
    def test_adm_on_imagenet(self, size: int, arguments: dict[str, Any], millions: int) -> None:
        """Dhariwal & Nichol 2021, table 11, to the last digit printed."""
        adm: dict[str, Any] = {"entry": "adagn", "down": "biggan", "up": "biggan", "attention": (32, 16, 8)}
        with torch.device("meta"):
            network = UNet(3, 6, (size, size), 1000, **adm, **arguments)
        assert round(count(network) / 1e6) == millions

    @pytest.mark.parametrize(("classes", "channels"), [(0, 384), (10, 512)])
    def test_bottoms_of_the_mnist_networks(self, classes: int, channels: int) -> None:
        """E 3.4, 3.5: 256 channels from the convolutions, 128 of time, and 128 of the class where there is one."""
        network = UNet(1, 1, (28, 28), classes, **E_MNIST).eval()
        seen: list[tuple[int, ...]] = []
        network.trunk.middle[0].register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape)))
        network(images(1, 1, 28, 28), torch.tensor([3.0]), torch.tensor([4]) if classes else None)
        assert seen == [(1, channels, 7, 7)]

    def test_bottom_maps_are_time_then_class_after_the_image(self) -> None:
        network = awake(UNet(1, 1, (28, 28), 10, **E_MNIST))
        seen: list[Tensor] = []
        network.trunk.middle[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        x, time, label = images(1, 1, 28, 28), torch.tensor([3.0]), torch.tensor([4])
        network(x, time, label)
        network(x, time + 50, label)
        network(x, time, label + 1)
        parts = [bottom.split([256, 128, 128], 1) for bottom in seen]
        later, other = ([not torch.equal(a, b) for a, b in zip(parts[0], part, strict=True)] for part in parts[1:])
        assert later == [False, True, False]
        assert other == [False, False, True]


class TestShapes:
    @pytest.mark.parametrize("size", [(28, 28), (32, 32), (9, 7), (5, 12), (1, 1), (2, 31)])
    @pytest.mark.parametrize("arguments", BUILDS)
    def test_the_output_is_shaped_like_the_image(self, arguments: dict[str, Any], size: tuple[int, int]) -> None:
        network = awake(UNet(3, 6, size, **arguments))
        found = network(images(2, 3, *size), torch.tensor([1.0, 9.0]))
        assert found.shape == (2, 6, *size)
        assert torch.isfinite(found).all()

    @pytest.mark.parametrize(("size", "patch"), [((28, 28), 2), ((9, 6), 3), ((12, 20), 4)])
    def test_patches_are_folded_into_channels(self, size: tuple[int, int], patch: int) -> None:
        network = awake(UNet(2, 1, size, patch=patch, **SMALL))
        seen: list[tuple[int, ...]] = []
        network.trunk.stem.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape)))
        assert network(images(1, 2, *size), torch.tensor([1.0])).shape == (1, 1, *size)
        assert seen == [(1, 2 * patch**2, size[0] // patch, size[1] // patch)]

    def test_patches_must_divide_the_image(self) -> None:
        for size in ((28, 27), (27, 28)):
            with pytest.raises(ValueError, match=r"network.patch 2 .*" + f"{size[0]}×{size[1]}"):
                UNet(1, 1, size, patch=2, **SMALL)

    def test_heads_must_divide_the_channels(self) -> None:
        with pytest.raises(ValueError, match=r"network.heads 3 .*128"):
            UNet(1, 1, (8, 8), heads=3, **SMALL)

    def test_attention_is_where_it_was_asked_for(self) -> None:
        def attended(attention: tuple[int, ...], middle: bool) -> int:
            network = UNet(1, 1, (16, 24), base_channels=32, blocks=1, attention=attention, middle_attention=middle)
            return sum(type(module).__name__ == "SelfAttention" for module in network.modules())

        # Resolutions 16, 8, 4, 2 (the shorter side), one layer each on the way down and two on the way up.
        assert [attended((), False), attended((), True), attended((8,), False), attended((16, 4), True)] == [0, 1, 3, 7]
        # Or levels from the coarsest: −3 is at 8, −4 and −2 at 16 and 4.
        assert [attended((-3,), False), attended((-4, -2), True), attended((-3, 8), False)] == [3, 7, 3]
        for attention in ((7,), (-5,), (0,)):
            with pytest.raises(ValueError, match=r"resolutions, \[16, 8, 4, 2\], or its levels .* -4, -3, -2, -1"):
                attended(attention, False)


@pytest.mark.parametrize("classes", [0, 5])
@pytest.mark.parametrize("arguments", BUILDS)
class TestEveryNetwork:
    def build(self, arguments: dict[str, Any], classes: int) -> tuple[UNet, Tensor, Tensor, Tensor | None]:
        label = torch.tensor([0, 3, 4]) if classes else None
        return UNet(2, 2, (8, 8), classes, **arguments), images(3, 2, 8, 8), torch.tensor([0.0, 10.0, 99.0]), label

    def test_it_begins_at_zero(self, arguments: dict[str, Any], classes: int) -> None:
        """The last convolution starts at zero: with v- or ε-prediction the first guess is the mean of the target."""
        network, *inputs = self.build(arguments, classes)
        assert torch.equal(network(*inputs), torch.zeros(3, 2, 8, 8))

    def test_gradients_reach_every_parameter(self, arguments: dict[str, Any], classes: int) -> None:
        network, *inputs = self.build(arguments, classes)
        awake(network).train()
        (network(*inputs) * images(3, 2, 8, 8)).sum().backward()
        scales = {name: p.grad.abs().max().item() for name, p in network.named_parameters() if p.grad is not None}
        without = [name for name, _ in network.named_parameters() if not scales.get(name, 0.0) > 1e-6]
        assert without == []

    def test_time_matters(self, arguments: dict[str, Any], classes: int) -> None:
        network, x, time, label = self.build(arguments, classes)
        awake(network)
        assert (network(x, time, label) - network(x, time + 20, label)).abs().amax((1, 2, 3)).min() > 1e-3

    def test_class_matters_where_there_is_one(self, arguments: dict[str, Any], classes: int) -> None:
        network, x, time, label = self.build(arguments, classes)
        awake(network)
        if label is None:
            assert torch.isfinite(network(x, time)).all()
        else:
            other = (label + 1) % classes
            assert (network(x, time, label) - network(x, time, other)).abs().amax((1, 2, 3)).min() > 1e-3
            with pytest.raises(ValueError, match="class-conditional: it needs a label"):
                network(x, time)

    def test_every_pixel_sees_the_image(self, arguments: dict[str, Any], classes: int) -> None:
        """Each output pixel answers to its own input pixel and to the opposite corner."""
        network, x, time, label = self.build(arguments, classes)
        awake(network)
        x.requires_grad_()
        (gradient,) = torch.autograd.grad(network(x, time, label)[:, :, 0, 0].sum(), x)
        assert (gradient[:, :, 0, 0].abs() > 1e-6).all()
        assert (gradient[:, :, -1, -1].abs() > 1e-9).all()

    def test_images_do_not_see_each_other(self, arguments: dict[str, Any], classes: int) -> None:
        network, x, time, label = self.build(arguments, classes)
        awake(network)
        together = network(x, time, label)
        for i in range(3):
            one = slice(i, i + 1)
            alone = network(x[one], time[one], None if label is None else label[one])
            torch.testing.assert_close(together[one], alone, rtol=1e-4, atol=1e-5)

    def test_dropout_acts_in_training_only(self, arguments: dict[str, Any], classes: int) -> None:
        _, *inputs = self.build(arguments, classes)
        network = awake(UNet(2, 2, (8, 8), classes, **{**arguments, "dropout": 0.5}))
        assert torch.equal(network(*inputs), network(*inputs))
        network.train()
        torch.manual_seed(0)
        assert not torch.allclose(network(*inputs), network(*inputs), atol=1e-4)


@pytest.mark.parametrize("width", [8, 16, 32, 48, 64, 128])
def test_time_and_class_matter_at_every_width(width: int) -> None:
    """Normalisation over groups of a single channel would take away what the embedding adds to that channel."""
    network = awake(UNet(1, 1, (8, 8), 3, base_channels=width, multipliers=(1,), blocks=1, attention=()))
    x, time, label = images(2, 1, 8, 8), torch.tensor([5.0, 50.0]), torch.tensor([0, 1])
    found, scale = network(x, time, label), network(x, time, label).std()
    assert (network(x, time + 300, label) - found).abs().max() > 0.01 * scale
    assert (network(x, time, label + 1) - found).abs().max() > 0.01 * scale


def test_parts_go_together_freely() -> None:
    """The other options are independent: any way down with any way up, and either kind of skips and of widths."""
    for down, up, skips, widths in product(DOWN, UP, ("block", "level"), ("mirrored", "narrowed")):
        options: dict[str, Any] = {"down": down, "up": up, "skips": skips, "decoder_widths": widths, "blocks": 2}
        network = awake(UNet(1, 1, (7, 10), **{**SMALL, "base_channels": 8, **options}))
        assert network(images(1, 1, 7, 10), torch.tensor([3.0])).shape == (1, 1, 7, 10)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("stem", STEMS)
@pytest.mark.parametrize("attention_kind", ATTENTION)
def test_ends_and_attention_go_with_any_block(attention_kind: Any, stem: Any, head: Any) -> None:
    for block in ("residual", "mbconv", "double", "dense", "convnext"):
        options: dict[str, Any] = {"attention": (5,), "attention_kind": attention_kind, "stem": stem, "head": head}
        network = awake(UNet(1, 1, (9, 10), **{**SMALL, **options, "base_channels": 8, "heads": 2, "block": block}))
        assert network(images(1, 1, 9, 10), torch.tensor([3.0])).shape == (1, 1, 9, 10)


def test_what_a_narrowed_decoder_brings_up_is_as_wide_as_the_skip_it_meets() -> None:
    options: dict[str, Any] = {"base_channels": 8, "multipliers": (1, 2, 4, 4), "blocks": 1, "skips": "level"}
    mirrored, narrowed = (
        UNet(1, 1, (8, 8), **{**SMALL, **options, "decoder_widths": widths}) for widths in ("mirrored", "narrowed")
    )
    for network, entering, leaving in (
        (mirrored, [32 + 32, 32 + 16, 16 + 8], [32, 16, 8]),
        (narrowed, [32 + 32, 16 + 16, 8 + 8], [16, 8, 8]),
    ):
        assert [level.layers[0].block.conv1.in_channels for level in network.decoder[1:]] == entering
        assert [level.channels for level in network.decoder[1:]] == leaving


@pytest.mark.parametrize("block", ["residual", "mbconv"])
def test_weights_begin_at_zero_only_if_they_are_to(block: Any) -> None:
    def asleep(**options: Any) -> list[str]:
        network = UNet(1, 1, (8, 8), **{**SMALL, "block": block, "attention": (4,), "up": "biggan", **options})
        return [name for name, weight in network.named_parameters() if weight.dim() > 1 and not weight.any()]

    ends = {"conv2" if block == "residual" else "project", "resample.conv2", "attention.project", "head.2"}
    found = asleep()
    assert all(any(name.endswith(f"{end}.weight") for name in found) for end in ends)
    assert asleep(zero_init=False) == []
    assert any(name.endswith("feed.3.weight") for name in asleep(attention_kind="transformer"))
    assert asleep(attention_kind="transformer", head="point", zero_init=False) == []


def test_blocks_may_differ_from_level_to_level() -> None:
    network = UNet(1, 1, (8, 8), **{**SMALL, "blocks": (0, 2), "skips": "level"})
    assert [len(level.layers) for level in network.trunk.levels] == [0, 2]
    assert [len(level.layers) for level in network.decoder] == [0, 1]
    with pytest.raises(ValueError, match=r"network.blocks \[1, 2, 3\]: expected one number, or 2"):
        UNet(1, 1, (8, 8), **{**SMALL, "blocks": (1, 2, 3)})


def test_channels_of_a_head_fix_their_number() -> None:
    network = UNet(1, 1, (8, 8), **{**SMALL, "attention": (8, 4), "head_channels": 16})
    heads = [m.heads for m in network.modules() if type(m).__name__ == "SelfAttention"]
    assert heads == [4, 8, 8, 8, 8, 4, 4]
    with pytest.raises(ValueError, match=r"network.head_channels 48 does not divide 128 channels"):
        UNet(1, 1, (8, 8), **{**SMALL, "head_channels": 48})


def test_options_of_double_convolutions_alone_are_refused_elsewhere() -> None:
    with pytest.raises(ValueError, match=r"network.repeats and network.links are those of block 'double'"):
        UNet(1, 1, (8, 8), **SMALL, links="all")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"heads": 2, "head_channels": 8}, r"network.heads 2 and network.head_channels 8: expected one of them"),
        ({"norm": "layer", "groups": 4}, r"network.groups 4: norm 'layer' has none"),
        ({"middle": "double"}, r"network.middle 'double' has no attention"),
        ({"entry": "bottom", "time_sinusoids": 64}, r"network.time_sinusoids 64: entry 'bottom' has none"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        UNet(1, 1, (8, 8), **{**SMALL, **options})


@pytest.mark.parametrize("entry", ["added", "adagn", "after"])
def test_time_enters_residual_blocks_that_resample_too(entry: Any) -> None:
    """D 2.3: "added the time embedding input to each of the residual blocks"."""
    network = awake(UNet(1, 1, (8, 8), **{**SMALL, "entry": entry, "down": "biggan", "up": "biggan"}))
    for block in (network.trunk.levels[0].resample, network.decoder[0].resample):
        x, e = images(1, block.conv1.in_channels, 4, 4), images(2, 256)
        assert (block(x, e[:1], (8, 8)) - block(x, e[1:], (8, 8))).abs().max() > 1e-3


def test_rescaled_sums_keep_their_variance() -> None:
    """(x + h)/√2 of independent x and h of variance 1 has variance 1 (Song et al. 2021)."""
    x, h = images(1, 1, 400, 400), torch.randn(1, 1, 400, 400, generator=torch.Generator().manual_seed(3))
    assert Style(rescale=True).residual(x, h).var().item() == pytest.approx(1.0, rel=0.02)
    assert Style().residual(x, h).var().item() == pytest.approx(2.0, rel=0.02)


def test_an_upsampler_sees_a_smaller_image() -> None:
    """The smaller image is interpolated and joined: one that is constant is the same at any size."""
    network = awake(UNet(1, 1, (8, 8), **SMALL, upsampler=True))
    x, time = images(2, 1, 8, 8), torch.tensor([3.0, 4.0])
    flat = [network(x, time, low=torch.full((2, 1, side, side), 0.5)) for side in (2, 4, 8)]
    torch.testing.assert_close(flat[0], flat[1])
    torch.testing.assert_close(flat[0], flat[2])
    assert (network(x, time, low=images(2, 1, 4, 4)) - flat[0]).abs().max() > 1e-2
    with pytest.raises(ValueError, match="it needs a `low` image"):
        network(x, time)
    with pytest.raises(ValueError, match="it takes no `low` image"):
        UNet(1, 1, (8, 8), **SMALL)(x, time, low=x)


@pytest.mark.parametrize("dim", [2, 7, 128])
def test_time_embedding_by_hand(dim: int) -> None:
    times, half = [0.0, 1.0, 999.0, 12.5], dim // 2
    found = Sinusoidal(dim)(torch.tensor(times))
    for row, t in zip(found.tolist(), times, strict=True):
        angles = [t * 10000 ** (-i / half) for i in range(half)]
        expected = [math.cos(a) for a in angles] + [math.sin(a) for a in angles] + [0.0] * (dim % 2)
        assert row == pytest.approx(expected, abs=2e-4)


def test_bottom_time_is_scaled_by_its_range() -> None:
    near, far = (awake(UNet(1, 1, (8, 8), **{**SMALL_E, "time_range": reach})) for reach in (100.0, 1000.0))
    x = images(1, 1, 8, 8)
    torch.testing.assert_close(near(x, torch.tensor([30.0])), far(x, torch.tensor([300.0])))
