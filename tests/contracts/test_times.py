"""What a time sampler promises, on tables and on continuous time, before and after it has learnt."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress

import pytest
import torch

from tests.contracts.made import make, names
from trilemma.errors import InputError
from trilemma.process import ContinuousVP, Cosine, Draw, Schedule, TimeSampler

SCHEDULES: list[Schedule] = [Cosine(steps=12), ContinuousVP()]


def keys(count: int, step: int = 0) -> list[tuple[int | str, ...]]:
    return [(0, step, index) for index in range(count)]


def taken() -> Iterator[object]:
    """Every time sampler on a table, and on continuous time those that take it."""
    for name in names("times"):
        for schedule in SCHEDULES:
            with suppress(InputError if schedule.steps is None else ()):
                make("times", name, schedule)
                yield pytest.param(name, schedule, id=f"{name}-{'table' if schedule.steps else 'continuous'}")


@pytest.fixture(params=["new", "learnt"])
def sampler(name: str, schedule: Schedule, request: pytest.FixtureRequest) -> TimeSampler:
    made: TimeSampler = make("times", name, schedule)
    if request.param == "learnt":
        learn(made)
    return made


def learn(sampler: TimeSampler, steps: range = range(12)) -> None:
    """The losses of that many steps: larger at clean times."""
    for step in steps:
        t = sampler.sample(Draw(keys(64, step))).t
        sampler.observe(t, 1 / (0.1 + t / sampler.schedule.T))


@pytest.mark.parametrize(("name", "schedule"), list(taken()))
class TestTimes:
    def test_lie_in_the_schedule(self, sampler: TimeSampler) -> None:
        times = sampler.sample(Draw(keys(500)))
        assert times.t.shape == times.weight.shape == (500,)
        assert times.t.dtype == times.weight.dtype == torch.float64
        assert ((times.t > 0) & (times.t <= sampler.schedule.T)).all()
        if sampler.schedule.steps is not None:
            assert torch.equal(times.t, times.t.round())

    def test_weights_are_positive_and_1_in_the_mean(self, sampler: TimeSampler) -> None:
        weight = sampler.sample(Draw(keys(4000))).weight
        assert (weight > 0).all()
        assert weight.mean().item() == pytest.approx(1, abs=5 * float(weight.std()) / 4000**0.5 + 1e-12)

    def test_an_image_s_time_is_its_own(self, sampler: TimeSampler) -> None:
        together = sampler.sample(Draw(keys(32)))
        assert len(set(together.t.tolist())) > 5
        for index in (0, 9, 31):
            alone = sampler.sample(Draw(keys(32)[index : index + 1]))
            torch.testing.assert_close(alone.t[0], together.t[index], rtol=1e-12, atol=0)
            torch.testing.assert_close(alone.weight[0], together.weight[index], rtol=1e-12, atol=0)

    def test_nothing_else_is_drawn_from(self, sampler: TimeSampler) -> None:
        torch.manual_seed(0)
        before = torch.get_rng_state()
        first = sampler.sample(Draw(keys(16))).t
        assert torch.equal(torch.get_rng_state(), before)
        torch.manual_seed(1)
        assert torch.equal(sampler.sample(Draw(keys(16))).t, first)

    def test_state_goes_round(self, sampler: TimeSampler, name: str, schedule: Schedule) -> None:
        """Tensors and JSON only; a sampler that takes it up goes on alike, and learns alike."""
        state = sampler.state_dict()
        json.dumps({key: value for key, value in state.items() if not isinstance(value, torch.Tensor)})
        again: TimeSampler = make("times", name, schedule)
        again.load_state_dict(state)
        for step in (100, 101):
            found, expected = (each.sample(Draw(keys(64, step))) for each in (again, sampler))
            assert torch.equal(found.t, expected.t) and torch.equal(found.weight, expected.weight)
            learn(again, range(step, step + 1))
            learn(sampler, range(step, step + 1))
        assert isinstance(sampler.extra, int) and sampler.extra >= 0
