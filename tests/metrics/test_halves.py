"""Standard errors by halves: against their definition, and against the spread over fresh draws of both sets."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from scipy.stats import ortho_group

from trilemma.metrics import MetricWarning, density_coverage, precision_recall
from trilemma.metrics.halves import SPLITS, mean_by_halves, random_halves
from trilemma.metrics.overlap import overlap

Draw = Callable[[np.random.Generator, int, int], tuple[np.ndarray, np.ndarray]]


def test_halves_are_halves():
    for count in (2, 7, 40):
        halves = random_halves(count, np.random.default_rng(0))
        assert halves.shape == (1 + SPLITS, count)
        assert not halves[0].any()
        assert (halves[1:].sum(axis=1) == count // 2).all()
    assert len(np.unique(halves, axis=0)) == 1 + SPLITS
    np.testing.assert_array_equal(halves, random_halves(40, np.random.default_rng(0)))


def test_independent_images_have_the_error_of_a_mean():
    rng = np.random.default_rng(1)
    values = np.broadcast_to(rng.exponential(size=300), (1 + SPLITS, 300))
    found = [mean_by_halves(values, random_halves(300, rng)).standard_error for _ in range(40)]
    assert np.mean(found) == pytest.approx(values[0].std() / np.sqrt(300), rel=0.05)
    assert mean_by_halves(values, random_halves(300, rng)).value == values[0].mean()


def test_the_error_is_never_below_one_images_part():
    halves = random_halves(50, np.random.default_rng(2))
    for value in (False, True):
        found = mean_by_halves(np.full(halves.shape, value), halves)
        assert (found.value, found.standard_error) == (value, 1 / 50)
    hits = np.zeros(halves.shape, bool)
    hits[0, :10] = True  # among all, and in no half: as if they were independent
    assert mean_by_halves(hits, halves).standard_error == pytest.approx(np.sqrt(0.2 * 0.8 / 50))


def test_without_splits_there_is_no_error():
    found = mean_by_halves(np.ones((1, 9)), np.zeros((1, 9), bool))
    assert found.value == 1
    assert np.isnan(found.standard_error)


def balls_of(centres: np.ndarray, points: np.ndarray, k: int) -> np.ndarray:
    """[n, m]: whether each point is in each ball, from the definition."""
    return cdist(centres, points) <= np.sort(cdist(centres, centres), axis=1)[:, k, None]


def figures(real: np.ndarray, fake: np.ndarray) -> list[float]:
    """Precision, recall, density and coverage for k of 3 and 5."""
    wide = balls_of(real, fake, 5)
    shares = balls_of(real, fake, 3).any(axis=0).mean(), balls_of(fake, real, 3).any(axis=0).mean()
    return [*shares, wide.sum(axis=0).mean() / 5, wide.any(axis=1).mean()]


@pytest.mark.parametrize(("n", "m", "memory"), [(21, 19, 2**28), (15, 21, 2**28), (60, 45, 2**28), (60, 45, 2**14)])
def test_a_half_is_measured_as_if_there_were_no_other(n, m, memory):
    rng = np.random.default_rng(3)
    real, fake, k = rng.standard_normal((n, 3)), 0.8 * rng.standard_normal((m, 3)) + 0.5, 3
    draw = np.random.default_rng(0)
    in_real, in_fake = random_halves(n, draw), random_halves(m, draw)
    inside, reached = np.zeros(in_fake.shape, int), np.zeros(in_real.shape, bool)
    covered = np.zeros(in_real.shape, bool)
    for split in range(1 + SPLITS):
        for half in (False, True) if split else (False,):
            mine, theirs = in_real[split] == half, in_fake[split] == half
            within = balls_of(real[mine], fake[theirs], k)
            inside[split, theirs], reached[split, mine] = within.sum(axis=0), within.any(axis=1)
            covered[split, mine] = balls_of(fake[theirs], real[mine], k).any(axis=0)
    found = overlap(real=real, fake=fake, real_ks=[k], fake_ks=[k], memory=memory)
    assert found.fake_in_real[k].inside == mean_by_halves(inside > 0, in_fake)
    assert found.fake_in_real[k].balls == mean_by_halves(inside, in_fake)
    assert found.fake_in_real[k].reached == mean_by_halves(reached, in_real)
    assert found.real_in_fake[k].inside == mean_by_halves(covered, in_real)
    ours = precision_recall(real=real, fake=fake, k=k, memory=memory)
    assert ours.precision_se == found.fake_in_real[k].inside.standard_error
    assert ours.recall_se == found.real_in_fake[k].inside.standard_error
    ours = density_coverage(real=real, fake=fake, k=k, memory=memory)
    assert ours.density_se == found.fake_in_real[k].balls.standard_error / k
    assert ours.coverage_se == found.fake_in_real[k].reached.standard_error


def equal(rng: np.random.Generator, count: int, dim: int) -> tuple[np.ndarray, np.ndarray]:
    return rng.standard_normal((count, dim)), rng.standard_normal((count, dim))


def shifted(rng: np.random.Generator, count: int, dim: int) -> tuple[np.ndarray, np.ndarray]:
    real, fake = equal(rng, count, dim)
    return real, fake + 2 / np.sqrt(dim)


def narrow(rng: np.random.Generator, count: int, dim: int) -> tuple[np.ndarray, np.ndarray]:
    real, fake = equal(rng, count, dim)
    return real, 0.8 * fake


def classes(rng: np.random.Generator, count: int, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Ten classes of unlike spread. Of the generated images some classes are rare, and one is missing."""
    centres = 2 * np.random.default_rng(0).standard_normal((10, dim))
    shares = np.ones(10), np.array([2, 1, 1, 1, 1, 1, 1, 0.5, 0.2, 0])
    drawn = [rng.choice(10, count, p=p / p.sum()) for p in shares]
    real, fake = (centres[c] + np.linspace(0.3, 1.2, 10)[c, None] * rng.standard_normal((count, dim)) for c in drawn)
    return real, fake


def spread_and_errors(scene: Draw, count: int, dim: int, draws: int, tried: int) -> tuple[np.ndarray, np.ndarray]:
    """The spread of the four figures over fresh draws of both sets, and the mean of the errors of some of them."""
    rng = np.random.default_rng(4)
    drawn = [scene(rng, count, dim) for _ in range(draws)]
    found = [(precision_recall(real=x, fake=y), density_coverage(real=x, fake=y)) for x, y in drawn[:tried]]
    each = [(a.precision_se, a.recall_se, b.density_se, b.coverage_se) for a, b in found]
    return np.std([figures(*pair) for pair in drawn], axis=0, ddof=1), np.mean(each, axis=0)


@pytest.mark.parametrize("scene", [equal, shifted, narrow, classes])
def test_errors_are_the_spread_over_fresh_draws_of_both_sets(scene):
    spread, errors = spread_and_errors(scene, count=150, dim=8, draws=250, tried=15)
    np.testing.assert_allclose(errors, spread, rtol=0.3)


@pytest.mark.slow
@pytest.mark.parametrize(("scene", "dim"), [(equal, 128), (narrow, 16), (classes, 64)])
def test_errors_are_the_spread_over_fresh_draws_of_larger_sets(scene, dim):
    spread, errors = spread_and_errors(scene, count=1000, dim=dim, draws=120, tried=10)
    np.testing.assert_allclose(errors, spread, rtol=0.25)


def test_the_error_of_a_share_of_points_is_more_than_binomial():
    # The manifold is drawn too: at a shift, recall's spread is twice that of as many independent images.
    spread, errors = spread_and_errors(shifted, count=150, dim=8, draws=100, tried=15)
    rng = np.random.default_rng(4)
    recall = np.mean([figures(*shifted(rng, 150, 8))[1] for _ in range(15)])
    binomial = np.sqrt(recall * (1 - recall) / 150)
    assert min(spread[1], errors[1]) > 1.5 * binomial


@settings(max_examples=25)
@given(seed=st.integers(0, 1000), dim=st.integers(1, 6), n=st.integers(12, 40), m=st.integers(12, 40))
def test_maps_that_keep_neighbours_keep_errors(seed, dim, n, m):
    rng = np.random.default_rng(seed)
    real, fake = rng.standard_normal((n, dim)), rng.standard_normal((m, dim)) + rng.uniform(0, 2)
    turn = 3 * (ortho_group.rvs(dim, random_state=seed) if dim > 1 else -np.eye(1))
    for measure in (precision_recall, density_coverage):
        first, *more = (vars(measure(real=x, fake=y)) for x, y in ((real, fake), (real @ turn + 5, fake @ turn + 5)))
        assert more == [pytest.approx(first, rel=1e-9)]
    shares = precision_recall(real=real, fake=fake)
    assert shares.precision_se >= 1 / m
    assert shares.recall_se >= 1 / n


@pytest.mark.parametrize("count", [4, 7, 8, 11, 12])
def test_too_few_images_have_no_errors_and_are_told(count):
    rng = np.random.default_rng(5)
    sides = rng.standard_normal((40, 3)), rng.standard_normal((count, 3))
    for real, fake in (sides, sides[::-1]):
        for k, measure in ((3, precision_recall), (5, density_coverage)):
            if count <= k:
                continue
            with warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("always", MetricWarning)
                found = vars(measure(real=real, fake=fake))
            few = count < 2 * (k + 1)
            known = {name for name, value in found.items() if np.isfinite(value)}
            assert known == {name for name in found if not (few and name.endswith("_se"))}
            assert [f"no standard error for k = {k}" in str(w.message) for w in told] == [True] * few
