from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from torch import Tensor

from tests.exact import ExactNetwork, Mixture, linear_alpha_bar, schedule_levels, tabulated_levels
from trilemma.networks import UNet
from trilemma.process import Condition, Denoiser, Draw, Linear
from trilemma.samplers import DDIM, Ancestral, Kernel, grid, walk

SCHEDULE = Linear(steps=60, beta_end=0.2)
DATA = Mixture.random(3, (1, 4, 4))
KERNELS = [pytest.param(Ancestral(), id="ancestral"), pytest.param(DDIM(eta=0.5), id="ddim")]


def exact() -> Denoiser:
    return Denoiser(ExactNetwork(DATA, tabulated_levels(linear_alpha_bar(60, end=0.2))), SCHEDULE)


def pure_noise(seeds: list[int]) -> Tensor:
    return Draw.for_seeds(seeds, "start").normal(torch.empty(len(seeds), 1, 4, 4))


def sample(kernel: Kernel, seeds: list[int], denoiser: Denoiser, condition: Condition, steps: int = 12) -> Tensor:
    start = pure_noise(seeds)
    draw = Draw.for_seeds(seeds, "step")
    *_, last = walk(kernel, denoiser.bind(condition), grid(SCHEDULE, steps), start, draw)
    return last.x


@pytest.mark.parametrize("kernel", KERNELS)
def test_an_image_is_its_seeds_alone_through_a_network(kernel: Kernel) -> None:
    """The same through a U-Net with attention and classes, whose convolutions see the whole batch at once."""
    torch.manual_seed(0)
    network = UNet(1, 1, (4, 4), 3, base_channels=64, multipliers=(1, 1), blocks=1, attention=(4,), dropout=0.3).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    denoiser = Denoiser(network, SCHEDULE, "v")
    seeds = [1, 7, 3, 2]
    label = torch.tensor([seed % 3 for seed in seeds])
    alone = sample(kernel, [7], denoiser, Condition(torch.tensor([1])))
    together = sample(kernel, seeds, denoiser, Condition(label))
    torch.testing.assert_close(together[1], alone[0], rtol=1e-4, atol=1e-5)
    other = sample(kernel, [7], denoiser, Condition(torch.tensor([2])))
    assert not torch.allclose(other, alone, atol=1e-3)


def test_every_step_is_yielded() -> None:
    times = grid(SCHEDULE, 5, "quadratic")
    start = pure_noise([1, 2])
    steps = list(walk(Ancestral(), exact().bind(Condition()), times, start, Draw.for_seeds([1, 2], "step")))
    assert [step.index for step in steps] == list(range(6))
    assert {step.count for step in steps} == {5}
    assert [step.t for step in steps] == times.tolist()
    assert torch.equal(steps[0].x, start)
    assert all(step.x.shape == start.shape for step in steps)


def test_the_start_is_not_changed() -> None:
    start = pure_noise([1])
    before = start.clone()
    for step in walk(DDIM(), exact().bind(Condition()), grid(SCHEDULE, 4), start, Draw.for_seeds([1], "step")):
        del step
    assert torch.equal(start, before)


def test_the_network_is_asked_once_an_interval_with_the_grids_times() -> None:
    for kernel in (Ancestral(), DDIM()):
        denoiser = exact()
        times = grid(SCHEDULE, 7, "even")
        list(walk(kernel, denoiser.bind(Condition()), times, pure_noise([1, 2]), Draw([(1,), (2,)])))
        seen = cast(ExactNetwork, denoiser.network).seen
        assert len(seen) == 7
        assert [time.tolist() for time in seen] == [[t - 1, t - 1] for t in times[:-1].tolist()]


def test_a_kernel_takes_any_pair_of_times() -> None:
    """Grids need not lie on the table: times between are visited with the levels they have there."""
    network = ExactNetwork(DATA, schedule_levels(SCHEDULE))
    times = torch.tensor([60.0, 41.3, 20.75, 3.5, 0.4, 0.0], dtype=torch.float64)
    seeds = list(range(64))
    start = pure_noise(seeds).double()
    for kernel in (Ancestral(clip="none"), DDIM(clip="none")):
        denoiser = Denoiser(network, SCHEDULE).bind(Condition())
        *_, last = walk(kernel, denoiser, times, start, Draw.for_seeds(seeds, "step"))
        assert torch.isfinite(last.x).all()
        assert (last.x.mean(0) - DATA.mean()).abs().max() < 0.5


def test_a_state_is_carried_from_step_to_step() -> None:
    class Counting(Kernel):
        """A kernel that halves x and counts its steps in its state."""

        def step(self, denoiser: Any, x_t: Tensor, t: Tensor, s: Tensor, state: Any, draw: Draw) -> tuple[Tensor, Any]:
            seen.append(state)
            return x_t / 2, (state or 0) + 1

    seen: list[Any] = []
    steps = list(walk(Counting(), exact().bind(Condition()), grid(SCHEDULE, 4), torch.ones(1, 1, 1, 1), Draw([(0,)])))
    assert seen == [None, 1, 2, 3]
    assert [step.x.item() for step in steps] == [1.0, 0.5, 0.25, 0.125, 0.0625]


def test_walking_keeps_no_graph() -> None:
    network = UNet(1, 1, (4, 4), base_channels=8, multipliers=(1,), blocks=1, attention=())
    denoiser = Denoiser(network, SCHEDULE).bind(Condition())
    for step in walk(DDIM(), denoiser, grid(SCHEDULE, 2), pure_noise([1]), Draw([(1,)])):
        assert not step.x.requires_grad
        # The walk's mode must not leak into whoever watches it.
        assert torch.is_grad_enabled()
        assert not torch.is_inference_mode_enabled()
