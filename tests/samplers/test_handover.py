"""Handing over: x̂_0 of a walk at a lower resolution, and surrogates as stages of a walk."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tests.exact import ExactNetwork, Mixture, schedule_levels
from trilemma.errors import InputError
from trilemma.guidance import Autoguidance
from trilemma.process import SCHEDULES, Condition, Denoiser, Draw, Linear, Schedule, to_model
from trilemma.recipes import parse_sampling
from trilemma.samplers import (
    SAMPLERS,
    Finished,
    HandOver,
    Sampler,
    Surrogate,
    hand_over_time,
    noise_start,
    paired,
    resized,
    walk,
)

SCHEDULE = Linear(steps=60, beta_end=0.3)
LOW = (1, 2, 2)
DATA = Mixture.random(2, LOW)


def denoiser(schedule: Schedule = SCHEDULE, data: Mixture = DATA) -> Denoiser:
    return Denoiser(ExactNetwork(data, schedule_levels(schedule)), schedule, "epsilon", "fixed_small")


def low(way: Any = "ancestral", schedule: Schedule = SCHEDULE, **settings: Any) -> Sampler:
    given = {"sampler": way} if isinstance(way, str) else way
    return parse_sampling({"steps": 6, "clip": "none", **given, **settings}).build(denoiser(schedule), LOW)


def high(surrogate: Surrogate | None = None, way: str = "ancestral", **settings: Any) -> Sampler:
    """Of 4×4 pixels."""
    whole = Mixture.random(2, (1, 4, 4))
    chosen = parse_sampling({"steps": 6, "sampler": way, **settings})
    return chosen.build(denoiser(data=whole), (1, 4, 4), surrogate)


def time(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


@pytest.mark.parametrize("way", [*sorted(SAMPLERS), {"sampler": "dpmpp", "stochastic": True}], ids=str)
@pytest.mark.parametrize("t", [20.0, 33.3])
def test_what_is_handed_over_is_the_posterior_mean_there(way: Any, t: float) -> None:
    """The sampler's own walk down to t, step by step, and there E[x_0 | x_t] of the data. Of steps that correct x_t by
    the evaluation there, x_t is as it was predicted."""
    sampler, seeds = low(way), [3, 8, 5]
    stage = HandOver(sampler, t, (4, 4))
    above = torch.cat([sampler.grid[sampler.grid > t], time(t)[None]])
    start = noise_start(SCHEDULE, seeds, LOW, t=float(above[0]))
    bound = sampler.denoiser.bind(Condition())
    *_, last = walk(sampler.kernel, bound, above, start, Draw.for_seeds(seeds, "step"))
    expected = DATA.denoised(last.x.double(), SCHEDULE.alpha(time(t)), SCHEDULE.sigma(time(t)))
    *_, found = stage.walked.walk(seeds)
    torch.testing.assert_close(found.x.double(), expected, rtol=1e-4, atol=1e-5)
    network: Any = sampler.denoiser.network
    network.seen.clear()
    stage.generate(seeds)
    assert len(network.seen) == stage.evaluations == len(stage.walked.asked)
    assert min(float(each.min()) for each in network.seen) == pytest.approx(t - 1)


def test_what_it_costs_by_hand() -> None:
    """Two times above 40 and the one at it; Heun asks twice an interval but for the mean."""
    assert [round(float(t)) for t in low().grid] == [60, 48, 36, 25, 13, 1, 0]
    assert HandOver(low(), 40.0, (4, 4)).evaluations == 3
    assert HandOver(low("heun"), 40.0, (4, 4)).evaluations == 2 * 2 + 1
    assert HandOver(low(), 0.0, (4, 4)).evaluations == low().evaluations == 6
    assert HandOver(low(), 60.0, (4, 4)).evaluations == 1
    begun = high(Surrogate(HandOver(low(), 40.0, (4, 4)), 40.0, {"name": "low"}))
    assert begun.evaluations == 3 + 5 and begun.stages == 2
    assert high(Surrogate(high(), 40.0, {"name": "high"})).evaluations == 6 + 5


def test_it_is_resized_bilinearly_and_rounded_to_bytes() -> None:
    stage = HandOver(low(), 20.0, (5, 4))
    *_, ended = stage.walked.walk([1, 2])
    grey = ((ended.x.clamp(-1, 1) + 1) * 127.5).round()
    wanted = functional.interpolate(grey, size=(5, 4), mode="bilinear").round().permute(0, 2, 3, 1).numpy()
    found = stage.generate([1, 2])
    assert stage.shape == (1, 5, 4) and found.dtype == np.uint8
    np.testing.assert_allclose(found.astype(float), wanted, atol=1)
    assert np.array_equal(HandOver(low(), 0.0, (4, 4)).generate([1, 2]), resized(low().generate([1, 2]), (4, 4)))
    images = np.arange(12, dtype=np.uint8).reshape(1, 3, 4, 1)
    assert resized(images, (3, 4)) is images


def test_the_kernel_s_clipping_holds_it() -> None:
    wild = Mixture.gaussian(torch.full(LOW, 3.0), torch.full(LOW, 0.1))
    ends = []
    for clip in ("none", "static"):
        sampler = parse_sampling({"clip": clip, "steps": 6}).build(denoiser(data=wild), LOW)
        *_, last = HandOver(sampler, 20.0, (4, 4)).walked.walk([0])
        ends.append(float(last.x.max()))
    assert ends[0] > 2 and ends[1] == 1


@pytest.mark.parametrize(
    ("name", "arguments"), [("linear", {"steps": 1000}), ("cosine", {"steps": 50}), ("vp", {}), ("edm", {})]
)
def test_the_time_is_that_of_the_same_snr(name: str, arguments: dict[str, Any]) -> None:
    other = SCHEDULES[name](**arguments)
    for t_mid in (10.0, 30.0, 45.5):
        t = hand_over_time(SCHEDULE, t_mid, other)
        assert float(other.gamma(time(t))) == pytest.approx(float(SCHEDULE.gamma(time(t_mid))), abs=1e-9)
        assert hand_over_time(other, t, SCHEDULE) == pytest.approx(t_mid)
    assert hand_over_time(SCHEDULE, 0.0, other) == 0.0
    assert [hand_over_time(SCHEDULE, float(t), Linear(steps=60, beta_end=0.3)) for t in range(61)] == [*range(61)]


def test_a_surrogate_s_images_are_those_that_it_makes_alone() -> None:
    """Whatever goes on from them; and that draws from streams of its own."""
    first = high()
    both = high(Surrogate(first, 0.0, {"name": "first"}))
    seeds = [4, 11, 6]
    assert np.array_equal(both.generate(seeds), first.generate(seeds))
    begun = high(Surrogate(first, 60.0, {"name": "first"}))
    images = to_model(first.generate(seeds))
    noise = Draw.for_seeds(seeds, "start 2").normal(images)
    expected = SCHEDULE.alpha(time(60.0)) * images + SCHEDULE.sigma(time(60.0)) * noise
    torch.testing.assert_close(next(begun.walk(seeds)).x.double(), expected.double(), rtol=1e-5, atol=1e-6)
    third = high(Surrogate(begun, 60.0, {"name": "begun"}))
    assert [each.stages for each in (first, begun, third)] == [1, 2, 3]
    assert not torch.isclose(next(third.walk(seeds)).x, next(begun.walk(seeds)).x).any()


@pytest.mark.parametrize("t", [0.0, 20.0])
def test_an_image_is_of_its_seed_alone(t: float) -> None:
    begun = high(Surrogate(HandOver(low(), t, (4, 4)), 20.0, {"name": "low"}))
    together = replace(begun, batch=16)(seeds=range(30, 46)).images
    alone = replace(begun, batch=1)(seeds=range(30, 46)).images
    assert len(np.unique(together.reshape(16, -1), axis=0)) == 16
    assert np.abs(together.astype(int) - alone).max() <= 1


def test_t_mid_reaches_the_grid() -> None:
    begun = high(Surrogate(HandOver(low(), 40.0, (4, 4)), 40.0, {"name": "low", "handover": "mean"}))
    assert begun.grid.tolist() == [40.0, *[t for t in high().grid.tolist() if t < 40]]
    assert begun.label == "Ancestral, 5 steps, surrogate low at 40, handover mean"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("runs/digits.v2", "digits.v2"),
        ("runs/digits@400", "digits@400"),
        ("runs/a+up/b", "a+b"),
        ("made/held.npz", "held"),
        ("module:function", "module:function"),
    ],
)
def test_it_is_called_by_its_last_name(name: str, words: str) -> None:
    assert Surrogate(low(), 7.0, {"name": name}).words == [f"surrogate {words} at 7"]


@pytest.mark.parametrize(
    ("classes", "given", "asked"),
    [
        (3, [2, 0, 1], [2, 0, 1]),
        (3, None, [1, 2, 2]),
        (0, [2, 0, 1], None),
        (0, None, None),
        (None, [2, 0, 1], [2, 0, 1]),
    ],
)
def test_the_classes_that_it_is_asked_for(classes: int | None, given: Any, asked: Any) -> None:
    heard: list[Any] = []

    def images(seeds: Any, labels: Any) -> np.ndarray:
        heard.append(None if labels is None else labels.tolist())
        return np.zeros((len(seeds), 4, 4, 1), np.uint8)

    begun = Surrogate(Finished(images, (1, 4, 4), "held"), 5.0, {"name": "held"}, classes)
    high(begun)(seeds=[1, 5, 8], labels=given)
    assert heard == [asked]


def test_a_guide_that_acts_below_alone_has_no_say_above() -> None:
    weaker = denoiser()
    sampler = replace(low(), guides=[Autoguidance(1.0, interval=(1.0, 15.0), weaker=weaker)])
    assert sampler.evaluations == 8
    assert HandOver(sampler, 40.0, (4, 4)).evaluations == 3
    held = replace(low(), guides=[Autoguidance(1.0, interval=(30.0, 60.0), weaker=weaker)])
    assert HandOver(held, 40.0, (4, 4)).evaluations == 6


def test_images_of_another_size_are_refused() -> None:
    with pytest.raises(InputError, match=r"surrogate: its images are \(1, 2, 2\), the run's \(1, 4, 4\)"):
        high(Surrogate(low(), 20.0, {"name": "low"}))


def test_pairs_lie_side_by_side() -> None:
    first, second = (np.full((5, 28, 28, 1), grey, np.uint8) for grey in (10, 90))
    picture = paired(first, second, columns=2)
    rows, columns = np.flatnonzero((picture == 10).any((1, 2))), np.flatnonzero((picture == 10).any((0, 2)))
    beside = np.flatnonzero((picture == 90).any((0, 2)))
    assert len(rows) == 3 * 28 and len(columns) == len(beside) == 2 * 28
    assert beside[0] - columns[27] < columns[28] - beside[27]
    assert (picture == 10).sum() == (picture == 90).sum() == 5 * 28 * 28
