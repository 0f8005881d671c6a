"""Time samplers: importance sampling is unbiased and lowers the variance of L_vlb, low discrepancy covers, the
log-normal has its quantiles."""

from __future__ import annotations

import math
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.exact import Mixture
from tests.proofs.models import Exact
from trilemma.objectives import Simple, Variational
from trilemma.process import EDM, TIME_SAMPLERS, UNCONDITIONAL, ContinuousVP, Cosine, Draw, Importance, Linear, Times

STEPS = 200


class Shared:
    """In place of one stream an image, one generator for all of them: much faster, and as random."""

    def __init__(self, count: int, seed: int = 0):
        # A seed of its own, away from those that data are drawn with: equal ones would tie times to images.
        self.count, self.generator = count, torch.Generator().manual_seed(1_000_000 + seed)

    def uniform(self) -> Tensor:
        return torch.rand(self.count, generator=self.generator, dtype=torch.float64)

    def normal(self, like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=self.generator, dtype=torch.float64)


class Given:
    """Uniform numbers known in advance, one set a call."""

    def __init__(self, *numbers: Tensor):
        self.numbers = list(numbers)

    def uniform(self) -> Tensor:
        return self.numbers.pop(0)


def fed(losses: Tensor, **options: Any) -> Importance:
    """A sampler that has seen the loss of every t as often as it asks for."""
    sampler = Importance(Linear(steps=len(losses)), **options)
    t = torch.arange(1, len(losses) + 1, dtype=torch.float64)
    for _ in range(sampler.losses.shape[1]):
        sampler.observe(t, losses)
    return sampler


def test_probabilities_are_the_roots_of_mean_squares() -> None:
    """p_t ∝ √E[L_t²] over the last ten losses of each t, with a thousandth of the uniform mixed in (A eq. 8)."""
    sampler = Importance(Linear(steps=4))
    history = torch.from_numpy(np.random.default_rng(0).uniform(0, 3, (25, 4)))
    t = torch.arange(1, 5, dtype=torch.float64)
    for row in history:
        sampler.observe(t.flip(0), row.flip(0))
    expected = history[-10:].square().mean(0).sqrt()
    expected = 0.999 * expected / expected.sum() + 0.001 / 4
    torch.testing.assert_close(sampler.probabilities(), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("bins", [1, 5, 20])
def test_uniform_until_every_bin_has_ten(bins: int) -> None:
    sampler = Importance(Linear(steps=20), bins=bins)
    count = 20 // bins
    t = torch.arange(1, 21, dtype=torch.float64)
    first_of_bins = t[::bins]
    loss = torch.linspace(1, 9, count)
    for seen in range(10):
        assert torch.equal(sampler.probabilities(), torch.full((count,), 1 / count, dtype=torch.float64)), seen
        drawn = sampler.sample(cast(Draw, Shared(1000)))
        assert torch.equal(drawn.weight, torch.ones(1000, dtype=torch.float64))
        if seen < 9:
            sampler.observe(first_of_bins, loss)
    if count > 1:
        # All but one have their ten: still uniform; the last one's tenth ends it.
        sampler.observe(first_of_bins[1:], loss[1:])
        assert len(set(sampler.probabilities().tolist())) == 1
        sampler.observe(first_of_bins[:1], loss[:1])
        assert len(set(sampler.probabilities().tolist())) == count
    assert float(sampler.probabilities().sum()) == pytest.approx(1.0, abs=1e-12)


def test_more_than_ten_of_one_time_does_not_stand_in_for_others() -> None:
    sampler = Importance(Linear(steps=3))
    sampler.observe(torch.full((100,), 2.0), torch.linspace(0, 1, 100))
    assert len(set(sampler.probabilities().tolist())) == 1


@pytest.mark.parametrize("bins", [1, 4])
def test_times_are_drawn_with_their_probabilities_and_weighted_by_their_inverse(bins: int) -> None:
    """Over one number in each of many equal shares of [0, 1), times come as often as p says, and Σ w f(t) is the mean
    of f over 1…T, whatever f, to what the shares' width leaves."""
    losses = torch.linspace(0.1, 4, 40, dtype=torch.float64).square()
    sampler, many = fed(losses, bins=bins), 200_000
    u = (torch.arange(many, dtype=torch.float64) + 0.5) / many
    within = (torch.arange(many, dtype=torch.float64) * 0.6180339887498949) % 1.0
    times = sampler.sample(cast(Draw, Given(u, within)))
    p = sampler.probabilities()
    assert int(times.t.min()) == 1
    assert int(times.t.max()) == 40
    bin_of = ((times.t - 1) // bins).long()
    found = torch.bincount(bin_of, minlength=len(p)) / many
    torch.testing.assert_close(found.double(), p, rtol=0, atol=2 / many)
    torch.testing.assert_close(times.weight, 1 / (len(p) * p[bin_of]), rtol=1e-12, atol=0)
    f = torch.sin(torch.arange(41, dtype=torch.float64) ** 2)
    assert float((times.weight * f[times.t.long()]).mean()) == pytest.approx(float(f[1:].mean()), abs=2e-3)


def test_the_weighted_mean_is_unbiased() -> None:
    """Σ_t p_t w_t f(t) = mean f exactly, and a draw of many lies within three standard errors."""
    losses = torch.linspace(0.1, 4, 40, dtype=torch.float64).square()
    sampler, f = fed(losses), torch.cos(torch.arange(1, 41, dtype=torch.float64))
    p = sampler.probabilities()
    assert float((p * f / (40 * p)).sum()) == pytest.approx(float(f.mean()), abs=1e-12)
    times = sampler.sample(cast(Draw, Shared(50_000, seed=1)))
    values = times.weight * f[times.t.long() - 1]
    assert abs(float(values.mean() - f.mean())) < 3 * float(values.std()) / math.sqrt(50_000)


IMAGES = Mixture.random(3, (1, 8, 8), seed=4)


def vlb(sampler: Any, denoiser: Exact, rounds: int, seed: int, learn: bool = False) -> Tensor:
    """Weighted L_vlb in bits/dim of many images, times from the sampler, which may be told of the losses."""
    found = []
    for k in range(rounds):
        draw = cast(Any, Shared(1000, seed=seed + k))
        times = sampler.sample(draw)
        total = Variational()(denoiser, IMAGES.sample(1000, seed=seed + k), UNCONDITIONAL, times, draw).total
        if learn:
            sampler.observe(times.t, total)
        found.append(times.weight * total)
    return torch.cat(found)


@pytest.mark.parametrize("make", [Linear, Cosine])
@pytest.mark.parametrize("error", [0.0, -0.02])
def test_importance_lowers_the_variance_of_the_bound(make: Any, error: float) -> None:
    """On images of a mixture, with the exact denoiser and one that is 2 % off: the same mean as with uniform times, a
    lower variance. The histories are learnt from uniform times first, as in training."""
    schedule = make(steps=STEPS, **({"beta_start": 5e-4, "beta_end": 0.1} if make is Linear else {}))
    denoiser = Exact(IMAGES, schedule, "fixed_large", error=error)
    importance = Importance(schedule)
    vlb(importance, denoiser, 6, seed=100, learn=True)
    assert (importance.counts >= 10).all()
    assert len(set(importance.probabilities().tolist())) == STEPS
    uniform = vlb(TIME_SAMPLERS["uniform"](schedule), denoiser, 10, seed=200)
    found = vlb(importance, denoiser, 10, seed=300)
    ratio = float(found.var() / uniform.var())
    print(
        f"{make.__name__}, x̂_0 off by {error:.0%}: L_vlb {float(uniform.mean()):.4f} with uniform times, "
        f"{float(found.mean()):.4f} with importance; variance × {ratio:.4f}"
    )
    standard_error = math.sqrt(float(uniform.var()) / len(uniform) + float(found.var()) / len(found))
    assert abs(float(uniform.mean() - found.mean())) < 3 * standard_error
    assert ratio < 0.1


def test_the_mean_over_times_is_the_sum_of_the_chains_terms() -> None:
    """Under importance sampling E[w L] is Σ_t L_t, here summed term by term over all t with other noise."""
    schedule = Cosine(steps=STEPS)
    denoiser, importance = Exact(IMAGES, schedule, "fixed_large"), Importance(schedule)
    vlb(importance, denoiser, 6, seed=100, learn=True)
    found = vlb(importance, denoiser, 10, seed=300)
    every = torch.arange(1, STEPS + 1, dtype=torch.float64).repeat(40)
    objective, draw = Variational(), cast(Any, Shared(len(every), seed=7))
    x0 = IMAGES.sample(len(every), seed=8)
    times = Times(every, torch.ones_like(every))
    # One mean over t a replicate, so that the spread is that of the terms and not that of t.
    totals = objective(denoiser, x0, UNCONDITIONAL, times, draw).total.reshape(40, STEPS).mean(1)
    standard_error = math.sqrt(float(totals.var()) / 40 + float(found.var()) / len(found))
    assert abs(float(totals.mean() - found.mean())) < 3 * standard_error


def test_importance_is_unbiased_for_the_simple_loss_too() -> None:
    """A uses it for L_simple as well (table 4.4): same mean within three standard errors."""
    schedule = Cosine(steps=50)
    denoiser, sampler = Exact(IMAGES, schedule), Importance(schedule, bins=5)
    means = []
    for learn in (True, False):
        values = []
        for k in range(4):
            draw = cast(Any, Shared(2000, seed=10 * k + learn))
            times = sampler.sample(draw)
            loss = Simple()(denoiser, IMAGES.sample(2000, seed=k), UNCONDITIONAL, times, draw).total
            if learn:
                sampler.observe(times.t, loss)
            values.append(times.weight * loss)
        means.append((torch.cat(values).mean(), torch.cat(values).var() / 8000))
    # The second round's times are no longer uniform.
    assert sampler.probabilities().max() > 1.5 * sampler.probabilities().min()
    (a, va), (b, vb) = means
    assert abs(float(a - b)) < 3 * math.sqrt(float(va + vb))


@pytest.mark.parametrize("seen", [0, 3, 25])
def test_state_goes_round(seen: int) -> None:
    """A sampler that takes up another's state draws and learns as it would have; later losses don't reach back into a
    state already given."""
    schedule, rng = Linear(steps=12), np.random.default_rng(seen)
    one, other = Importance(schedule, bins=3), Importance(schedule, bins=3)
    t = torch.arange(1, 13, dtype=torch.float64)
    for _ in range(seen):
        one.observe(t, torch.from_numpy(rng.uniform(0, 1, 12)))
    other.load_state_dict(one.state_dict())
    more = torch.from_numpy(rng.uniform(0, 5, (30, 12)))
    for row in more:
        assert torch.equal(one.probabilities(), other.probabilities())
        one.observe(t, row)
        assert not torch.equal(one.counts, other.counts)
        other.observe(t, row)
    ours, theirs = (each.sample(cast(Draw, Shared(64, seed=2))) for each in (one, other))
    assert torch.equal(ours.t, theirs.t)
    assert torch.equal(ours.weight, theirs.weight)


@pytest.mark.parametrize("batch", [16, 64, 250])
@pytest.mark.parametrize("step", [0, 1, 17])
def test_low_discrepancy_covers(batch: int, step: int) -> None:
    """A step's images lie at most 1.9/n apart and at least 0.38/n (the golden ratio's multiples), so every stretch of
    2/n of the schedule has one; a batch of uniform times leaves gaps several times as wide."""
    schedule = ContinuousVP()
    sampler = TIME_SAMPLERS["low_discrepancy"](schedule)
    first = step * batch
    draw = Draw([(0, step, index) for index in range(first, first + batch)])
    t = sampler.sample(draw).t.sort().values
    gaps = torch.cat([t.diff(), (t[:1] + 1 - t[-1:])])
    assert t[0] > 0
    assert t[-1] <= 1
    assert float(gaps.max()) * batch < 1.9
    assert float(gaps.min()) * batch > 0.38
    uniform = TIME_SAMPLERS["uniform"](schedule).sample(draw).t.sort().values
    assert float(uniform.diff().max()) > float(gaps.max())


def test_low_discrepancy_visits_a_whole_table() -> None:
    """Twice as many images as times: every time comes, none more than four times; and each image's time is uniform over
    the steps of training."""
    schedule = Linear(steps=50)
    sampler = TIME_SAMPLERS["low_discrepancy"](schedule)
    t = sampler.sample(Draw([(0, 3, index) for index in range(100)])).t
    counts = torch.bincount(t.long(), minlength=51)[1:]
    assert counts.min() >= 1
    assert counts.max() <= 4
    same_image = torch.cat([sampler.sample(Draw([(0, step, 7)])).t for step in range(2000)])
    expected, found = 2000 / 50, torch.bincount(same_image.long(), minlength=51)[1:].double()
    # χ² with 49 degrees of freedom stays below 86 but for one time in a thousand.
    assert float(((found - expected) ** 2 / expected).sum()) < 86


@pytest.mark.parametrize("schedule", [ContinuousVP(), EDM(), Cosine(steps=1000)])
def test_log_normal_times_have_its_quantiles(schedule: Any) -> None:
    """log σ/α at the q-th quantile of the draws is −1.2 + 1.2 z_q, where the schedule reaches; on a table to the next
    time."""
    u = torch.tensor([0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98], dtype=torch.float64)
    z = torch.tensor([-2.053749, -1.281552, -0.674490, 0.0, 0.674490, 1.281552, 2.053749], dtype=torch.float64)
    times = TIME_SAMPLERS["lognormal"](schedule).sample(cast(Draw, Given(u)))
    assert torch.equal(times.weight, torch.ones_like(u))
    if schedule.steps is None:
        torch.testing.assert_close(schedule.gamma(times.t) / 2, -1.2 + 1.2 * z, rtol=0, atol=1e-5)
    else:
        assert torch.equal(times.t, times.t.round())
        exact = schedule.time_of(2 * (-1.2 + 1.2 * z))
        assert ((times.t - exact).abs() <= 0.5).all()


def test_log_normal_times_stay_in_the_schedule() -> None:
    u = torch.tensor([0.0, 1e-9, 1 - 1e-9, np.nextafter(1.0, 0.0)], dtype=torch.float64)
    for schedule in (ContinuousVP(), EDM(), Cosine(steps=1000), Linear(steps=1000)):
        for mean in (-1.2, -40.0, 40.0):
            t = cast(Any, TIME_SAMPLERS["lognormal"])(schedule, mean=mean).sample(cast(Draw, Given(u))).t
            # The continuous one may come closer to clean data than solvers do, but not to it.
            assert float(t.min()) >= (0 if isinstance(schedule, ContinuousVP) else schedule.t_min - 1e-12)
            assert float(t.min()) > 0
            assert float(t.max()) <= schedule.T
            assert torch.isfinite(schedule.gamma(t)).all()
