from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from trilemma.errors import InputError
from trilemma.process import Linear, Schedule
from trilemma.samplers import SPACINGS, grid

NAMES = ["even", "uniform", "quadratic"]


@pytest.mark.parametrize("steps", [1, 2, 7, 50, 200])
@pytest.mark.parametrize("spacing", NAMES)
def test_every_count_gives_a_grid(spacing: str, steps: int) -> None:
    """For every K in 1…T: K intervals, strictly decreasing over the table's times, ending in clean data."""
    schedule = Linear(steps=steps)
    for count in range(1, steps + 1):
        found = grid(schedule, count, spacing)
        assert found.dtype == torch.float64
        assert len(found) == count + 1
        assert (found[1:] < found[:-1]).all()
        assert found[-1] == 0
        assert found[-2] >= 1
        assert found[0] <= steps
        assert torch.equal(found, found.round())
    assert grid(schedule, steps, spacing).tolist() == list(range(steps, -1, -1))


@pytest.mark.parametrize("spacing", NAMES)
def test_all_steps_unless_told(spacing: str) -> None:
    assert grid(Linear(steps=9), spacing=spacing).tolist() == list(range(9, -1, -1))


def test_even_grids_begin_at_the_noisiest_time() -> None:
    for count in (1, 2, 3, 10, 64, 199):
        assert grid(Linear(steps=200), count)[0] == 200


def test_even_grids_differ_from_even_steps_by_rounding_only() -> None:
    found = grid(Linear(steps=1000), 11)[:-1]
    assert (found - torch.linspace(1000, 1, 11).double()).abs().max() <= 0.5


@pytest.mark.parametrize("count", [2, 3, 4, 7, 10, 19, 25, 50, 100, 250, 998])
def test_even_is_improved_diffusions_respacing(count: int) -> None:
    """Of 1 000 steps numbered from 0, the k-th of K is k · 999/(K − 1) rounded, halves to even; here from 1."""
    expected = [round(k * 999 / (count - 1)) + 1 for k in range(count)]
    assert grid(Linear(steps=1000), count).tolist() == [*reversed(expected), 0]


def test_uniform_is_ddims_where_the_count_divides() -> None:
    for steps, count in ((1000, 10), (1000, 50), (200, 40), (12, 4)):
        expected = [1 + index for index in range(0, steps, steps // count)]
        assert grid(Linear(steps=steps), count, "uniform").tolist() == [*reversed(expected), 0]


def test_quadratic_is_ddims() -> None:
    """⌊linspace(0, √(0.8 T), K)²⌋ + 1 where these are distinct (Song et al. 2021, appendix D.2)."""
    for count in (2, 5, 10, 20):
        expected = np.floor(np.linspace(0, np.sqrt(800), count) ** 2) + 1
        assert grid(Linear(steps=1000), count, "quadratic").tolist() == [*reversed(expected.tolist()), 0]


def test_quadratic_is_denser_near_clean_data() -> None:
    gaps = -grid(Linear(steps=1000), 20, "quadratic").diff()[:-1]
    assert (gaps[1:] <= gaps[:-1]).all()
    assert gaps[0] > 5 * gaps[-1]


@pytest.mark.parametrize(("count", "nearest"), [(0, 1), (-3, 1), (201, 200), (10**9, 200)])
def test_counts_out_of_range_are_refused_with_the_nearest(count: int, nearest: int) -> None:
    with pytest.raises(InputError, match=rf"steps {count}: .*expected 1 to 200 \(nearest: {nearest}\)"):
        grid(Linear(steps=200), count)


def test_unknown_spacings_are_refused_with_the_nearest() -> None:
    assert set(NAMES) <= set(SPACINGS)
    with pytest.raises(InputError, match=r"unknown spacing 'quadratik': did you mean 'quadratic'\?"):
        grid(Linear(steps=9), 3, "quadratik")


def test_a_table_is_needed() -> None:
    class Continuous(Schedule):
        T, steps, t_min = 1.0, None, 1e-3

        def gamma(self, t: Tensor) -> Tensor:
            return 2 * torch.log(t)

        def time_of(self, gamma: Tensor) -> Tensor:
            return torch.exp(gamma / 2)

    with pytest.raises(InputError, match=r"continuous|tabulated"):
        grid(Continuous(), 3, "uniform")
    with pytest.raises(InputError, match=r"continuous|tabulated"):
        grid(Continuous())
