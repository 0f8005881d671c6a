"""What a schedule promises: every registered one, and the ends of what tables can be."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.contracts.made import make, names
from trilemma.errors import InputError
from trilemma.process import Schedule, pair

EDGES: dict[str, tuple[str, dict[str, Any]]] = {
    "one step": ("linear", {"steps": 1}),
    "two steps": ("linear", {"steps": 2}),
    "rescaled": ("linear", {"steps": 200, "terminal_snr": 1e-4}),
    "to nothing": ("cosine", {"steps": 60, "terminal_snr": 0.0}),
    "told of 1 000": ("linear", {"steps": 100, "network_steps": 1000}),
}
MADE: dict[str, tuple[str, dict[str, Any]]] = {**{name: (name, {}) for name in names("schedule")}, **EDGES}


@pytest.fixture(scope="module", params=list(MADE))
def schedule(request: pytest.FixtureRequest) -> Schedule:
    name, arguments = MADE[request.param]
    made: Schedule = make("schedule", name, **arguments)
    return made


def inner(schedule: Schedule, count: int = 997) -> Tensor:
    """Times from the cleanest that a solver visits to the noisiest."""
    if schedule.t_min == schedule.T:
        return torch.full((1,), schedule.T, dtype=torch.float64)
    return torch.linspace(schedule.t_min, schedule.T, count, dtype=torch.float64)


def zero() -> Tensor:
    return torch.zeros((), dtype=torch.float64)


def test_time_runs_from_clean_to_noisiest(schedule: Schedule) -> None:
    assert 0 < schedule.t_min <= schedule.T
    assert schedule.steps is None or schedule.steps == schedule.T
    assert (schedule.alpha(zero()), schedule.sigma(zero()), schedule.gamma(zero())) == (1.0, 0.0, -math.inf)


def test_noise_grows_strictly(schedule: Schedule) -> None:
    t = torch.linspace(0, schedule.T, 4001, dtype=torch.float64)
    gamma = schedule.gamma(t)
    assert gamma.dtype == torch.float64 and (gamma[1:] > gamma[:-1]).all()


def test_levels_are_those_of_gamma(schedule: Schedule) -> None:
    """γ = log σ²/α², α in [0, 1], σ ≥ 0."""
    t = inner(schedule)
    alpha, sigma, gamma = schedule.alpha(t), schedule.sigma(t), schedule.gamma(t)
    assert alpha.dtype == sigma.dtype == torch.float64
    assert ((alpha >= 0) & (alpha <= 1) & (sigma > 0)).all()
    torch.testing.assert_close(2 * (sigma.log() - alpha.log()), gamma, rtol=1e-9, atol=1e-9)
    assert schedule.terminal_snr() == pytest.approx(float((alpha[-1] / sigma[-1]) ** 2), rel=1e-9)


def test_each_time_alone_is_as_among_others(schedule: Schedule) -> None:
    t = inner(schedule, 7)
    for level in (schedule.gamma, schedule.alpha, schedule.sigma, schedule.network_time):
        assert torch.equal(torch.stack([level(one) for one in t]), level(t))


def test_time_of_is_the_inverse(schedule: Schedule) -> None:
    t = inner(schedule)
    torch.testing.assert_close(schedule.time_of(schedule.gamma(t)), t, rtol=1e-9, atol=1e-9)
    far = schedule.time_of(torch.tensor([[-80.0, 80.0]], dtype=torch.float64))
    assert far.shape == (1, 2) and 0 <= far[0, 0] <= schedule.t_min
    assert far[0, 1] == pytest.approx(schedule.T) or schedule.terminal_snr() == 0
    assert schedule.time_of(zero()).shape == ()


def test_the_network_is_told_more_as_time_goes_on(schedule: Schedule) -> None:
    told = schedule.network_time(inner(schedule))
    assert torch.isfinite(told).all() and (told.diff() > 0).all()


def test_the_prior_is_as_wide_as_x_t_at_the_end(schedule: Schedule) -> None:
    """Of data that is nothing but zeros; its L_T is never negative."""
    end = torch.tensor(schedule.T, dtype=torch.float64)
    assert schedule.prior_std(schedule.T) > 0
    assert float(schedule.sigma(end)) <= schedule.prior_std(schedule.T) * (1 + 1e-9)
    assert all(schedule.prior_bits_per_dim(moment) >= 0 for moment in (0.0, 0.3, 1.0))


def test_two_steps_are_one(schedule: Schedule) -> None:
    """q(x_t | x_r) of q(x_s | x_r) and q(x_t | x_s): α_t/α_s multiply, and β_tr = β_ts + (α_t/α_s)² β_sr."""
    r, s, t = inner(schedule, 3) if schedule.t_min < schedule.T else (zero(), inner(schedule) / 2, inner(schedule))
    whole, first, second = pair(schedule, t, r), pair(schedule, s, r), pair(schedule, t, s)
    scale = (schedule.alpha(t) / schedule.alpha(s)) ** 2
    torch.testing.assert_close(whole.beta, second.beta + scale * first.beta, rtol=1e-9, atol=1e-12)


def test_times_outside_are_refused(schedule: Schedule) -> None:
    for t in (-1e-9, schedule.T * 1.001, math.inf, math.nan):
        for level in (schedule.gamma, schedule.alpha, schedule.sigma):
            with pytest.raises(InputError, match=r"time \[.*\] lies outside \[0, "):
                level(torch.tensor([schedule.T, t], dtype=torch.float64))
