"""The learned schedule: γ rises whatever the weights, its derivative, its inverse, what it is silent about outside
`learning`."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from trilemma.errors import InputError
from trilemma.process import EDM, VDM, ContinuousVP, Cosine, Denoiser, Prior, Schedule

FORMS = [{"inside": inside, "ends": ends} for inside in ("learned", "linear") for ends in ("learned", "fixed")]


def stirred(seed: int, spread: float, **arguments: Any) -> VDM:
    """A schedule whose parameters are moved at random by about so much."""
    schedule = VDM(**arguments)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in schedule.parameters():
            parameter += spread * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return schedule


def times(count: int = 401) -> Tensor:
    return torch.linspace(1e-9, 1, count, dtype=torch.float64)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.floats(0, 30), st.integers(1, 40))
def test_gamma_rises_whatever_the_weights(seed: int, spread: float, hidden: int) -> None:
    schedule = stirred(seed, spread, hidden=hidden)
    gamma, slope = schedule.gamma(times()), schedule.slope(times())
    first, last = schedule.ends()
    assert bool((gamma.diff() > 0).all()) and bool((slope > 0).all())
    assert float(last) > float(first) and float(gamma[-1]) == pytest.approx(float(last), abs=1e-9)
    assert float(schedule.gamma(torch.zeros((), dtype=torch.float64))) == -torch.inf


@pytest.mark.parametrize(
    "schedule",
    [
        stirred(1, 1.0),
        stirred(2, 3.0, hidden=5),
        *(VDM(**form) for form in FORMS),
        ContinuousVP(),
        EDM(sigma_min=0.01, sigma_max=3.0),
    ],
    ids=str,
)
def test_the_derivative_is_that_of_gamma(schedule: Schedule) -> None:
    t = torch.linspace(0.05, 0.95, 41, dtype=torch.float64) * schedule.T
    h = 1e-5
    differences = (schedule.gamma(t + h) - schedule.gamma(t - h)) / (2 * h)
    torch.testing.assert_close(schedule.slope(t), differences, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("schedule", [Cosine(steps=4), Prior()], ids=str)
def test_a_table_has_no_derivative(schedule: Schedule) -> None:
    with pytest.raises(InputError, match=r"has no dγ/dt: expected a continuous one, such as vdm"):
        schedule.slope(torch.ones(1, dtype=torch.float64))


def test_begins_near_the_straight_line_and_the_same_every_time() -> None:
    for hidden in (1, 2, 7, 1024):
        one, other = VDM(hidden=hidden), VDM(hidden=hidden)
        line = torch.lerp(*(torch.tensor(end, dtype=torch.float64) for end in (-13.3, 5.0)), times())
        assert float((one.gamma(times()) - line).abs().max()) < 0.5
        assert torch.equal(one.gamma(times()), other.gamma(times()))
    torch.testing.assert_close(VDM(inside="linear").gamma(times()), line, rtol=0, atol=1e-12)
    assert [float(end) for end in VDM().ends()] == pytest.approx([-13.3, 5.0], abs=1e-12)


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_says_whether_it_learns_and_is_copied_whole(form: dict[str, str]) -> None:
    schedule = stirred(3, 0.5, gamma_min=-9.0, gamma_max=4.0, hidden=8, **form)
    assert schedule.learned == (form != {"inside": "linear", "ends": "fixed"})
    counts = 2 * (form["ends"] == "learned") + 24 * (form["inside"] == "learned")
    assert sum(parameter.numel() for parameter in schedule.parameters()) == counts
    again = copy.deepcopy(schedule)
    assert repr(again) == repr(schedule) and "gamma_min=-9.0" in repr(again)
    assert torch.equal(again.gamma(times()), schedule.gamma(times()))
    fixed = [float(end) for end in schedule.ends()] == [-9.0, 4.0]
    assert fixed == (form["ends"] == "fixed")


def test_the_network_is_told_gamma() -> None:
    """By a function of γ alone, however far the ends have moved."""
    told, gamma = [], torch.tensor([-6.0, -1.0, 2.0], dtype=torch.float64)
    for seed in (4, 5):
        schedule = stirred(seed, 0.4, hidden=9)
        told.append(schedule.network_time(schedule.time_of(gamma)))
    torch.testing.assert_close(told[0], told[1], rtol=0, atol=1e-6)
    torch.testing.assert_close(told[0], 1000 * (gamma + 13.3) / 18.3, rtol=0, atol=1e-6)


def test_has_gradients_while_learning_only() -> None:
    schedule, t = VDM(hidden=4), torch.tensor([0.2, 0.7], dtype=torch.float64)
    methods = (schedule.gamma, schedule.alpha, schedule.sigma, schedule.slope, schedule.network_time)
    assert not any(method(t).requires_grad for method in methods)
    with schedule.learning():
        assert all(method(t).requires_grad for method in methods) and schedule.ends()[1].requires_grad
        assert not schedule.time_of(torch.zeros(2, dtype=torch.float64)).requires_grad
    assert not any(method(t).requires_grad for method in methods)


def test_keeps_its_digits_in_a_denoiser_of_less() -> None:
    """What it computes is float64, whatever the modules around it are turned into."""
    from torch import nn

    class Net(nn.Module):
        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            return x

    denoiser = Denoiser(Net(), VDM(hidden=3)).to(torch.bfloat16)
    assert denoiser.schedule.gamma(times(3)).dtype == torch.float64


def test_ends_that_fall_are_refused() -> None:
    with pytest.raises(InputError, match=r"schedule.gamma_max -14 should be more than gamma_min -13.3"):
        VDM(gamma_max=-14.0)
