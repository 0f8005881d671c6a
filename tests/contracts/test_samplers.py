"""What a sampler promises: images that are their seeds' alone, as many evaluations as it says, and the data's own
distribution, the nearer the finer its steps. Held to it is every registered one, on data whose denoiser is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from tests.contracts.made import names, unclipped
from tests.exact import Impulses, Mixture, answer
from tests.proofs.models import Exact, flow
from tests.proofs.test_orders import PLANE, between, orders, rms, start_at
from trilemma.process import Draw, Linear
from trilemma.samplers import DDIM, Kernel, grid, walk

SCHEDULE = Linear()
MEAN = torch.tensor([0.5, -0.3, 0.0]).reshape(1, 1, 3).double()
VARIANCE = torch.tensor([0.25, 1.0, 0.04]).reshape(1, 1, 3).double()
GAUSSIAN = Mixture.gaussian(MEAN, VARIANCE)


class Still:
    """Draws that are all zero, counted."""

    used = 0

    def normal(self, like: Tensor) -> Tensor:
        self.used += 1
        return torch.zeros_like(like)


def walked(kernel: Kernel, data: Mixture, times: Tensor, start: Tensor, draw: Any) -> Tensor:
    *_, last = walk(kernel, Exact(data, SCHEDULE).bound(), times, start, cast(Draw, draw))
    return last.x


def draws(kernel: Kernel, times: Tensor) -> int:
    """How often it draws on the way."""
    still = Still()
    walked(kernel, GAUSSIAN, times, torch.zeros(1, 1, 1, 3, dtype=torch.float64), still)
    return still.used


def sampled(kernel: Kernel, seeds: list[int]) -> Tensor:
    start = Draw.for_seeds(seeds, "start").normal(torch.empty(len(seeds), 1, 1, 2, dtype=torch.float64))
    return walked(kernel, PLANE, grid(SCHEDULE, 9), start, Draw.for_seeds(seeds, "step"))


def an_image_is_its_seeds_alone(kernel: Kernel) -> None:
    """By itself, among others, in any order; and whatever else has been drawn in the process."""
    torch.manual_seed(0)
    state = torch.get_rng_state()
    together = sampled(kernel, [7, 1, 2, 3])
    assert torch.equal(torch.get_rng_state(), state), "it draws from the process's generator"
    torch.manual_seed(1)
    assert torch.equal(sampled(kernel, [7, 1, 2, 3]), together)
    for seeds in ([7], [3, 2, 1, 7], [5, 7]):
        found = sampled(kernel, seeds)
        torch.testing.assert_close(found[seeds.index(7)], together[0], rtol=1e-6, atol=1e-6)
    assert len({tuple(image.flatten().tolist()) for image in together}) == 4


def evaluations_are_counted(kernel: Kernel) -> None:
    for intervals in (1, 2, 5):
        denoiser, seen, times = Exact(GAUSSIAN, SCHEDULE), list[float](), grid(SCHEDULE, intervals)
        denoiser.register_forward_hook(lambda _, asked, *__, seen=seen: seen.append(float(asked[1])))
        start = torch.zeros(1, 1, 1, 3, dtype=torch.float64)
        list(walk(kernel, denoiser.bound(), times, start, cast(Draw, Still())))
        assert sorted(kernel.asks(SCHEDULE, times).tolist()) == pytest.approx(sorted(seen), rel=1e-9)


def images_keep_their_type_and_the_start_its_values(kernel: Kernel) -> None:
    for dtype in (torch.float32, torch.float64):
        start = torch.ones(2, 1, 1, 3, dtype=dtype)
        found = walked(kernel, GAUSSIAN, grid(SCHEDULE, 4), start, Draw.for_seeds([0, 1], "step"))
        assert found.shape == start.shape and torch.isfinite(found).all()
        assert torch.equal(start, torch.ones_like(start))


def the_data_are_reached(kernel: Kernel) -> None:
    """Of Gaussian data: the exact mean and standard deviation of what it gives, from its responses to impulses, come
    nearer to the data's as the steps double, until what is left is that x_T is not quite noise."""
    errors = []
    for steps in (20, 40, 80, 160):
        times = grid(SCHEDULE, steps, "log_snr")
        impulses = draws(kernel, times) + 2  # nothing, each draw, the start
        start = torch.zeros(impulses, 1, 1, 3, dtype=torch.float64)
        start[-1] = 1.0
        mean, variance = answer(walked(kernel, GAUSSIAN, times, start, Impulses()))
        errors.append(rms(torch.stack([mean - MEAN, variance.sqrt() - VARIANCE.sqrt()])))
    assert all(finer < max(0.75 * coarser, 0.01) for coarser, finer in pairwise(errors)), errors
    assert errors[-1] < 0.1, errors


def steps_are_of_its_order(kernel: Kernel) -> None:
    """Where it draws nothing: the distance to the probability-flow ODE falls as its `order`, 1 unless it has one."""
    if draws(kernel, grid(SCHEDULE, 4)):
        return
    ends = between(SCHEDULE, 1)
    x = start_at(PLANE, SCHEDULE, ends[0], count=8)
    exact = flow(PLANE, SCHEDULE, x, ends[0], ends[1], steps=300)
    errors = [rms(walked(kernel, PLANE, between(SCHEDULE, count), x, Still()) - exact) for count in (40, 80)]
    assert orders(errors)[0] > getattr(kernel, "order", 1) - 0.25, errors


CONTRACT: list[Callable[[Kernel], None]] = [
    an_image_is_its_seeds_alone,
    evaluations_are_counted,
    images_keep_their_type_and_the_start_its_values,
    the_data_are_reached,
    steps_are_of_its_order,
]


@pytest.mark.parametrize("contract", CONTRACT, ids=lambda each: each.__name__)
@pytest.mark.parametrize("name", names("sampler"))
def test_sampler(name: str, contract: Callable[[Kernel], None]) -> None:
    contract(unclipped(name))


@dataclass(frozen=True, kw_only=True)
class Global(Kernel):
    """Draws from the process's generator."""

    def step(self, denoiser: Any, x_t: Tensor, t: Tensor, s: Tensor, state: Any, draw: Draw) -> tuple[Tensor, Any]:
        x_s, state = DDIM(clip=self.clip).step(denoiser, x_t, t, s, state, draw)
        return x_s + (0.1 * torch.randn_like(x_s) if s > 0 else 0), state


@dataclass(frozen=True, kw_only=True)
class Shared(Kernel):
    """Gives every image of a batch the first one's noise."""

    def step(self, denoiser: Any, x_t: Tensor, t: Tensor, s: Tensor, state: Any, draw: Draw) -> tuple[Tensor, Any]:
        x_s, state = DDIM(clip=self.clip).step(denoiser, x_t, t, s, state, draw)
        return x_s + 0.1 * draw.normal(x_s)[:1], state


@dataclass(frozen=True, kw_only=True)
class Twice(Kernel):
    """Asks the denoiser twice a step and says once."""

    def step(self, denoiser: Any, x_t: Tensor, t: Tensor, s: Tensor, state: Any, draw: Draw) -> tuple[Tensor, Any]:
        self.predict(denoiser, x_t, t)
        return DDIM(clip=self.clip).step(denoiser, x_t, t, s, state, draw)


@dataclass(frozen=True, kw_only=True)
class Halfway(Kernel):
    """Steps to another time than it is told to."""

    def step(self, denoiser: Any, x_t: Tensor, t: Tensor, s: Tensor, state: Any, draw: Draw) -> tuple[Tensor, Any]:
        return DDIM(clip=self.clip).step(denoiser, x_t, t, (0.9 * s).round(), state, draw)


@dataclass(frozen=True, kw_only=True)
class Noisy(Kernel):
    """Adds noise that nothing takes away."""

    def step(self, denoiser: Any, x_t: Tensor, t: Tensor, s: Tensor, state: Any, draw: Draw) -> tuple[Tensor, Any]:
        x_s, state = DDIM(clip=self.clip).step(denoiser, x_t, t, s, state, draw)
        return x_s + 0.1 * draw.normal(x_s), state


BROKEN: list[tuple[type[Kernel], Callable[[Kernel], None]]] = [
    (Global, an_image_is_its_seeds_alone),
    (Shared, an_image_is_its_seeds_alone),
    (Twice, evaluations_are_counted),
    (Halfway, the_data_are_reached),
    (Halfway, steps_are_of_its_order),
    (Noisy, the_data_are_reached),
]


@pytest.mark.parametrize(("broken", "contract"), BROKEN)
def test_a_broken_sampler_is_noticed(broken: type[Kernel], contract: Callable[[Kernel], None]) -> None:
    with pytest.raises(AssertionError):
        contract(broken(clip="none"))
