from __future__ import annotations

from typing import cast

import numpy as np
import pytest
import torch
from torch import Tensor

from trilemma.process import TIME_SAMPLERS, Cosine, Draw, Linear, Schedule, Uniform, spread


class Even:
    """In place of random numbers: every multiple of 1/count, moved by half a step, in a scrambled order."""

    def __init__(self, count: int):
        order = np.random.default_rng(0).permutation(count)
        self.numbers = torch.from_numpy((order + 0.5) / count)

    def uniform(self) -> Tensor:
        return self.numbers


class Continuous(Schedule):
    T, steps, t_min = 3.0, None, 1e-3

    def gamma(self, t: Tensor) -> Tensor:
        return 2 * torch.log(t)

    def time_of(self, gamma: Tensor) -> Tensor:
        return torch.exp(gamma / 2)


def test_each_time_of_the_table_is_as_likely() -> None:
    for steps in (1, 2, 7, 200, 1000):
        drawn = Uniform(Linear(steps=steps)).sample(cast(Draw, Even(3 * steps))).t
        assert sorted(drawn.tolist()) == sorted(3 * list(range(1, steps + 1)))


@pytest.mark.parametrize("name", sorted({"uniform"} & set(TIME_SAMPLERS)))
def test_weighted_mean_is_the_mean_over_times(name: str) -> None:
    """Over one number in each equal share of [0, 1), Σ w f(t) is exactly the mean of f over 1…T, whatever f."""
    schedule = Cosine(steps=50)
    times = TIME_SAMPLERS[name](schedule).sample(cast(Draw, Even(50)))
    loss = torch.sin(torch.arange(51, dtype=torch.float64) ** 2)
    assert (times.weight * loss[times.t.long()]).mean().item() == pytest.approx(loss[1:].mean().item(), rel=1e-12)


def test_times_stay_in_the_table_for_every_number_below_one() -> None:
    first, last = 0.0, np.nextafter(1.0, 0.0)
    for steps in [*range(1, 2000), 4000, 2**20 + 1, 10**6 - 1]:
        schedule = Linear(steps=1)
        schedule.steps = steps
        assert spread(schedule, torch.tensor([first, last], dtype=torch.float64)).tolist() == [1, steps]


def test_continuous_times_are_uniform_over_all_but_clean_data() -> None:
    drawn = spread(Continuous(), torch.tensor([0.0, 0.25, np.nextafter(1.0, 0.0)], dtype=torch.float64))
    assert drawn[0] == 3.0
    assert drawn[1] == 2.25
    assert 0 < drawn[2] < 1e-12


def test_uniform_times_learn_nothing() -> None:
    sampler = Uniform(Linear(steps=10))
    before = sampler.sample(Draw([(1,), (2,)]))
    sampler.observe(before.t, torch.tensor([1e9, 0.0]))
    assert sampler.state_dict() == {}
    sampler.load_state_dict({})
    assert torch.equal(sampler.sample(Draw([(1,), (2,)])).t, before.t)
