"""The pair kernel against Ho et al.'s, A's respaced one (eq 10–11), and the identities that any such kernel obeys."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.exact import cosine_alpha_bar, linear_alpha_bar
from trilemma.process import Cosine, Linear, Schedule, over_image, pair, perturb, posterior_mean

CASES = [
    pytest.param(Linear(steps=1000), linear_alpha_bar(1000), id="linear"),
    pytest.param(Cosine(steps=60), cosine_alpha_bar(60), id="cosine"),
]


def time(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def images(seed: int, count: int = 3) -> Tensor:
    return torch.randn(count, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("schedule", "alpha_bar"), CASES)
class TestTabulated:
    def test_neighbours_have_the_published_variances(self, schedule: Schedule, alpha_bar: np.ndarray) -> None:
        """β_t, and β̃_t = (1 − ᾱ_{t−1})/(1 − ᾱ_t) β_t (Ho et al. 2020, eq. 7)."""
        beta = 1 - alpha_bar[1:] / alpha_bar[:-1]
        beta_tilde = (1 - alpha_bar[:-1]) / (1 - alpha_bar[1:]) * beta
        t = torch.arange(1, len(alpha_bar), dtype=torch.float64)
        kernel = pair(schedule, t, t - 1)
        np.testing.assert_allclose(kernel.beta.numpy(), beta, rtol=1e-9)
        np.testing.assert_allclose(kernel.beta_tilde.numpy(), beta_tilde, rtol=1e-9)
        assert kernel.beta_tilde[0] == 0

    def test_a_subset_has_the_respaced_variances(self, schedule: Schedule, alpha_bar: np.ndarray) -> None:
        """A eq 10–11: β_{S_i} = 1 − ᾱ_{S_i}/ᾱ_{S_{i−1}}, β̃ from it as for neighbours."""
        steps = len(alpha_bar) - 1
        subset = np.array([0, 1, 4, steps // 3, steps // 2, steps - 3, steps])
        t, s = (torch.from_numpy(part.astype(np.float64)) for part in (subset[1:], subset[:-1]))
        kernel = pair(schedule, t, s)
        beta = 1 - alpha_bar[subset[1:]] / alpha_bar[subset[:-1]]
        np.testing.assert_allclose(kernel.beta.numpy(), beta, rtol=1e-9)
        small = (1 - alpha_bar[subset[:-1]]) / (1 - alpha_bar[subset[1:]]) * beta
        np.testing.assert_allclose(kernel.beta_tilde.numpy(), small, rtol=1e-9)

    def test_posterior_mean_is_the_textbooks(self, schedule: Schedule, alpha_bar: np.ndarray) -> None:
        """μ̃ = √ᾱ_s β/(1 − ᾱ_t) x_0 + √(ᾱ_t/ᾱ_s) (1 − ᾱ_s)/(1 − ᾱ_t) x_t (Ho et al. 2020, eq. 7), for any pair."""
        x0, eps = images(0), images(1)
        for t, s in ((1, 0), (2, 1), (31, 30), (60, 12), (60, 0)):
            at, as_ = alpha_bar[t], alpha_bar[s]
            x_t = math.sqrt(at) * x0 + math.sqrt(1 - at) * eps
            to_x0 = math.sqrt(as_) * (1 - at / as_) / (1 - at)
            to_xt = math.sqrt(at / as_) * (1 - as_) / (1 - at)
            found = posterior_mean(pair(schedule, time(t), time(s)), x0, eps)
            torch.testing.assert_close(found, to_x0 * x0 + to_xt * x_t, rtol=1e-9, atol=1e-9)


SCHEDULES = [Linear(steps=1000), Linear(steps=7, beta_end=0.4), Cosine(steps=60)]
TRIPLES = [(0.2, 0.7, 1.0), (0.0, 0.13, 0.5), (0.01, 0.02, 0.97), (0.3, 0.31, 0.32)]


@pytest.mark.parametrize("schedule", SCHEDULES)
class TestIdentities:
    @pytest.mark.parametrize("triple", TRIPLES)
    def test_forward_kernels_compose(self, schedule: Schedule, triple: tuple[float, float, float]) -> None:
        """q(x_t | x_s) after q(x_s | x_r) is q(x_t | x_r), at any times, tabulated or between."""
        r, s, t = (time(part * schedule.T) for part in triple)
        rs, st, rt = pair(schedule, s, r), pair(schedule, t, s), pair(schedule, t, r)
        scale_rs, scale_st, scale_rt = (k.alpha_t / k.alpha_s for k in (rs, st, rt))
        torch.testing.assert_close(scale_st * scale_rs, scale_rt, rtol=1e-12, atol=0)
        torch.testing.assert_close(scale_st**2 * rs.beta + st.beta, rt.beta, rtol=1e-10, atol=0)

    @pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
    @pytest.mark.parametrize("triple", TRIPLES)
    def test_marginals_are_kept(self, schedule: Schedule, triple: tuple[float, float, float], eta: float) -> None:
        """Drawing x_t ~ q(x_t | x_0), then x_s ~ q_η(x_s | x_t, x_0), is drawing x_s ~ q(x_s | x_0): the mean for ε = 0
        is α_s x_0, and the weight of ε and the added variance make up σ_s² (Song et al. 2021, lemma 1)."""
        s, t = time(triple[0] * schedule.T), time(triple[2] * schedule.T)
        kernel, x0 = pair(schedule, t, s), images(2)
        mean = posterior_mean(kernel, x0, torch.zeros_like(x0), eta)
        torch.testing.assert_close(mean, schedule.alpha(s) * x0, rtol=1e-12, atol=0)
        weight = posterior_mean(kernel, torch.zeros_like(x0), torch.ones_like(x0), eta)
        variance = weight**2 + eta**2 * kernel.beta_tilde
        torch.testing.assert_close(variance, (schedule.sigma(s) ** 2).expand_as(variance), rtol=1e-10, atol=1e-14)

    def test_posterior_is_bayes_rule(self, schedule: Schedule) -> None:
        """Precision and mean of q(x_t | x_s) q(x_s | x_0) as a Gaussian in x_s, completed by hand."""
        s, t = time(0.4 * schedule.T), time(0.9 * schedule.T)
        kernel, x0, eps = pair(schedule, t, s), images(3), images(4)
        x_t = schedule.alpha(t) * x0 + schedule.sigma(t) * eps
        scale, prior = schedule.alpha(t) / schedule.alpha(s), schedule.sigma(s) ** 2
        forward = schedule.sigma(t) ** 2 - scale**2 * prior
        precision = 1 / prior + scale**2 / forward
        mean = (schedule.alpha(s) * x0 / prior + scale * x_t / forward) / precision
        torch.testing.assert_close(kernel.beta_tilde, 1 / precision, rtol=1e-8, atol=0)
        torch.testing.assert_close(posterior_mean(kernel, x0, eps), mean, rtol=1e-8, atol=1e-10)

    def test_pairs_an_image_are_pairs_of_one(self, schedule: Schedule) -> None:
        x0, eps = images(5), images(6)
        t, s = schedule.T * torch.tensor([0.3, 0.8, 1.0]).double(), schedule.T * torch.tensor([0.0, 0.5, 0.1]).double()
        together = posterior_mean(pair(schedule, t, s), x0, eps, 0.5)
        for i in range(3):
            alone = posterior_mean(pair(schedule, t[i], s[i]), x0[i : i + 1], eps[i : i + 1], 0.5)
            torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-14, atol=0)


def test_close_pairs_keep_their_digits() -> None:
    """Times 10⁻⁶ apart: β against its derivative, where σ_t² − (α_t/α_s)² σ_s² has lost most of its digits."""
    schedule = Linear(steps=1000)
    t, h = 500.25, 1e-6
    slope = (schedule.gamma(time(501)) - schedule.gamma(time(500))).item()
    expected = schedule.sigma(time(t)).item() ** 2 * slope * h
    assert pair(schedule, time(t), time(t - h)).beta.item() == pytest.approx(expected, rel=1e-6)


def test_perturb_is_the_forward_marginal() -> None:
    schedule, table = Linear(steps=50, beta_end=0.2), torch.from_numpy(linear_alpha_bar(50, end=0.2))
    x0, eps, t = images(7), images(8), torch.tensor([1.0, 20.0, 50.0], dtype=torch.float64)
    for i, k in enumerate((1, 20, 50)):
        expected = table[k].sqrt() * x0[i] + (1 - table[k]).sqrt() * eps[i]
        torch.testing.assert_close(perturb(schedule, x0, t, eps)[i], expected)
        torch.testing.assert_close(perturb(schedule, x0, t[i], eps)[i], expected)
    assert torch.equal(perturb(schedule, x0, time(0), eps), x0)


def test_coefficients_take_the_images_type_and_rank() -> None:
    """float64 coefficients must neither widen half-precision images nor broadcast along the wrong axis."""
    c = torch.tensor([1.0, 2.0], dtype=torch.float64)
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        scaled = over_image(c, torch.ones(2, 2, 2, 2, dtype=dtype)) * torch.ones(2, 2, 2, 2, dtype=dtype)
        assert scaled.dtype == dtype
        assert scaled.flatten(1).tolist() == [[1.0] * 8, [2.0] * 8]
    assert over_image(c[0], torch.ones(2, 3)).dim() == 0
