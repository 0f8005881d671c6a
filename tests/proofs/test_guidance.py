"""Guidance where every answer is known: what is added is what theory says, and what is sampled is the class's data."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from tests.contracts.made import make, names, unclipped
from tests.proofs.labelled import ExactLabelled, ExactPosterior, of_class
from tests.proofs.models import cdf, number
from trilemma.guidance import Autoguidance, ClassifierFree, ClassifierGuidance, Guide, bind
from trilemma.process import BoundDenoiser, Condition, Cosine, Draw, Linear, Prediction, pair
from trilemma.samplers import DDIM, Ancestral, grid, walk

SCHEDULE = Linear()
SEEDS = list(range(6))
LABEL = torch.tensor([0, 1, 2, 0, 1, 2])
START = Draw.for_seeds(SEEDS, "start").normal(torch.empty(6, 1, 1, 2, dtype=torch.float64))
SCORE_FORM = [name for name in names("sampler") if name != "ancestral"]


def walked(kernel: Any, guides: list[Guide], label: Tensor | None = LABEL, steps: int = 12) -> Tensor:
    denoiser = ExactLabelled(SCHEDULE)
    blind = bind(denoiser, Condition(label), guides)
    *_, last = walk(kernel, blind, grid(SCHEDULE, steps), START, Draw.for_seeds(SEEDS, "step"))
    return last.x


class Unconditional(ExactLabelled):
    """The same data, seen by a denoiser that takes no class."""

    def forward(self, x_t: Tensor, t: Tensor, condition: Condition = Condition()) -> Any:  # noqa: B008
        return super().forward(x_t, t)


def by_classifier(kernel: Any, scale: float, denoiser: type[ExactLabelled] = Unconditional, steps: int = 12) -> Tensor:
    guides = [ClassifierGuidance(scale, ExactPosterior(SCHEDULE))]
    guided = bind(denoiser(SCHEDULE), Condition(LABEL), guides)
    *_, last = walk(kernel, guided, grid(SCHEDULE, steps), START, Draw.for_seeds(SEEDS, "step"))
    return last.x


@pytest.mark.parametrize("name", SCORE_FORM)
class TestScoreForm:
    """ε̂ − σ∇ log p(y | x_t) of the exact unconditional model is the exact conditional ε̂: step by step, to rounding."""

    def test_by_a_classifier_at_scale_1_it_is_the_conditional_model(self, name: str) -> None:
        kernel = unclipped(name)
        torch.testing.assert_close(by_classifier(kernel, 1.0), walked(kernel, []), rtol=1e-9, atol=1e-9)

    @pytest.mark.parametrize("w", [0.5, 2.0])
    def test_classifier_free_at_w_is_a_classifier_at_w_plus_1(self, name: str, w: float) -> None:
        """ε_c + w (ε_c − ε_∅) = ε_∅ − (1 + w) σ ∇ log p(y | x_t); with classes a classifier's scale is w."""
        kernel = unclipped(name)
        free = walked(kernel, [ClassifierFree(w)])
        torch.testing.assert_close(by_classifier(kernel, 1 + w), free, rtol=1e-8, atol=1e-8)
        torch.testing.assert_close(by_classifier(kernel, w, ExactLabelled), free, rtol=1e-8, atol=1e-8)

    def test_away_from_the_model_without_classes_is_classifier_free(self, name: str) -> None:
        kernel = unclipped(name)
        away = walked(kernel, [Autoguidance(1.5, Unconditional(SCHEDULE))])
        torch.testing.assert_close(away, walked(kernel, [ClassifierFree(1.5)]), rtol=1e-9, atol=1e-9)

    def test_guides_add_up(self, name: str) -> None:
        kernel = unclipped(name)
        both = walked(kernel, [ClassifierFree(0.5), ClassifierGuidance(0.7, ExactPosterior(SCHEDULE))])
        torch.testing.assert_close(both, walked(kernel, [ClassifierFree(1.2)]), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", names("sampler"))
def test_at_scale_0_it_is_the_unguided_walk_bit_for_bit(name: str) -> None:
    kernel, posterior = unclipped(name), ExactPosterior(SCHEDULE)
    none = [ClassifierFree(0.0), ClassifierGuidance(0.0, posterior), Autoguidance(0.0, Unconditional(SCHEDULE))]
    assert torch.equal(walked(kernel, none), walked(kernel, []))
    nowhere = [ClassifierFree(3.0, interval=(0.2, 0.3))]
    assert torch.equal(walked(kernel, nowhere), walked(kernel, []))


@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
def test_the_shift_of_the_mean_becomes_the_conditional_mean_as_steps_shrink(variance: str) -> None:
    """Σ∇ log p is the conditional mean's shift but for a factor 1 + O(t − s) (Dhariwal & Nichol 2021, 4.1)."""
    posterior, condition = ExactPosterior(SCHEDULE), Condition(LABEL)
    model = ExactLabelled(SCHEDULE, variance)
    t, error = number(400.0), []
    zero = type("Zero", (), {"normal": lambda self, like: torch.zeros_like(like)})()
    for gap in (40.0, 20.0, 10.0):
        s, kernel = t - gap, Ancestral(clip="none")
        guided = bind(Unconditional(SCHEDULE, variance), condition, [ClassifierGuidance(1.0, posterior)])
        found, _ = kernel.step(guided, START, t, s, None, zero)
        plain, _ = kernel.step(Unconditional(SCHEDULE, variance).bind(condition), START, t, s, None, zero)
        right, _ = kernel.step(model.bind(condition), START, t, s, None, zero)
        error.append(float(((found - plain) / (right - plain) - 1).abs().max()))
    assert error[2] < 0.35
    assert error[0] / error[1] == pytest.approx(2, rel=0.25)
    assert error[1] / error[2] == pytest.approx(2, rel=0.25)


@pytest.mark.parametrize("kernel", [Ancestral(clip="none"), DDIM(clip="none", eta=1.0)])
def test_what_is_sampled_is_the_class_s_data(kernel: Any) -> None:
    """Both forms, on the unconditional model: each coordinate of 3 000 samples against its exact distribution."""
    schedule, count = Cosine(steps=120), 3000
    seeds = list(range(count))
    start = Draw.for_seeds(seeds, "start").normal(torch.empty(count, 1, 1, 2, dtype=torch.float64))
    guides = [ClassifierGuidance(1.0, ExactPosterior(schedule))]
    denoiser = bind(Unconditional(schedule), Condition(torch.zeros(count, dtype=torch.int64)), guides)
    *_, last = walk(kernel, denoiser, grid(schedule), start, Draw.for_seeds(seeds, "step"))
    for axis in (0, 1):
        direction = torch.zeros(1, 1, 2, dtype=torch.float64)
        direction[..., axis] = 1.0
        wanted = lambda x, along=direction: cdf(of_class(0), torch.from_numpy(np.asarray(x)), 1.0, 0.0, along)  # noqa: E731
        # 0.03 is 1.6 standard errors of the distance at 3 000 draws, and a tenth of what the other classes are away.
        assert stats.ks_1samp(last.x[..., axis].flatten().numpy(), wanted).statistic < 0.035


def test_the_gradient_is_that_of_the_log_probability() -> None:
    posterior, h = ExactPosterior(SCHEDULE), 1e-5
    t, guide = number(300.0), ClassifierGuidance(1.0, ExactPosterior(SCHEDULE))
    found = guide.gradient(START, t, Condition(LABEL))
    for axis in (0, 1):
        up, down = START.clone(), START.clone()
        up[..., axis] += h
        down[..., axis] -= h
        by = [posterior(x, t).log_softmax(1).gather(1, LABEL[:, None])[:, 0] for x in (up, down)]
        torch.testing.assert_close(found[:, 0, 0, axis], (by[0] - by[1]) / (2 * h), rtol=1e-6, atol=1e-8)


def test_by_hand() -> None:
    """One pixel, x̂_0 = 0.4 at ᾱ_t = 0.64, gradient 0.5, scale 3: ε̂ = (1 − 0.32)/0.6; the score form is ε̂ − 0.9, x̂_0 +
    0.675; the shifted mean is the posterior's + 1.5 Σ."""
    from trilemma.process import Tabulated

    schedule = Tabulated(torch.tensor([0.1, 1 - 0.64 / 0.9]))

    class Says(BoundDenoiser):
        def __call__(self, x_t: Tensor, t: Tensor) -> Prediction:
            x0 = torch.full_like(x_t, 0.4)
            return Prediction(x0, (x_t - 0.8 * x0) / 0.6, gradient=torch.full_like(x_t, 1.5))

    says = Says(ExactLabelled(schedule, "fixed_small"))
    x, t, s = torch.ones(1, 1, 1, 1, dtype=torch.float64), number(2.0), number(1.0)
    scored = DDIM(clip="none").predict(says, x, t)
    assert float(scored.eps) == pytest.approx(0.68 / 0.6 - 0.9)
    assert float(scored.x0) == pytest.approx(0.4 + 0.675)
    beta, small = 1 - 0.64 / 0.9, (1 - 0.9) / (1 - 0.64) * (1 - 0.64 / 0.9)
    mean = 0.9**0.5 * beta / 0.36 * 0.4 + (1 - beta) ** 0.5 * 0.1 / 0.36
    zero = type("Zero", (), {"normal": lambda self, like: torch.zeros_like(like)})()
    found, _ = Ancestral(clip="none").step(says, x, t, s, None, zero)
    assert float(found) == pytest.approx(mean + 1.5 * small)
    assert float(pair(schedule, t, s).beta_tilde) == pytest.approx(small)


@pytest.mark.parametrize("name", SCORE_FORM)
def test_the_guided_x0_is_held_in_range(name: str) -> None:
    """However strong the gradient is, and near the end of a cosine schedule the score form multiplies it by 1/α."""
    schedule = Cosine(steps=50)
    guides = [ClassifierGuidance(50.0, ExactPosterior(schedule))]
    denoiser = bind(Unconditional(schedule), Condition(LABEL), guides)
    kernel, t = make("sampler", name), number(49.0)
    assert float(unclipped(name).predict(denoiser, START, t).x0.abs().max()) > 1
    found = kernel.predict(denoiser, START, t)
    assert float(found.x0.abs().max()) <= 1
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    torch.testing.assert_close(alpha * found.x0 + sigma * found.eps, START)


def test_without_signal_no_gradient_is_taken() -> None:
    schedule = Linear(steps=20, beta_end=0.3, terminal_snr=0.0)
    guides = [ClassifierGuidance(1.0, ExactPosterior(schedule))]
    denoiser = bind(Unconditional(schedule), Condition(LABEL), guides)
    for kernel in (DDIM(clip="none"), Ancestral(clip="none")):
        *_, last = walk(kernel, denoiser, grid(schedule), START, Draw.for_seeds(SEEDS, "step"))
        assert bool(torch.isfinite(last.x).all())


def test_classifier_free_asks_once_for_both_halves() -> None:
    denoiser = ExactLabelled(SCHEDULE)
    guided = bind(denoiser, Condition(LABEL), [ClassifierFree(2.0, interval=(100.0, 500.0))])
    list(walk(DDIM(), guided, grid(SCHEDULE, 10), START, Draw([])))
    inside = [100 <= float(t) <= 500 for t in grid(SCHEDULE, 10)[:-1]]
    assert denoiser.asked == [12 if within else 6 for within in inside]
    assert 0 < sum(inside) < 10


@pytest.mark.parametrize("v", [0.3, 1.0, 1.2])
@pytest.mark.parametrize("count", [1, 4, None])
def test_the_last_shift_is_by_the_floored_variance(v: float, count: int | None) -> None:
    """At s = 0, where β̃ is 0, Σ lies between the β̃ of the pair before and β, as guided-diffusion has it; of one step
    alone it is β. A network's v beyond its range is no infinity."""
    schedule = Linear(steps=20, beta_end=0.3)
    times = grid(schedule, count)

    class Says(BoundDenoiser):
        def __call__(self, x_t: Tensor, t: Tensor) -> Prediction:
            one = torch.ones_like(x_t)
            return Prediction(0.5 * one, 0 * one, variance=v * one, gradient=2 * one)

    says = Says(ExactLabelled(schedule, "learned_range"))
    *_, last = walk(Ancestral(clip="none"), says, times, START, Draw.for_seeds(SEEDS, "step"))
    noisier = times[-3] if len(times) > 2 else None
    kernel = pair(schedule, times[-2], times[-1], noisier)
    high = math.log(kernel.beta)
    low = high if noisier is None else math.log(pair(schedule, noisier, times[-2]).beta_tilde)
    shift = 2 * math.exp(v * high + (1 - v) * low)
    torch.testing.assert_close(last.x, torch.full_like(START, 0.5 + shift))
