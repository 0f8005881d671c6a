"""Where a log's figure is going: exact on parabolas, of the right error in noise, level as often as chance has it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom, norm, t

from trilemma.evaluations.judge import LIMIT
from trilemma.evaluations.trend import FEWEST, series, trend


def log(values: Iterable[float | None], every: int = 100) -> list[dict[str, Any]]:
    return [{"step": every * (i + 1), "validation_loss": value} for i, value in enumerate(values)]


def of(values: Iterable[float | None], every: int = 100) -> Any:
    return trend(log(values, every), "validation_loss")


@pytest.mark.parametrize(("bend", "outcome"), [(0.3, "falling"), (0.0, "falling"), (-0.3, "rising")])
def test_a_parabola_has_its_mean_slope_and_no_error(bend: float, outcome: str) -> None:
    """Of a + b x + c x², between x_0 and x_1: b + c (x_0 + x_1)."""
    sign = 1 if outcome == "falling" else -1
    x = np.arange(1, 31) / 10  # thousands of steps
    values = 9 - sign * x + bend * (x - 3) ** 2
    found, last = of(values), x > 2
    mean = values[last].mean()
    expected = (values[-1] - values[20]) / (x[-1] - x[20]) / mean
    assert (found.outcome, found.since, found.points) == (outcome, 2100, 10)
    assert found.slope == pytest.approx(expected) and found.error == pytest.approx(0, abs=1e-9)
    assert (found.lowest, found.low) == (100 * (int(values.argmin()) + 1), values.min())


def test_the_error_is_least_squares_widened_for_few_points() -> None:
    """Against `np.polyfit`, of residuals whose neighbours are unlike."""
    x = np.arange(31, 46) / 10.0
    noise = np.where(np.arange(15) % 2, 1, -1) * np.random.default_rng(0).uniform(0.5, 1, 15)
    values = np.concatenate([np.full(30, 9.0), 8 - 0.3 * x + 0.1 * noise])
    found, centred = of(values), x - (x[0] + x[-1]) / 2
    fitted, covariance = np.polyfit(centred, values[30:], 2, cov=True)
    assert found.slope == pytest.approx(fitted[1] / values[30:].mean())
    widened = np.sqrt(covariance[1, 1]) * t.isf(norm.sf(LIMIT), 12) / LIMIT
    assert found.error == pytest.approx(widened / values[30:].mean())


@pytest.mark.parametrize("points", [4, 7, 20])
def test_noise_around_a_level_is_level_as_often_as_chance_has_it(points: int) -> None:
    draws, rng = 600, np.random.default_rng(points)
    wrong = sum(of(1 + 0.05 * rng.normal(size=3 * points)).outcome != "level" for _ in range(draws))
    low, high = binom.interval(0.998, draws, 2 * norm.sf(LIMIT))
    assert low <= wrong <= high


def test_neighbours_that_are_alike_count_for_less() -> None:
    rng, plain, found = np.random.default_rng(0), 0, 0
    for _ in range(200):
        noise = rng.normal(size=120)
        for i in range(1, 120):
            noise[i] += 0.6 * noise[i - 1]
        found += of(1 + 0.01 * noise).outcome != "level"
        last, u = 1 + 0.01 * noise[80:], np.linspace(-1, 1, 40)
        fitted, covariance = np.polyfit(u, last, 2, cov=True)
        plain += abs(fitted[1]) >= LIMIT * np.sqrt(covariance[1, 1])
    assert found < 0.6 * plain


def test_what_comes_to_next_to_nothing_is_level() -> None:
    drift = np.linspace(0, 1, 30)
    assert [of(1 - share * drift).outcome for share in (0.004, 0.04)] == ["level", "falling"]


def test_a_slope_in_noise_is_found_within_its_error() -> None:
    rng, x = np.random.default_rng(1), np.arange(1, 61) / 10
    found = [of(9 - 0.5 * x + 0.05 * rng.normal(size=60)) for _ in range(300)]
    assert {one.outcome for one in found} == {"falling"}
    misses = [abs(one.slope - -0.5 / (9 - 0.5 * x[40:].mean())) / one.error for one in found]
    assert 0.9 < np.mean(np.array(misses) < LIMIT) < 0.98


def test_only_the_last_third_counts() -> None:
    rng = np.random.default_rng(2)
    fall = np.linspace(9, 1, 40)
    assert of([*fall, *(1 + 0.01 * rng.normal(size=20))]).outcome == "level"
    risen = of([*fall, *np.linspace(1, 1.2, 20) + 0.01 * rng.normal(size=20)])
    assert risen.outcome == "rising" and 3900 <= risen.lowest <= 4300


@pytest.mark.parametrize(
    ("values", "points"),
    [
        ([], None),
        ([1.0] * (FEWEST - 1), None),
        ([5.0, 4.0, 3.5, 3.2, 3.0, 2.9], 4),  # the last third has two: the last four, which lie in the last half
        ([5.0, 4.0, 3.0, 2.5], None),
        ([-1.0] * 12, None),
        ([1.0, None] * 9, 4),
        ([1.0, None, 1.0] * 9, 6),
        ([1.0, None, None, None] * 4, None),
        ([2.0] * 12, 4),
    ],
)
def test_the_points_that_count(values: list[float | None], points: int | None) -> None:
    found = of(values)
    assert (found and found.points) == points


def test_steps_need_not_be_even() -> None:
    steps = [*range(100, 1000, 100), 1001, 1100, 1350]
    found = trend([{"step": s, "x": 2000.0 - s} for s in steps], "x")
    assert found is not None and found.points == 4
    assert found.slope == pytest.approx(-1000 / (2000 - np.mean(steps[-4:])))


def test_lines_without_the_figure_are_passed_over() -> None:
    assert series([{"step": 1}, {"step": 2, "a": 3}, {"step": 4, "a": "no"}], "a") == ([2.0], [3.0])
