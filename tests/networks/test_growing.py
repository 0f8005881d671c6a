"""Progressive growing: what each level is, how they blend, what a coarse loss asks for."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.networks.test_unet import D_BASELINE, awake, images
from trilemma.errors import InputError
from trilemma.networks import Growing, UNet
from trilemma.process import SCHEDULES, Denoiser
from trilemma.recipes.components import arguments_model, component, construct

# Three levels, 16, 8 and 4, of which 4 is trained first.
SMALL: dict[str, Any] = {
    **{"base_channels": 8, "multipliers": (1, 1, 2), "blocks": 1, "attention": (), "dropout": 0.0},
    "middle_attention": False,
}
# D's baseline and E's network in small: skips and entry of other kinds, levels without blocks, a narrower decoder.
DOUBLE: dict[str, Any] = {**D_BASELINE, "attention": (8,)}
BOTTOM: dict[str, Any] = {**SMALL, "entry": "bottom", "block": "double", "norm": "batch", "skips": "level"}
BUILDS = pytest.mark.parametrize("arguments", [SMALL, DOUBLE, BOTTOM], ids=["ddpm", "d", "e"])
STEPS = 10  # training steps a stage, in all of these
TIME, LABEL = torch.tensor([3.0, 40.0]), torch.tensor([0, 2])


def build(size: tuple[int, int] = (16, 16), classes: int = 3, start: int = 4, **changes: Any) -> Any:
    return awake(Growing(2, 2, size, classes, start=start, stage_steps=STEPS, **{**SMALL, **changes}))


def faded(network: Any, *weights: float) -> Any:
    network.fade.copy_(torch.tensor(weights))
    return network


def pooled(x: Tensor) -> Tensor:
    return functional.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False)


def repeated(x: Tensor, like: Tensor) -> Tensor:
    """Each pixel as a 2×2 square, cut to size."""
    return x.repeat_interleave(2, -2).repeat_interleave(2, -1)[..., : like.shape[-2], : like.shape[-1]]


class TestGrowth:
    def test_says_which_levels_a_step_runs(self) -> None:
        network, seen = build(), []
        heads = [network.unet.head, *network.heads]
        for k, head in enumerate(heads):
            head.register_forward_hook(lambda *_, k=k: seen.append(k))
        for step in (0, 9, 10, 11, 15, 19, 20, 21, 25, 1000):
            network.grow(step)
            seen.clear()
            network(images(2, 2, 16, 16), TIME, LABEL)
            assert network.running(step) == tuple(k in seen for k in range(len(heads))), step

    def test_the_weights_at_each_step(self) -> None:
        network = build()
        found = []
        for step in (0, 9, 10, 11, 14, 15, 19, 20, 21, 24, 25, 1000):
            network.grow(step)
            found.append([round(a, 6) for a in network.fade.tolist()])
        assert found == [
            *([0, 0], [0, 0], [0, 0], [0, 0.2], [0, 0.8], [0, 1], [0, 1]),
            *([0, 1], [0.2, 1], [0.8, 1], [1, 1], [1, 1]),
        ]

    def test_it_says_where_a_level_begins(self) -> None:
        network = build()
        assert [step for step in range(100) if network.grow(step)] == [10, 20]

    def test_it_begins_grown_and_the_weights_are_saved(self) -> None:
        network = Growing(1, 1, (16, 16), start=4, **SMALL)
        assert network.fade.tolist() == [1, 1]
        network.grow(0)
        other = Growing(1, 1, (16, 16), start=4, **SMALL)
        other.load_state_dict(network.state_dict())
        assert other.fade.tolist() == [0, 0]

    def test_steps_change_the_output_little(self) -> None:
        """The output is continuous: a step moves it by a fifth of a whole fade, and a stage's first by nothing."""
        network, x = build(), images(2, 2, 16, 16)
        outputs = []
        for step in range(30):
            network.grow(step)
            outputs.append(network(x, TIME, LABEL))
        moved = [(a - b).abs().max().item() for a, b in pairwise(outputs)]
        for border, fade in ((10, outputs[15] - outputs[10]), (20, outputs[25] - outputs[20])):
            assert moved[border - 1] == 0
            assert moved[border : border + 5] == pytest.approx([fade.abs().max().item() / 5] * 5, rel=1e-3)
        assert all(moved[i] == 0 for i in [*range(10), *range(15, 20), *range(25, 29)])


class TestLevels:
    @BUILDS
    def test_grown_it_is_the_u_net(self, arguments: dict[str, Any]) -> None:
        network, x = build(**arguments), images(2, 2, 16, 16)
        assert torch.equal(network(x, TIME, LABEL), network.unet(x, TIME, LABEL))

    def test_a_level_is_the_u_net_without_those_above_it(self) -> None:
        network, x = faded(build(), 0.0, 1.0), images(2, 2, 16, 16)
        smaller = UNet(2, 2, (8, 8), 3, **{**SMALL, "multipliers": (1, 2)}).eval()
        assert (network.unet.widths, smaller.widths) == ((8, 8, 16), (8, 16))
        given = network.state_dict()

        def source(name: str) -> str:
            for ours, growing in (("trunk.stem.", "stems.0."), ("head.", "heads.0.")):
                if name.startswith(ours):
                    return name.replace(ours, growing)
            finer = name.replace("trunk.levels.1.", "trunk.levels.2.").replace("trunk.levels.0.", "trunk.levels.1.")
            return f"unet.{finer}"

        smaller.load_state_dict({name: given[source(name)] for name in smaller.state_dict()})
        up = repeated(smaller(pooled(x), TIME, LABEL), x)
        gain = network.gains[0](network.time(TIME, None))[:, :, None, None]
        torch.testing.assert_close(network(x, TIME, LABEL), up + gain * (x - repeated(pooled(x), x)))

    @BUILDS
    @pytest.mark.parametrize("size", [(16, 16), (13, 10), (11, 18)])
    def test_a_level_that_fades_in_is_a_mean(self, arguments: dict[str, Any], size: tuple[int, int]) -> None:
        sides = [min(size), (min(size) + 1) // 2, ((min(size) + 1) // 2 + 1) // 2]
        attention = [sides[1]] if arguments["attention"] else []
        network = build(size, start=sides[2], **{**arguments, "attention": attention})
        x = images(2, 2, *size)
        coarse, fine = (faded(network, a, 1.0)(x, TIME, LABEL) for a in (0.0, 1.0))
        torch.testing.assert_close(faded(network, 0.25, 1.0)(x, TIME, LABEL), 0.75 * coarse + 0.25 * fine)
        assert (fine - coarse).abs().max() > 1e-2
        coarsest = faded(network, 0.0, 0.0)(x, TIME, LABEL)
        mean = faded(network, 0.0, 0.5)(x, TIME, LABEL)
        torch.testing.assert_close(mean, 0.5 * coarsest + 0.5 * coarse)

    @pytest.mark.parametrize("size", [(16, 16), (13, 10), (11, 18)])
    def test_without_detail_a_coarse_output_is_repeated(self, size: tuple[int, int]) -> None:
        network = faded(build(size, start=(min(size) + 3) // 4), 0.0, 0.0)
        for gain in network.gains:
            for parameter in gain.parameters():
                nn.init.zeros_(parameter)
        found = network(images(2, 2, *size), TIME, LABEL)
        torch.testing.assert_close(found, repeated(repeated(found[..., ::4, ::4], found[..., ::2, ::2]), found))

    def test_a_learned_variance_is_repeated_as_it_is(self) -> None:
        network: Any = faded(awake(Growing(2, 4, (16, 16), start=4, **SMALL)), 0.0, 1.0)
        found = network(images(2, 2, 16, 16), TIME)
        assert found.shape == (2, 4, 16, 16)
        blocks = [torch.equal(c, repeated(c[..., ::2, ::2], c)) for c in (found[:, :2], found[:, 2:])]
        assert blocks == [False, True]

    @BUILDS
    def test_it_begins_at_zero(self, arguments: dict[str, Any]) -> None:
        network = Growing(2, 2, (16, 16), start=4, **arguments)
        for weights in ((0.0, 0.0), (0.0, 0.5), (0.5, 1.0), (1.0, 1.0)):
            assert torch.equal(faded(network, *weights)(images(2, 2, 16, 16), TIME), torch.zeros(2, 2, 16, 16))

    @BUILDS
    def test_time_and_class_matter_at_every_stage(self, arguments: dict[str, Any]) -> None:
        network, x = build(**arguments), images(2, 2, 16, 16)
        for weights in ((0.0, 0.0), (0.0, 1.0), (1.0, 1.0)):
            found = faded(network, *weights)(x, TIME, LABEL)
            assert (network(x, TIME + 20, LABEL) - found).abs().amax((1, 2, 3)).min() > 1e-3
            # E's nets of one hidden layer may give two classes of three nearly the same maps.
            assert (network(x, TIME, (LABEL + 1) % 3) - found).abs().max() > 1e-3


def gradients(network: Any) -> dict[str, float]:
    network.zero_grad()
    x = images(4, 2, 16, 16)
    time, label = torch.tensor([3.0, 40.0, 7.0, 99.0]), torch.tensor([0, 1, 2, 0])
    (network(x, time, label) * images(4, 2, 16, 16).roll(1, 0)).sum().backward()
    return {name: p.grad.abs().max().item() for name, p in network.named_parameters() if p.grad is not None}


class TestGradients:
    @BUILDS
    def test_they_reach_every_parameter_in_the_course_of_growth(self, arguments: dict[str, Any]) -> None:
        network = build(**arguments).train()
        reached: set[str] = set()
        for step in (0, 12, 17, 22, 27):
            network.grow(step)
            reached |= {name for name, scale in gradients(network).items() if scale > 1e-6}
        assert {name for name, _ in network.named_parameters()} - reached == set()

    def test_a_level_of_weight_0_has_none(self) -> None:
        network = build()

        def finest(names: Iterator[str]) -> set[str]:
            own = ("unet.trunk.stem.", "unet.trunk.levels.0.", "unet.decoder.2.", "unet.decoder.1.resample.")
            return {name for name in names if name.startswith((*own, "unet.head."))}

        everything = finest(name for name, _ in network.named_parameters())
        found = []
        for step in (10, 20, 21):  # level 0 begins at 20, with weight 0
            network.grow(step)
            found.append(finest(iter(gradients(network))))
        assert everything and found == [set(), set(), everything]

    def test_the_error_at_full_size_is_that_of_the_pooled_target(self) -> None:
        """Σ over a square of (y − up(f))² is 4 (pool(y) − f)² and something without f: the same gradients."""
        network = faded(build(), 0.0, 1.0)
        nn.init.zeros_(network.gains[0].weight), nn.init.zeros_(network.gains[0].bias)
        x, y = images(2, 2, 16, 16), images(2, 2, 16, 16).flip(-1)
        weight = network.unet.trunk.levels[1].layers[0].block.conv1.weight
        whole = (y - network(x, TIME, LABEL)).square().mean()
        half = (pooled(y) - pooled(network(x, TIME, LABEL))).square().mean()
        at_full, at_half = (torch.autograd.grad(loss, weight)[0] for loss in (whole, half))
        torch.testing.assert_close(at_full, at_half, rtol=1e-3, atol=1e-6)
        torch.testing.assert_close(whole - half, (y - repeated(pooled(y), y)).square().mean())


def test_half_grown_it_denoises_to_coarse_images() -> None:
    """Images without detail: the right gain of ε is 1/σ, and x̂_0 is then constant over 2×2 squares, whatever is asked
    of the coarse network; without gain the noise's detail would stay in x̂_0, divided by α."""
    network = faded(build(classes=0), 0.0, 1.0)
    schedule = SCHEDULES["linear"](steps=100)
    t = torch.tensor([30.0, 90.0], dtype=torch.float64)
    denoiser, x = Denoiser(network, schedule), images(2, 2, 16, 16)
    network.time = Passed()
    network.gains[0] = Given((1 / schedule.sigma(t)).float()[:, None])
    x0 = denoiser(x, t).x0
    torch.testing.assert_close(x0, repeated(pooled(x0), x0), rtol=1e-3, atol=1e-4)
    network.gains[0] = Given(torch.zeros(2, 1))
    noisy = denoiser(x, t).x0
    detail = (x - repeated(pooled(x), x)) / schedule.alpha(t).float()[:, None, None, None]
    torch.testing.assert_close(noisy - repeated(pooled(noisy), noisy), detail, rtol=1e-3, atol=1e-4)


class Passed(nn.Module):
    def forward(self, time: Tensor, label: Tensor | None) -> Tensor:
        return time


class Given(nn.Module):
    def __init__(self, value: Tensor):
        super().__init__()
        self.value = value

    def forward(self, time: Tensor) -> Tensor:
        return self.value


class TestRefusals:
    @pytest.mark.parametrize("start", [16, 5, 2])
    def test_a_start_that_is_no_coarser_resolution(self, start: int) -> None:
        with pytest.raises(ValueError, match=rf"network.start {start}: .*\[8, 4\]"):
            build(start=start)

    @pytest.mark.parametrize("argument", [{"patch": 2}, {"upsampler": True}])
    def test_parts_it_has_not(self, argument: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match=r"network.patch and network.upsampler"):
            build(**argument)

    def test_no_class_where_there_are_some(self) -> None:
        with pytest.raises(ValueError, match="class-conditional: it needs a label"):
            build()(images(2, 2, 16, 16), TIME)


class TestArguments:
    def test_they_are_the_u_nets_and_its_own(self) -> None:
        own, unet = (arguments_model(kind).model_fields for kind in (Growing, UNet))
        assert own.keys() - unet.keys() == {"start", "stage_steps"}
        assert all(own[name].default == unet[name].default for name in unet)

    def test_a_recipe_names_them_flat(self) -> None:
        given = {"name": "growing", "start": 4, "stage_steps": STEPS, **SMALL}
        checked = component("network", given, "network")
        assert checked["norm_eps"] == 1e-6 and checked["start"] == 4
        made = construct("network", checked, 1, 1, (16, 16), 0)
        assert isinstance(made, Growing) and made.unet.widths == (8, 8, 16)

    @pytest.mark.parametrize(
        ("wrong", "said"),
        [
            ({"multiplier": [1]}, r"unknown key in network 'multiplier': did you mean 'multipliers'\?"),
            ({"stage_step": 7}, r"unknown key in network 'stage_step': did you mean 'stage_steps'\?"),
            ({"base_channels": 0}, r"network.base_channels: .*greater than or equal to 1.*0"),
            ({"stage_steps": 1}, r"network.stage_steps: .*greater than or equal to 2.*1"),
        ],
    )
    def test_what_is_wrong_is_named(self, wrong: dict[str, Any], said: str) -> None:
        with pytest.raises(InputError, match=said):
            component("network", {"name": "growing", **wrong}, "network")
