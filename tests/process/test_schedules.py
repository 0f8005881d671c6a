from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import norm
from torch import Tensor

from tests.exact import Fixed, cosine_alpha_bar, linear_alpha_bar
from trilemma.errors import InputError
from trilemma.process import Cosine, Denoiser, Linear, Schedule, Tabulated
from trilemma.recipes import component


def times(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


TABLES = [
    pytest.param(Linear(), linear_alpha_bar(1000), id="linear"),
    pytest.param(Linear(steps=200), linear_alpha_bar(200), id="linear-200"),
    pytest.param(Linear(steps=100, beta_start=4e-4, beta_end=0.18), linear_alpha_bar(100, 4e-4, 0.18), id="linear-100"),
    pytest.param(Linear(steps=4000, beta_start=2.5e-5, beta_end=5e-3), linear_alpha_bar(4000, 2.5e-5, 5e-3), id="4000"),
    pytest.param(Cosine(), cosine_alpha_bar(1000), id="cosine"),
    pytest.param(Cosine(steps=50), cosine_alpha_bar(50), id="cosine-50"),
    pytest.param(Cosine(steps=40, s=0.02, max_beta=0.9), cosine_alpha_bar(40, 0.02, 0.9), id="cosine-other"),
    pytest.param(Cosine(steps=10, s=0.0), cosine_alpha_bar(10, 0.0), id="cosine-no-offset"),
    pytest.param(Linear(steps=1), np.array([1.0, 1.0 - 1e-4]), id="one-step"),
]


@pytest.mark.parametrize(("schedule", "alpha_bar"), TABLES)
class TestTables:
    def test_levels_are_the_formulas(self, schedule: Tabulated, alpha_bar: np.ndarray) -> None:
        t = torch.arange(len(alpha_bar), dtype=torch.float64)
        np.testing.assert_allclose(schedule.alpha_bar.numpy(), alpha_bar, rtol=0, atol=1e-12)
        np.testing.assert_allclose(schedule.alpha(t).numpy() ** 2, alpha_bar, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(schedule.sigma(t).numpy() ** 2, 1 - alpha_bar, rtol=1e-10, atol=1e-12)

    def test_gamma_is_minus_log_snr(self, schedule: Tabulated, alpha_bar: np.ndarray) -> None:
        t = torch.arange(1, len(alpha_bar), dtype=torch.float64)
        expected = np.log((1 - alpha_bar[1:]) / alpha_bar[1:])
        np.testing.assert_allclose(schedule.gamma(t).numpy(), expected, rtol=1e-9, atol=1e-9)

    def test_variance_is_preserved_between_the_tables_times(self, schedule: Tabulated, alpha_bar: np.ndarray) -> None:
        t = torch.linspace(0, schedule.T, 97, dtype=torch.float64)
        torch.testing.assert_close(schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2, torch.ones_like(t))

    def test_network_is_told_the_index_of_the_step(self, schedule: Tabulated, alpha_bar: np.ndarray) -> None:
        t = torch.arange(1, len(alpha_bar), dtype=torch.float64)
        assert schedule.network_time(t).tolist() == list(range(len(alpha_bar) - 1))


@pytest.mark.parametrize("schedule", [Linear(steps=30), Cosine(steps=30)])
class TestBetweenTimes:
    def test_log_snr_is_interpolated(self, schedule: Schedule) -> None:
        fraction = torch.linspace(0, 1, 9, dtype=torch.float64)
        for k in (1, 12, 29):
            left, right = schedule.gamma(times(k, k + 1)).tolist()
            expected = [(1 - f) * left + f * right for f in fraction.tolist()]
            assert schedule.gamma(k + fraction).tolist() == pytest.approx(expected, rel=1e-12)

    def test_first_interval_has_noise_to_signal_growing_from_nothing(self, schedule: Schedule) -> None:
        t = torch.linspace(0, 1, 11, dtype=torch.float64)
        ratio = (schedule.sigma(t) / schedule.alpha(t)) ** 2
        torch.testing.assert_close(ratio, t * ratio[-1], rtol=1e-12, atol=0)


def test_levels_stay_accurate_next_to_clean_data() -> None:
    """β_1 = 10⁻¹²: 1 − ᾱ_1 as a difference of float64 would keep four digits of it."""
    schedule = Tabulated(torch.tensor([1e-12, 0.1], dtype=torch.float64))
    assert schedule.sigma(times(1.0)).item() ** 2 == pytest.approx(1e-12, rel=1e-12)


@given(st.lists(st.floats(1e-6, 0.999), min_size=1, max_size=30))
def test_any_table_of_betas_gives_its_products(betas: list[float]) -> None:
    schedule = Tabulated(torch.tensor(betas, dtype=torch.float64))
    product = 1.0
    for t, beta in enumerate(betas, start=1):
        product *= 1.0 - beta
        assert schedule.alpha(times(t)).item() ** 2 == pytest.approx(product, rel=1e-9, abs=1e-300)
    assert schedule.T == schedule.steps == len(betas)


class ToNothing(Schedule):
    """α² = 1 − t: no signal is left at T = 1."""

    T, steps, t_min = 1.0, None, 1e-3

    def gamma(self, t: Tensor) -> Tensor:
        return torch.log(t) - torch.log1p(-t)

    def time_of(self, gamma: Tensor) -> Tensor:
        return torch.sigmoid(gamma)


class TestTerminal:
    def test_200_linear_steps_leave_signal(self) -> None:
        """E's schedule: ᾱ_T = 0.132, SNR 0.15."""
        schedule = Linear(steps=200)
        assert schedule.alpha_bar[-1].item() == pytest.approx(0.132, abs=5e-4)
        assert schedule.terminal_snr() == pytest.approx(0.152, abs=5e-4)

    def test_terminal_snr_is_the_tables_last(self) -> None:
        for schedule, table in (
            (Linear(), linear_alpha_bar(1000)),
            (Cosine(steps=50), cosine_alpha_bar(50)),
        ):
            assert schedule.terminal_snr() == pytest.approx(table[-1] / (1 - table[-1]), rel=1e-9)

    @pytest.mark.parametrize("steps", [10, 200, 1000])
    def test_prior_term_is_the_divergence_by_quadrature(self, steps: int) -> None:
        """L_T of x_0 = ±c (second moment c²), KL(N(αx_0, σ²) ‖ N(0, 1)) integrated numerically, in bits."""
        table, x0 = linear_alpha_bar(steps)[-1], 0.7
        q = norm(math.sqrt(table) * x0, math.sqrt(1 - table))

        def integrand(x: float) -> float:
            return q.pdf(x) * (q.logpdf(x) - norm.logpdf(x))

        expected = quad(integrand, q.mean() - 12 * q.std(), q.mean() + 12 * q.std(), epsabs=1e-13)[0] / math.log(2)
        assert Linear(steps=steps).prior_bits_per_dim(x0**2) == pytest.approx(expected, rel=1e-6, abs=1e-10)

    def test_prior_term_vanishes_as_signal_does(self) -> None:
        reached = [Linear(steps=steps).prior_bits_per_dim() for steps in (100, 200, 400, 1000)]
        assert reached == sorted(reached, reverse=True)
        assert reached[1] > 0.01 > reached[-1] > 0

    def test_epsilon_prediction_needs_signal_at_the_end(self) -> None:
        schedule = ToNothing()
        assert schedule.terminal_snr() == 0.0
        with pytest.raises(InputError, match=r"zero terminal SNR.*'v' or 'x0'"):
            Denoiser(Fixed(torch.zeros(())), schedule, "epsilon")
        for parameterization in ("v", "x0"):
            x_t = torch.randn(2, 1, 2, 2, generator=torch.Generator().manual_seed(0))
            found = Denoiser(Fixed(torch.full((1, 2, 2), 0.5)), schedule, parameterization)(x_t, times(1.0)[0])
            torch.testing.assert_close(found.eps, x_t)
            assert torch.isfinite(found.x0).all()


@pytest.mark.parametrize(
    "betas",
    [
        pytest.param([0.1, 0.0], id="zero"),
        pytest.param([-0.1, 0.1], id="negative"),
        pytest.param([0.5, 1.0], id="one"),
        pytest.param([0.5, 1.5], id="above-one"),
        pytest.param([0.1, math.nan], id="nan"),
        pytest.param([], id="none"),
        pytest.param([[0.1, 0.2]], id="two-dimensional"),
    ],
)
def test_bad_betas_are_refused(betas: list[float]) -> None:
    with pytest.raises(InputError, match=r"β must lie in \(0, 1\)"):
        Tabulated(torch.tensor(betas, dtype=torch.float64))


def test_tables_are_float64_whatever_the_betas_are() -> None:
    """Everything computed from times is float64: float32 tables would lose γ near clean data."""
    assert Tabulated(torch.tensor([0.1, 0.2])).gamma(times(1.0, 2.0)).dtype == torch.float64


@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_a_table_has_a_million_times_at_most(name: str) -> None:
    for steps in (1, 1_000_000):
        assert component("schedule", {"name": name, "steps": steps}, "schedule")["steps"] == steps
    for steps in (0, 1_000_001):
        with pytest.raises(InputError, match=r"schedule\.steps"):
            component("schedule", {"name": name, "steps": steps}, "schedule")
