from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch
from scipy.stats import ortho_group
from sklearn.metrics.pairwise import polynomial_kernel

from trilemma.errors import InputError
from trilemma.metrics import MetricWarning, TooFewError, kid


def sets(seed: int = 0, n: int = 120, m: int = 90, dim: int = 6, shift: float = 0.3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, dim)), rng.standard_normal((m, dim)) + shift


def by_definition(real: np.ndarray, fake: np.ndarray) -> float:
    """Gretton's unbiased estimate with scikit-learn's kernel."""

    def mean_of_pairs(x: np.ndarray) -> float:
        kernel = polynomial_kernel(x, degree=3, coef0=1)  # gamma is 1/d unless given
        return (kernel.sum() - np.trace(kernel)) / (len(x) * (len(x) - 1))

    return mean_of_pairs(real) + mean_of_pairs(fake) - 2 * polynomial_kernel(real, fake, degree=3, coef0=1).mean()


def test_two_points_each_have_the_closed_form():
    # One feature, kernel (xy + 1)³: 0 and 1 against 2 and 3 give 1, 343 and (1 + 1 + 27 + 64)/4.
    found = kid(real=np.array([[0.0], [1.0]]), fake=np.array([[2.0], [3.0]]))
    assert found.full == 1 + 343 - 2 * (1 + 1 + 27 + 64) / 4
    assert (found.mean, found.std) == (found.full, 0)


@pytest.mark.parametrize("memory", [2**12, 2**16, 2**28])
def test_agrees_with_the_definition_whatever_the_tiles(memory):
    real, fake = sets()
    assert kid(real=real, fake=fake, memory=memory).full == pytest.approx(by_definition(real, fake), rel=1e-10)


def test_subsets_agree_with_the_definition():
    real, fake = sets(1)
    found = kid(real=real, fake=fake, subsets=20, subset_size=40, seed=3)
    draw = np.random.default_rng(3)
    chosen = [[draw.choice(len(x), 40, replace=False) for _ in range(20)] for x in (real, fake)]
    each = [by_definition(real[i], fake[j]) for i, j in zip(*chosen, strict=True)]
    assert (found.mean, found.std) == pytest.approx((np.mean(each), np.std(each)), rel=1e-9)


def test_subsets_of_everything_are_everything():
    found = kid(**dict(zip(("real", "fake"), sets(2, 100, 100), strict=True)), subset_size=1000, subsets=4)
    assert found.mean == pytest.approx(found.full, rel=1e-12)
    assert found.std == pytest.approx(0, abs=1e-12)


def test_it_is_unbiased_where_the_distributions_are_equal():
    found = [kid(**dict(zip(("real", "fake"), sets(s, 40, 30, shift=0), strict=True)), subsets=1) for s in range(300)]
    figures = np.array([each.full for each in found])
    assert abs(figures.mean()) < 3 * figures.std() / np.sqrt(300)
    assert figures.min() < 0 < figures.max()


def test_the_standard_error_is_the_spread_over_fresh_samples():
    rng = np.random.default_rng(5)
    real = rng.standard_normal((1000, 5))
    found = [kid(real=real, fake=rng.normal(0.3, 1, (300, 5)), subsets=30, subset_size=100) for _ in range(60)]
    spread = np.std([each.mean for each in found], ddof=1)
    assert np.mean([each.standard_error for each in found]) == pytest.approx(spread, rel=0.3)


def test_sides_order_and_orthogonal_maps_do_not_matter():
    real, fake = sets(6)
    expected = kid(real=real, fake=fake).full
    turn = ortho_group.rvs(6, random_state=0)
    for a, b in ((fake, real), (real[::-1], np.roll(fake, 7, axis=0)), (real @ turn, fake @ turn)):
        assert kid(real=a, fake=b).full == pytest.approx(expected, rel=1e-9)
    assert kid(real=real + 1, fake=fake + 1).full != pytest.approx(expected, rel=0.01)


def test_same_seed_same_figure():
    real, fake = sets(7)
    first, again, other = (kid(real=real, fake=fake, subset_size=20, seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert first.mean != other.mean
    assert first.full == other.full


def test_constant_features_warn():
    real = np.array([[0.0, 0], [1, 1]])
    with pytest.warns(MetricWarning, match="all generated images have the same features"):
        found = kid(real=real, fake=np.ones((4, 2)))
    assert found.full == 1 + 8 - (1 + 8)
    assert found.standard_error == 0


def test_copies_count_as_often_as_they_are_there():
    real, fake = sets(8)
    fake = np.repeat(fake[:20], 3, axis=0)
    assert kid(real=real, fake=fake).full == pytest.approx(by_definition(real, fake), rel=1e-10)


def test_agrees_with_torchmetrics():
    theirs = pytest.importorskip("torchmetrics.image.kid")
    real, fake = (torch.from_numpy(x) for x in sets(10, 80, 80, 16))
    expected = float(theirs.poly_mmd(real, fake))
    assert kid(real=real.numpy(), fake=fake.numpy()).mean == pytest.approx(expected, rel=1e-10)


def test_memory_stays_within_its_limit():
    real, fake = np.random.default_rng(9).standard_normal((2, 2000, 64)).astype(np.float32)
    limit = 4 * 2**20
    tracemalloc.start()
    try:
        kid(real=real, fake=fake, subsets=3, memory=limit)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1.5 * limit  # all kernel values at once would be 32 MB


def test_bad_input_is_refused():
    real, fake = sets()
    with pytest.raises(TypeError):
        kid(real, fake)
    with pytest.raises(TooFewError, match=r"kid: generated: 1 image\(s\), expected at least 2"):
        kid(real=real, fake=fake[:1])
    with pytest.raises(InputError, match="generated images have 5 features, expected 6"):
        kid(real=real, fake=fake[:, :5])
    with pytest.raises(InputError, match="0 subsets of 1000"):
        kid(real=real, fake=fake, subsets=0)
    with pytest.raises(InputError, match="100 subsets of 1 images"):
        kid(real=real, fake=fake, subset_size=1)
    fake[3, 2] = np.inf
    with pytest.raises(InputError, match="1 of 90 images have NaN"):
        kid(real=real, fake=fake)
