from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.stats import ortho_group

from trilemma.errors import InputError
from trilemma.metrics import MetricWarning, TooFewError, density_coverage


def brute_force(real: np.ndarray, fake: np.ndarray, k: int) -> tuple[float, float]:
    radii = [sorted(np.delete(row, i))[k - 1] for i, row in enumerate(cdist(real, real))]
    within = [[np.linalg.norm(x - y) <= radius for y in fake] for x, radius in zip(real, radii, strict=True)]
    return float(np.sum(within) / (k * len(fake))), float(np.any(within, axis=1).mean())


def sets(seed: int = 0, n: int = 90, m: int = 70, dim: int = 4) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, dim)), 0.8 * rng.standard_normal((m, dim)) + 0.7


def pair(real: np.ndarray, fake: np.ndarray, **arguments) -> tuple[float, float]:
    found = density_coverage(real=real, fake=fake, **arguments)
    return found.density, found.coverage


@pytest.mark.parametrize("k", [1, 5, 10])
@pytest.mark.parametrize("memory", [2**10, 2**28])
def test_agrees_with_brute_force(k, memory):
    real, fake = sets()
    expected = brute_force(real, fake, k)
    assert 0 < expected[1] < 1
    assert pair(real, fake, k=k, memory=memory) == expected


@pytest.mark.parametrize(("n", "m", "k"), [(40, 40, 5), (60, 20, 2)])
def test_equal_distributions_have_the_expected_figures(n, m, k):
    rng = np.random.default_rng(1)
    found = np.array([pair(*(rng.standard_normal((size, 3)) for size in (n, m)), k=k) for _ in range(400)])
    i = np.arange(1, k + 1)
    expected = [1, 1 - np.prod((n - i) / (n + m - i))]
    assert (np.abs(found.mean(axis=0) - expected) < 3.5 * found.std(axis=0) / 20).all()


def test_a_set_in_itself_covers_all():
    real, _ = sets(2)
    density, coverage = pair(real, real.copy())
    # Every image lies in its own ball and, on the mean, in those of five others.
    assert (density, coverage) == (pytest.approx(6 / 5), 1)


def test_far_sets_share_nothing():
    real, fake = sets(3)
    assert pair(real, fake + 100) == (0, 0)


def test_a_collapsed_set_covers_little():
    rng = np.random.default_rng(4)
    real = rng.standard_normal((1000, 8))
    density, coverage = pair(real, real[0] + 1e-6 * rng.standard_normal((500, 8)))
    assert coverage < 0.03
    assert density > 0.2


def test_an_outlier_widens_recall_but_not_coverage():
    real, fake = sets(5, 200, 50, 2)
    fake[:6] = 30 * np.eye(2)[np.arange(6) % 2] + 0.1 * np.arange(6)[:, None]
    covered = pair(real, fake)[1]
    assert covered == pair(real, fake[6:])[1]


def test_the_sides_differ():
    real, fake = sets(6)
    assert pair(real, fake) != pair(fake, real)


def test_order_orthogonal_maps_shift_and_scale_do_not_matter():
    real, fake = sets(7)
    turn = 7 * ortho_group.rvs(4, random_state=0)
    assert pair(real[::-1], np.roll(fake, 13, axis=0)) == pair(real, fake)
    assert pair(real @ turn + 5, fake @ turn + 5) == pair(real, fake)


def test_copies_and_constant_features_warn():
    ones = np.ones((10, 3))
    with pytest.warns(MetricWarning, match="10 of 10 real images have 5 or more exact copies"):
        assert pair(ones, ones) == (2, 1)
    with pytest.warns(MetricWarning, match="exact copies"):
        assert pair(ones, 2 * ones) == (0, 0)


def test_agrees_with_prdc():
    prdc = pytest.importorskip("prdc")
    real, fake = sets(8, 300, 200, 10)
    expected = prdc.compute_prdc(real_features=real, fake_features=fake, nearest_k=5)
    assert pair(real, fake) == pytest.approx((expected["density"], expected["coverage"]), rel=1e-12)


def test_bad_input_is_refused():
    real, fake = sets()
    with pytest.raises(TypeError):
        density_coverage(real, fake)
    with pytest.raises(InputError, match="k is 0"):
        density_coverage(real=real, fake=fake, k=0)
    with pytest.raises(TooFewError, match=r"generated: 1 image\(s\), expected at least 6 for k = 5"):
        density_coverage(real=real, fake=fake[:1])
    with pytest.raises(InputError, match="3 features, expected 4"):
        density_coverage(real=real, fake=fake[:, :3])
    fake[5, 1] = np.nan
    with pytest.raises(InputError, match="1 of 70 images have NaN"):
        density_coverage(real=real, fake=fake)
