"""Schedules beyond the tables' defaults: terminal-SNR rescaling, the presets, the continuous ones, and γ's inverse."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from tests.exact import Fixed, cosine_alpha_bar, linear_alpha_bar
from trilemma.errors import InputError
from trilemma.process import ContinuousVP, Cosine, Denoiser, Linear, Tabulated
from trilemma.recipes import component, construct
from trilemma.registry import Preset, registry

KINDS: dict[str, tuple[Callable[..., Tabulated], np.ndarray]] = {
    "linear": (Linear, linear_alpha_bar(1000)),
    "cosine": (Cosine, cosine_alpha_bar(1000)),
}


def rescaled(alpha_bar: np.ndarray, snr: float) -> np.ndarray:
    """Lin et al. 2024, algorithm 1, written out for an end other than 0: √ᾱ is shifted so that its last entry is right
    and stretched about it so that its first one stays."""
    root = np.sqrt(alpha_bar[1:])
    first, last, end = root[0], root[-1], math.sqrt(snr / (1 + snr))
    shifted = root - last
    return np.concatenate([[1.0], (end + shifted * (first - end) / (first - last)) ** 2])


@pytest.mark.parametrize("snr", [0.0, 1e-6, 1e-3, 0.05])
@pytest.mark.parametrize("kind", sorted(KINDS))
class TestTerminalSNR:
    def test_levels_are_algorithm_1(self, kind: str, snr: float) -> None:
        made, table = KINDS[kind]
        np.testing.assert_allclose(made(terminal_snr=snr).alpha_bar.numpy(), rescaled(table, snr), rtol=1e-8, atol=0)

    def test_it_ends_at_the_asked_snr_and_keeps_the_first_step(self, kind: str, snr: float) -> None:
        made, table = KINDS[kind]
        schedule = made(terminal_snr=snr)
        assert schedule.terminal_snr() == pytest.approx(snr, rel=1e-9, abs=0)
        last, first = torch.tensor(schedule.T, dtype=torch.float64), torch.tensor(1.0, dtype=torch.float64)
        assert float(schedule.alpha(last) ** 2) == pytest.approx(snr / (1 + snr), rel=1e-9, abs=0)
        assert float(schedule.alpha(first) ** 2) == pytest.approx(table[1], rel=1e-12)

    def test_noise_still_rises_at_every_step(self, kind: str, snr: float) -> None:
        gamma = KINDS[kind][0](terminal_snr=snr).gamma(torch.arange(1, 1001, dtype=torch.float64))
        assert (gamma[1:] > gamma[:-1]).all()

    def test_less_signal_is_left_for_the_prior_to_pretend_away(self, kind: str, snr: float) -> None:
        """L_T of unit-variance data is −½ log₂ σ_T² = ½ log₂(1 + SNR): 0 at SNR 0."""
        found = KINDS[kind][0](terminal_snr=snr).prior_bits_per_dim(1.0)
        assert found == pytest.approx(0.5 * math.log2(1 + snr), rel=1e-6, abs=1e-15)


class TestZeroTerminalSNR:
    SCHEDULE = Linear(steps=50, beta_end=0.2, terminal_snr=0.0)

    @pytest.mark.parametrize("name", ["v", "x0"])
    def test_v_and_x0_are_allowed_and_the_last_step_is_finite(self, name: str) -> None:
        """At T, x_T is pure noise: v is −x_0 and x̂_0 comes from the network alone."""
        output = torch.full((1, 2, 2), 0.5, dtype=torch.float64)
        x_t = torch.randn(2, 1, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        found = Denoiser(Fixed(output), self.SCHEDULE, name)(x_t, torch.tensor(50.0, dtype=torch.float64))
        sign = -1.0 if name == "v" else 1.0
        torch.testing.assert_close(found.x0, sign * output.expand_as(x_t))
        torch.testing.assert_close(found.eps, x_t)

    @pytest.mark.parametrize("name", ["epsilon", "edm"])
    def test_what_divides_by_the_signal_is_refused(self, name: str) -> None:
        with pytest.raises(InputError, match=r"undefined at zero terminal SNR.*use 'v' or 'x0'"):
            Denoiser(Fixed(torch.zeros(1)), self.SCHEDULE, name)
        Denoiser(Fixed(torch.zeros(1)), Linear(steps=50, beta_end=0.2, terminal_snr=1e-4), name)

    def test_times_between_the_last_two_have_levels(self) -> None:
        """Off the table too, α falls to 0 and nothing is undefined."""
        t = torch.tensor([49.0, 49.2, 49.5, 49.9, 50.0], dtype=torch.float64)
        alpha, sigma = self.SCHEDULE.alpha(t), self.SCHEDULE.sigma(t)
        assert torch.isfinite(alpha).all()
        torch.testing.assert_close(alpha**2 + sigma**2, torch.ones_like(t))
        assert (alpha.diff() <= 0).all()


def test_rescaling_that_cannot_be_is_refused() -> None:
    with pytest.raises(InputError, match=r"schedule\.terminal_snr 1e\+06 is more than the SNR after the first step"):
        Linear(terminal_snr=1e6)
    with pytest.raises(InputError, match="a schedule of one step has nothing to rescale"):
        Linear(steps=1, terminal_snr=0.0)


@pytest.mark.parametrize("beta", [0.0, 1.0, -0.1, math.nan])
def test_betas_outside_0_to_1_are_refused(beta: float) -> None:
    with pytest.raises(InputError, match=r"every β must lie in \(0, 1\), got"):
        Tabulated(torch.tensor([0.1, beta], dtype=torch.float64))


SOURCES = {
    "linear-100": linear_alpha_bar(100, 4e-4, 0.18),
    "linear-200": linear_alpha_bar(200, 1e-4, 0.02),
    "linear-4000": linear_alpha_bar(4000, 1e-4 * 1000 / 4000, 0.02 * 1000 / 4000),
    "cosine-4000": cosine_alpha_bar(4000),
}


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_presets_are_the_sources_schedules(name: str) -> None:
    schedule = construct("schedule", component("schedule", name, "schedule"))
    assert schedule.steps == len(SOURCES[name]) - 1
    np.testing.assert_allclose(schedule.alpha_bar.numpy(), SOURCES[name], rtol=0, atol=1e-12)


def test_the_named_presets_are_these() -> None:
    assert {name for name, part in registry("schedule").items() if isinstance(part, Preset)} == set(SOURCES)


def test_a_presets_arguments_can_be_overridden() -> None:
    assert component("schedule", {"name": "linear-4000", "steps": 8}, "schedule") == {
        **{"name": "linear", "steps": 8, "beta_start": 2.5e-5, "beta_end": 0.005, "terminal_snr": None},
        "network_steps": None,
    }


def test_e_s_schedule_ends_where_the_sources_table_says() -> None:
    """ᾱ_200 = 0.132, SNR 0.15: x_T still carries signal."""
    schedule = construct("schedule", component("schedule", "linear-200", "schedule"))
    assert float(schedule.alpha_bar[-1]) == pytest.approx(0.132, abs=5e-4)
    assert schedule.terminal_snr() == pytest.approx(0.152, abs=5e-4)


class TestContinuousVP:
    @pytest.mark.parametrize(("low", "high"), [(0.1, 20.0), (0.5, 3.0)])
    def test_levels_are_song_et_als_formula(self, low: float, high: float) -> None:
        """α = exp(−¼ t² (β_max − β_min) − ½ t β_min), σ² = 1 − α² (Song et al. 2021, eq. 33)."""
        t = np.linspace(1e-3, 1, 57)
        log_alpha = -0.25 * t**2 * (high - low) - 0.5 * t * low
        schedule, at = ContinuousVP(beta_min=low, beta_max=high), torch.from_numpy(t)
        np.testing.assert_allclose(schedule.alpha(at).numpy(), np.exp(log_alpha), rtol=1e-10)
        np.testing.assert_allclose(schedule.sigma(at).numpy() ** 2, -np.expm1(2 * log_alpha), rtol=1e-10)

    def test_it_is_the_linear_schedules_limit(self) -> None:
        """β_k = β(k/T)/T with T large: 0.1/T to 20/T is the linear schedule's 1e-4 to 0.02 at T = 1 000."""
        steps = 100_000
        table = linear_alpha_bar(steps, 0.1 / steps, 20.0 / steps)
        t = np.array([0.05, 0.3, 0.7, 1.0])
        found = ContinuousVP().alpha(torch.from_numpy(t)).numpy() ** 2
        np.testing.assert_allclose(found, table[(t * steps).astype(int)], rtol=2e-3)

    def test_clean_data_and_what_the_network_is_told(self) -> None:
        zero = torch.zeros((), dtype=torch.float64)
        schedule = ContinuousVP()
        assert (float(schedule.alpha(zero)), float(schedule.sigma(zero))) == (1.0, 0.0)
        assert schedule.network_time(torch.tensor([0.0, 1.0], dtype=torch.float64)).tolist() == [0.0, 999.0]

    def test_a_falling_beta_is_refused(self) -> None:
        with pytest.raises(InputError, match=r"schedule\.beta_max 0\.1 should be more than beta_min 0\.2"):
            ContinuousVP(beta_min=0.2, beta_max=0.1)
