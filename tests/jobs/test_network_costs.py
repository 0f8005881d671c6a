"""What networks cost: counts against closed forms and the sources' tables, and the same with and without content."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional

from trilemma.errors import InputError
from trilemma.jobs.network_costs import (
    NetworkCosts,
    _inputs,
    _taken_apart,
    anatomy,
    kept_for_backward,
    multiply_adds,
    network_costs,
    ratios,
    resolve,
)
from trilemma.metrics.speed import Speed
from trilemma.networks import SNGANGenerator, UNet
from trilemma.networks.attention import SelfAttention
from trilemma.networks.blocks import ResidualBlock
from trilemma.networks.norms import Style
from trilemma.recipes import Source, load, packaged

N, H, W = 3, 10, 6


def x(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


CLOSED = {
    "convolution": (lambda: nn.Conv2d(8, 12, 3, padding=1), (N, 8, H, W), N * 12 * 8 * 9 * H * W),
    "strided": (lambda: nn.Conv2d(8, 12, 3, stride=2, padding=1), (N, 8, H, W), N * 12 * 8 * 9 * H * W // 4),
    "grouped": (lambda: nn.Conv2d(8, 12, 3, padding=1, groups=4), (N, 8, H, W), N * 12 * 2 * 9 * H * W),
    "depthwise": (lambda: nn.Conv2d(8, 8, 5, padding=2, groups=8), (N, 8, H, W), N * 8 * 25 * H * W),
    "linear": (lambda: nn.Linear(7, 5), (N, 7), N * 7 * 5),
    "linear over positions": (lambda: nn.Linear(7, 5), (N, H, 7), N * H * 7 * 5),
}


class TestMultiplyAdds:
    @pytest.mark.parametrize("kind", CLOSED)
    @pytest.mark.parametrize("grad", [False, True])
    def test_of_a_layer(self, kind: str, grad: bool) -> None:
        make, shape, expected = CLOSED[kind]
        module = make()
        with torch.set_grad_enabled(grad):
            assert multiply_adds(lambda: module(x(*shape))) == expected

    @pytest.mark.parametrize("heads", [1, 4])
    @pytest.mark.parametrize("fake", [False, True])
    def test_of_attention(self, heads: int, fake: bool) -> None:
        """QKᵀ and its product with V take L² d each in every head."""
        shape, dim = (N, heads, H * W, 16), 16

        def run() -> None:
            q = torch.randn(shape)
            functional.scaled_dot_product_attention(q, q, q)

        expected = N * heads * 2 * (H * W) ** 2 * dim
        if fake:
            with FakeTensorMode():
                assert multiply_adds(run) == expected
        else:
            assert multiply_adds(run) == expected

    def test_of_attention_over_a_feature_map(self) -> None:
        module, positions, c = SelfAttention(32, 2, Style()), H * W, 32
        expected = N * (3 * c * c + 2 * positions * c + c * c) * positions
        assert multiply_adds(lambda: module(x(N, c, H, W))) == expected

    def test_of_a_residual_block(self) -> None:
        module = ResidualBlock(8, 12, Style(embedding=20))
        expected = N * (H * W * (9 * 8 * 12 + 9 * 12 * 12 + 8 * 12) + 20 * 12)
        assert multiply_adds(lambda: module(x(N, 8, H, W), x(N, 20))) == expected


class TestKeptForBackward:
    def test_is_what_autograd_needs(self) -> None:
        """A linear layer keeps its input for its weight's gradient, ReLU its output; weights are no activations, and
        one tensor kept twice is kept once."""
        first, second = nn.Linear(6, 10), nn.Linear(10, 2)
        network = nn.Sequential(first, nn.ReLU(), second)
        given = x(N, 6)
        assert kept_for_backward(network, lambda: network(given)) == 4 * N * (6 + 10)

    def test_is_nothing_without_gradients(self) -> None:
        network = nn.Sequential(nn.Linear(6, 10), nn.ReLU())
        with torch.no_grad():
            assert kept_for_backward(network, lambda: network(x(N, 6))) == 0


Tiny = Callable[..., Path]


@pytest.fixture
def tiny(tmp_path: Path) -> Tiny:
    """A recipe of a tiny network on 12×12 shapes, with these values put over it."""

    def write(name: str = "tiny", **values: Any) -> Path:
        network = {"name": "unet", "base_channels": 8, "multipliers": [1, 2], "blocks": 1, "attention": [6], "heads": 2}
        whole = {
            **{"learner": "denoising", "schedule": {"name": "cosine", "steps": 6}, "network": network},
            **{"data": {"name": "shapes", "size": 12}, "training": {"steps": 1, "batch": 2}},
            **values,
        }
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(whole))
        return path

    return write


KINDS: dict[str, dict[str, Any]] = {
    "attention": {},
    "conditional": {"learner": {"name": "denoising", "conditional": True}},
    "maps at the bottom": {
        "network": {
            **{"name": "unet", "base_channels": 8, "multipliers": [1, 2], "blocks": 1, "attention": []},
            **{"block": "double", "norm": "batch", "down": "max", "up": "bilinear", "entry": "bottom"},
        }
    },
    "1×1 with batch norm": {
        "network": {"name": "unet", "base_channels": 4, "multipliers": [1] * 5, "attention": [], "norm": "batch"}
    },
    "latent vector": {
        "network": {
            **{"name": "unet", "base_channels": 8, "multipliers": [1, 2], "blocks": 1, "attention": [6]},
            **{"latent": 5, "down": "biggan_fir", "up": "biggan_fir", "input_pyramid": True, "tanh": True},
        }
    },
    "refinenet": {"network": {"name": "refinenet", "base_channels": 8, "multipliers": [1, 2]}},
    "classifier": {"learner": "classifier", "network": {"name": "classifier", "widths": [[4], [8]]}},
}


class TestAnatomy:
    @pytest.mark.parametrize("kind", KINDS)
    def test_is_the_same_with_and_without_content(self, tiny: Tiny, kind: str) -> None:
        recipe = resolve(tiny(**KINDS[kind]))
        hollow, real = anatomy(recipe), _taken_apart(recipe)
        for figure in ("parameters", "multiply_adds", "activations", "calls"):
            assert getattr(hollow, figure) == getattr(real, figure), figure
        assert hollow.parameters > 0 and hollow.multiply_adds > 0 and hollow.activations > 0
        assert list(hollow.calls) == list(real.calls)

    def test_of_a_network_that_reads_its_own_numbers(self, tiny: Tiny) -> None:
        unet = {"base_channels": 8, "multipliers": [1, 2], "blocks": 1, "attention": []}
        growing = anatomy(resolve(tiny("growing", network={"name": "growing", "start": 6, **unet})))
        plain = anatomy(resolve(tiny("plain", network={"name": "unet", **unet})))
        assert growing.multiply_adds == plain.multiply_adds, "grown, it is the U-Net"
        assert growing.parameters > plain.parameters

    def test_generators_are_given_latent_vectors(self, tiny: Tiny) -> None:
        """As their first input, or beside images and times; others are given none."""
        recipe, cpu = resolve(tiny()), torch.device("cpu")
        small = {"base_channels": 8, "multipliers": (1, 2), "blocks": 1, "attention": ()}
        with_latent, without = UNet(3, 3, (12, 12), latent=5, **small), UNet(3, 3, (12, 12), **small)
        generator = SNGANGenerator(3, (12, 12), 4, latent=6, channels=4, ups=1)
        shapes = {}
        for network in (generator, with_latent, without):
            first, others = _inputs(network, recipe, 2, cpu)
            assert network(first, **others).shape == (2, 3, 12, 12)
            shapes[network] = tuple(first.shape), sorted(others)
        assert shapes[generator] == ((2, 6), ["label"])
        assert shapes[with_latent] == ((2, 3, 12, 12), ["label", "latent", "time"])
        assert shapes[without] == ((2, 3, 12, 12), ["label", "time"])

    def test_is_of_one_image(self, tiny: Tiny) -> None:
        one = anatomy(resolve(tiny()))
        assert one.calls["trunk.stem"].inputs == (3, 12, 12)
        assert one.calls["head"].outputs == (3, 12, 12)
        block = one.network.get_submodule("trunk.stem")
        assert multiply_adds(lambda: nn.Conv2d(3, 8, 3, padding=1)(x(1, 3, 12, 12))) == 9 * 3 * 8 * 144
        assert isinstance(block, nn.Conv2d) and one.multiply_adds > 9 * 3 * 8 * 144


A_TABLE = {  # A table 4.3, and how near the parameters are to be: N1, N2
    "ddpm-cifar10": 0.01,
    "cifar10-deepres1": 0.01,
    "cifar10-shallowres2": 0.01,
    "cifar10-shallowres1": 0.01,
    "cifar10-mbconv64": 0.05,
    "cifar10-mbconv96": 0.05,
}


class TestSource:
    def test_parameters_are_as_a_printed_them(self) -> None:
        found = network_costs([anatomy(resolve(name)) for name in A_TABLE], timing=False)
        for one in found:
            assert one.deviation is not None and abs(one.deviation) < A_TABLE[one.name], one
            assert one.source is not None and one.source.paper == "A table 4.3"
            assert one.deviation == pytest.approx(one.parameters / 2**20 / one.source.parameters_mi - 1)
        speeds = [ratio.source_speed for ratio in ratios(found)]
        assert speeds == [pytest.approx(speed) for speed in (1.00, 1.50, 1.15, 1.74, 1.23, 0.77)]
        hours = [ratio.source_training for ratio in ratios(found)]
        assert hours[0] == 1 and hours[-1] == pytest.approx(42.50 / 20.66)

    def test_those_with_printed_figures_have_them(self) -> None:
        given = {name for name in packaged() if load(name).source is not None}
        d = {f"cifar10-{row}" for row in ("double", "additional-link", "rdn", "deep", "convnext", "anti-aliasing")}
        assert given >= A_TABLE.keys() | d | {"cifar10-4-double", "cifar10-biggan", "cifar10-biggan-pure"}

    @pytest.mark.parametrize("name", [name for name in sorted(packaged()) if "\nsource:" in packaged()[name]])
    def test_says_what_the_head_says(self, name: str) -> None:
        text, source = packaged()[name], load(name).source
        assert source is not None
        head = " ".join(line.lstrip("# ") for line in text.splitlines() if line.startswith("#"))
        for figure, value, digits in (
            (r"([\d.]+) Mi parameters", source.parameters_mi, 2),
            (r"FID ([\d.]+)", source.fid, 2),
            (r"([\d.]+) images a second", source.images_per_second, 2),
            (r"([\d.]+) hours", source.training_hours, 1),
            (r"IS ([\d.]+)", source.inception_score, 2),
        ):
            if found := re.search(figure, head.partition("Expected:")[2]):
                assert value is not None and float(found[1]) == pytest.approx(value, abs=0.51 * 10**-digits), figure

    @pytest.mark.parametrize("name", [n for n, text in sorted(packaged().items()) if "\nbase:" in text])
    def test_is_a_recipe_s_own(self, name: str) -> None:
        """A recipe that stands on another is another system: its base's figures are not its own."""
        own = yaml.safe_load(packaged()[name]).get("source")
        assert load(name).source == (None if own is None else Source(**own))

    def test_does_not_outlive_a_change_of_network(self) -> None:
        assert load("ddpm-cifar10", ["training.steps=9000", "data.size=32"]).source == load("ddpm-cifar10").source
        assert load("ddpm-cifar10", ["network.blocks=1"]).source is None

    def test_is_checked(self, tiny: Tiny) -> None:
        assert load(tiny(source={"paper": "here", "fid": 3.5})).source == Source(paper="here", fid=3.5)
        with pytest.raises(InputError, match=r"unknown key in source 'fidd': did you mean 'fid'"):
            load(tiny(source={"paper": "here", "fidd": 3.5}))
        with pytest.raises(InputError, match=r"source\.parameters_mi: .* greater than 0"):
            load(tiny(source={"paper": "here", "parameters_mi": 0}))


def costs(forward: float | None, step: float, source: Source | None = None) -> NetworkCosts:
    def speed(rate: float | None) -> Speed | None:
        return None if rate is None else Speed(rate, rate, rate, 2, 5, 1)

    return NetworkCosts("one", (3, 8, 8), 2**20, 10, 10, speed(forward), speed(step), None, source)


class TestRatios:
    def test_are_to_the_first(self) -> None:
        a = Source(paper="A", images_per_second=2.0, training_hours=10.0)
        b = Source(paper="A", images_per_second=5.0, training_hours=4.0)
        first, second = ratios([costs(4.0, 1.0, a), costs(10.0, 0.5, b)])
        assert (first.speed, first.source_speed, first.training, first.source_training) == (1, 1, 1, 1)
        assert (second.speed, second.training) == (2.5, 2.0)
        assert (second.source_speed, second.source_training) == (2.5, 0.4)

    def test_compare_no_two_sources(self) -> None:
        a, b = (Source(paper=paper, images_per_second=2.0, training_hours=1.0) for paper in "AB")
        other = ratios([costs(4.0, 1.0, a), costs(4.0, 1.0, b)])[1]
        assert other.source_speed is None and other.source_training is None
        assert ratios([costs(4.0, 1.0, a), costs(4.0, 1.0)])[1].source_speed is None

    def test_are_none_where_nothing_was_timed(self) -> None:
        assert ratios([costs(None, 1.0), costs(4.0, 1.0)])[1].speed is None


class TestNetworkCosts:
    def test_times_forward_and_step_over_the_batch(self, tiny: Tiny) -> None:
        (one,) = network_costs([anatomy(resolve(tiny()))], batch=3, device="cpu")
        assert one.forward is not None and one.step is not None and one.untimed is None
        assert (one.forward.batch, one.step.batch, one.forward.repeats) == (3, 3, 5)
        assert one.shape == (3, 12, 12)

    def test_what_would_take_minutes_is_not_timed(self) -> None:
        large = [anatomy(resolve("imagenet64-adm"))]
        assert large[0].recipe.images is not None and large[0].recipe.images.shape == (3, 64, 64)
        (one,) = network_costs(large, batch=8, device="cpu")
        assert one.forward is None and one.step is None
        assert one.untimed is not None and "--batch 1 is timed" in one.untimed

    def test_refuses_what_is_not_there(self, tiny: Tiny) -> None:
        with pytest.raises(InputError, match=r"--device 'abacus': expected a device of this machine \(cpu"):
            network_costs([], device="abacus")
        with pytest.raises(InputError, match="--batch 0: expected 1 or more"):
            network_costs([], batch=0)
        with pytest.raises(InputError, match="did you mean 'ddpm-cifar10'"):
            resolve("ddpm-cifar")
        with pytest.raises(InputError, match="nowhere"):
            resolve(tiny(data={"name": "./nowhere", "size": 8}))


def test_what_is_trained_counts_the_discriminator_and_what_is_sampled_does_not() -> None:
    """SNGAN's two networks (Miyato et al. 2018, table 4), neither of them built with weights."""
    found = anatomy(resolve("cifar10-sngan"))
    assert (found.parameters, found.trained) == (4_276_739, 4_276_739 + 1_053_824)
