"""Every way of choosing the times: sections, prefixes left out, explicit times, log-SNR and Karras spacing, continuous
schedules; and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from trilemma.errors import InputError
from trilemma.process import EDM, ContinuousVP, Cosine, Linear, Schedule
from trilemma.samplers import SPACINGS, check_spacing, cut, explicit, grid

ON_TABLE, OFF_TABLE = ("even", "uniform", "quadratic"), ("log_snr", "karras")
TABLES = {
    "linear-1": Linear(steps=1),
    "linear-2": Linear(steps=2),
    "linear-37": Linear(steps=37),
    "cosine": Cosine(steps=60),
}
CONTINUOUS: dict[str, Schedule] = {"vp": ContinuousVP(), "edm": EDM(), "edm-other": EDM(sigma_min=0.1, sigma_max=3.0)}


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("name", sorted(TABLES))
def test_every_count_of_every_spacing_is_a_grid(name: str, spacing: str) -> None:
    """K intervals, strictly decreasing, between t_min = 1 and T, and clean data at the end."""
    schedule = TABLES[name]
    for count in range(1, int(schedule.T) + 1):
        found = grid(schedule, count, spacing)
        assert found.dtype == torch.float64
        assert len(found) == count + 1
        assert (found.diff() < 0).all(), f"K = {count}"
        assert found[-1] == 0
        assert found[-2] >= 1
        assert found[0] <= schedule.T


@pytest.mark.parametrize("spacing", ON_TABLE)
@pytest.mark.parametrize("name", sorted(TABLES))
def test_as_many_times_as_steps_is_the_full_chain(name: str, spacing: str) -> None:
    schedule = TABLES[name]
    assert grid(schedule, int(schedule.T), spacing).tolist() == list(range(int(schedule.T), -1, -1))


@pytest.mark.parametrize("spacing", ["even", *OFF_TABLE])
@pytest.mark.parametrize("name", sorted(CONTINUOUS))
def test_continuous_grids(name: str, spacing: str) -> None:
    schedule = CONTINUOUS[name]
    assert grid(schedule, 1, spacing).tolist() == [schedule.T, 0.0]
    for count in (2, 3, 18, 250):
        found = grid(schedule, count, spacing)
        assert len(found) == count + 1
        assert (found.diff() < 0).all()
        assert found[-1] == 0
        assert found[-2].item() == pytest.approx(schedule.t_min, rel=1e-9)
        assert found[0].item() == pytest.approx(schedule.T, rel=1e-9)


def test_an_even_grid_of_a_continuous_schedule_is_even_in_t() -> None:
    found = grid(ContinuousVP(), 5)
    np.testing.assert_allclose(found.numpy(), [1.0, 0.75025, 0.5005, 0.25075, 0.001, 0.0], atol=1e-12)


@pytest.mark.parametrize("schedule", [*TABLES.values(), *CONTINUOUS.values(), Linear()])
class TestOffTheTable:
    def test_log_snr_takes_equal_steps_of_gamma(self, schedule: Schedule) -> None:
        count = 9 if schedule.steps is None else min(9, schedule.steps)
        gamma = schedule.gamma(grid(schedule, count, "log_snr")[:-1]).numpy()
        ends = schedule.gamma(torch.tensor([schedule.T, schedule.t_min], dtype=torch.float64)).numpy()
        expected = np.linspace(ends[0], ends[1], count) if count > 1 else ends[:1]
        np.testing.assert_allclose(gamma, expected, rtol=1e-9, atol=1e-9)

    def test_karras_is_their_formula(self, schedule: Schedule) -> None:
        """σ_i = (σ_max^{1/ρ} + i/(N − 1) (σ_min^{1/ρ} − σ_max^{1/ρ}))^ρ, ρ = 7 (Karras et al. 2022, eq. 5)."""
        count = 9 if schedule.steps is None else min(9, schedule.steps)
        noise = np.exp(schedule.gamma(grid(schedule, count, "karras")[:-1]).numpy() / 2)
        ends = torch.tensor([schedule.T, schedule.t_min], dtype=torch.float64)
        high, low = np.exp(schedule.gamma(ends).numpy() / 2) ** (1 / 7)
        expected = (high + np.arange(count) / max(count - 1, 1) * (low - high)) ** 7
        np.testing.assert_allclose(noise, expected, rtol=1e-8)

    def test_a_surrogate_at_the_noisiest_time_is_taken_up_there(self, schedule: Schedule) -> None:
        """The grid's first time is T but for rounding, which must not put a t_mid of T outside."""
        count = 9 if schedule.steps is None else min(9, schedule.steps)
        for spacing in OFF_TABLE:
            times = grid(schedule, count, spacing)
            torch.testing.assert_close(cut(schedule, times, schedule.T), times, rtol=1e-9, atol=0)
            assert float(times[0]) == pytest.approx(schedule.T, rel=1e-9)


def test_karras_numbers_of_their_default() -> None:
    """18 steps from 80 to 0.002: the second of them, by their formula with a pocket calculator's digits."""
    found = grid(EDM(), 18, "karras")
    assert found[1].item() == pytest.approx(57.58598, abs=1e-4)


def test_zero_terminal_snr_has_no_even_log_snr() -> None:
    for spacing in OFF_TABLE:
        with pytest.raises(InputError, match=rf"spacing '{spacing}': the schedule ends at SNR 0.*use even"):
            grid(Linear(terminal_snr=0.0), 10, spacing)
    assert len(grid(Linear(terminal_snr=0.0), 10)) == 11


def space_timesteps(steps: int, counts: list[int]) -> list[int]:
    """improved-diffusion's respacing by sections restated: the times, numbered from 1, rising."""
    times: list[int] = []
    start = 0
    for i, count in enumerate(counts):
        size = steps // len(counts) + (1 if i < steps % len(counts) else 0)
        stride = (size - 1) / (count - 1) if count > 1 else 1.0
        at = 0.0
        for _ in range(count):
            times.append(1 + start + round(at))
            at += stride
        start += size
    return times


class TestSections:
    @pytest.mark.parametrize("steps", [100, 200, 300, 1000, 4000, 46])
    @pytest.mark.parametrize("counts", [[10, 10, 10], [10, 10, 15], [10, 15], [1], [12], [5, 1, 2], [8, 4, 2, 1]])
    def test_they_are_improved_diffusions(self, steps: int, counts: list[int]) -> None:
        expected = space_timesteps(steps, counts)
        spacing = ",".join(map(str, counts))
        if len(counts) > 1:
            assert grid(Linear(steps=steps), None, spacing).tolist() == [*reversed(expected), 0]
        assert grid(Linear(steps=steps), sum(counts), spacing).tolist() == [*reversed(expected), 0]

    def test_a_half_is_rounded_as_their_running_sum_falls(self) -> None:
        """10,15,20 of 300: the eighth of the second section is 149, where seven strides of 99/14 make 49.5 exactly."""
        found = grid(Linear(steps=300), None, "10,15,20").flip(0)[1:].long().tolist()
        assert found == space_timesteps(300, [10, 15, 20])
        assert found[17] == 1 + 149

    @pytest.mark.parametrize("steps", [64, 100, 250])
    def test_for_every_count(self, steps: int) -> None:
        """One section of every count: at an exact half the running sum's rounding errors decide, theirs and ours."""
        for count in range(1, steps + 1):
            found = grid(Linear(steps=steps), count, str(count)).flip(0)[1:].long().tolist()
            assert found == space_timesteps(steps, [count])

    def test_a_section_cannot_hold_more_times_than_it_has(self) -> None:
        with pytest.raises(InputError, match=r"spacing 10,10,90: section 3 has 66 times, fewer than 90"):
            grid(Linear(steps=200), None, "10,10,90")

    def test_steps_must_be_their_sum(self) -> None:
        with pytest.raises(InputError, match=r"steps 30: the sections 10,10,15 have 35 in all"):
            grid(Linear(steps=200), 30, "10,10,15")

    def test_a_table_is_needed(self) -> None:
        with pytest.raises(InputError, match=r"spacing '10,10' needs a tabulated schedule: this one is continuous"):
            grid(ContinuousVP(), 20, "10,10")

    @pytest.mark.parametrize("text", ["10,,15", "10,0", "a,b", "-1,2", "1.5,2", "", ",", "10, x", "²,3"])
    def test_what_is_no_spacing_is_refused(self, text: str) -> None:
        with pytest.raises(InputError) as caught:
            check_spacing(text)
        assert str(caught.value).startswith(f"unknown spacing {text!r}")
        assert "10,10,15" in str(caught.value)


class TestSkip:
    def test_the_noisiest_times_are_left_out(self) -> None:
        for spacing in (*SPACINGS, "4,3,3"):
            full = grid(Linear(steps=100), 10, spacing)
            for skip in range(10):
                assert torch.equal(grid(Linear(steps=100), 10, spacing, skip), full[skip:])

    @pytest.mark.parametrize("skip", [-1, 10, 11])
    def test_something_must_be_left(self, skip: int) -> None:
        with pytest.raises(InputError, match=rf"skip {skip}: expected 0 to 9, the grid has 10 times"):
            grid(Linear(steps=100), 10, skip=skip)


class TestExplicit:
    def test_given_times_are_the_grid(self) -> None:
        for times in ([100.0, 60.5, 3.0], [100.0, 60.5, 3.0, 0.0], [7.0]):
            found = explicit(Linear(steps=100), times)
            assert found.dtype == torch.float64
            assert found.tolist() == [*(t for t in times if t), 0.0]

    @pytest.mark.parametrize(
        "times", [[], [0.0], [3.0, 3.0], [3.0, 5.0], [101.0, 3.0], [5.0, -1.0], [5.0, 0.0, 0.0], [math.nan], [math.inf]]
    )
    def test_others_are_refused(self, times: list[float]) -> None:
        with pytest.raises(InputError, match=r"times \[.*\]: expected strictly decreasing times between 100 and 0"):
            explicit(Linear(steps=100), times)


class TestCut:
    def test_below_t_mid_from_t_mid_on(self) -> None:
        times = grid(Linear(steps=100), 4, "uniform")
        assert times.tolist() == [76, 51, 26, 1, 0]
        assert cut(Linear(steps=100), times, 60).tolist() == [60, 51, 26, 1, 0]
        assert cut(Linear(steps=100), times, 51).tolist() == [51, 26, 1, 0]
        assert cut(Linear(steps=100), times, 0.5).tolist() == [0.5, 0]
        assert cut(Linear(steps=100), times, 0).tolist() == [0]
        assert cut(Linear(steps=100), times, 76).tolist() == times.tolist()

    @pytest.mark.parametrize("t_mid", [-0.1, 100.1, math.nan])
    def test_outside_is_refused(self, t_mid: float) -> None:
        with pytest.raises(InputError, match=rf"t_mid {t_mid:g}: expected 0 to 100"):
            cut(Linear(steps=100), grid(Linear(steps=100), 4), t_mid)


@pytest.mark.parametrize(("count", "nearest"), [(0, 1), (101, 100)])
@pytest.mark.parametrize("spacing", SPACINGS)
def test_counts_out_of_range_are_refused_for_every_spacing(spacing: str, count: int, nearest: int) -> None:
    expected = rf"steps {count}: this model's schedule has T = 100, so expected 1 to 100 \(nearest: {nearest}\)"
    with pytest.raises(InputError, match=expected):
        grid(Linear(steps=100), count, spacing)


@pytest.mark.parametrize("spacing", SPACINGS)
def test_a_continuous_schedule_needs_a_count(spacing: str) -> None:
    for count in (None, 0):
        with pytest.raises(InputError, match=rf"steps {count}: this schedule is continuous, expected a number"):
            grid(ContinuousVP(), count, spacing)
    if spacing in ("uniform", "quadratic"):
        with pytest.raises(InputError, match=rf"spacing '{spacing}' needs a tabulated schedule: use even, log_snr"):
            grid(ContinuousVP(), 5, spacing)
