from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.stats import ortho_group

from trilemma.errors import InputError
from trilemma.metrics import MetricWarning, precision_recall
from trilemma.metrics.neighbours import nearest_others, tile_side


def brute_force(real: np.ndarray, fake: np.ndarray, k: int) -> tuple[float, float]:
    """Straight from the definition: a loop over images, distances by difference."""

    def share_inside(points: np.ndarray, manifold: np.ndarray) -> float:
        within = cdist(manifold, manifold)
        radii = [sorted(np.delete(row, i))[k - 1] for i, row in enumerate(within)]
        return float(
            np.mean([any(np.linalg.norm(p - m) <= r for m, r in zip(manifold, radii, strict=True)) for p in points])
        )

    return share_inside(fake, real), share_inside(real, fake)


def sets(seed: int = 0, n: int = 90, m: int = 70, dim: int = 4) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, dim)).astype(np.float32), (rng.standard_normal((m, dim)) * 0.8 + 0.7).astype(
        np.float32
    )


def pair(real: np.ndarray, fake: np.ndarray, **arguments) -> tuple[float, float]:
    found = precision_recall(real=real, fake=fake, **arguments)
    return found.precision, found.recall


def memory_for(side: int, dim: int) -> int:
    return 8 * (7 * side**2 + 3 * side * dim)


@pytest.mark.parametrize("k", [1, 3, 10])
@pytest.mark.parametrize("offset", [0, 1000])
def test_agrees_with_brute_force(k, offset):
    real, fake = sets()
    real, fake = real + np.float32(offset), fake + np.float32(offset)
    expected = brute_force(real.astype(np.float64), fake.astype(np.float64), k)
    assert 0 < min(expected) < 1
    assert pair(real, fake, k=k) == expected


@pytest.mark.parametrize("side", [5, 16, 64, 1000])
def test_tiles_do_not_matter(side):
    real, fake = sets(1)
    memory = memory_for(side, 4)
    assert abs(tile_side(4, memory) - side) <= 1
    assert pair(real, fake, memory=memory) == pair(real, fake)
    distances = cdist(real, real, "sqeuclidean")
    nearest, which = nearest_others(real, 9, centre=np.zeros(4), memory=memory)
    np.testing.assert_allclose(nearest, np.sort(distances, axis=1)[:, 1:10], rtol=1e-9)
    np.testing.assert_array_equal(which, distances.argsort(axis=1)[:, 1:10])


@pytest.mark.parametrize("side", [3, 16, 1000])
def test_ties_are_counted_whatever_the_tiles(side):
    # Every generated image is a copy of a real one, so that ties are everywhere: the border belongs to the ball.
    rng = np.random.default_rng(2)
    real = rng.standard_normal((80, 33)).astype(np.float32)
    fake = real[rng.permutation(80)[:40]]
    expected = brute_force(real.astype(np.float64), fake.astype(np.float64), 3)
    assert expected[0] == 1
    assert pair(real, fake, memory=memory_for(side, 33)) == expected


def test_a_set_covers_itself():
    real, _ = sets(3)
    assert pair(real, real.copy()) == (1, 1)


def test_far_sets_share_nothing():
    real, fake = sets(4)
    assert pair(real, fake + 100) == (0, 0)


def test_a_collapsed_set_is_precise_and_covers_little():
    rng = np.random.default_rng(5)
    real = rng.standard_normal((1000, 8))
    collapsed = real[0] + 1e-3 * rng.standard_normal((500, 8))
    precision, recall = pair(real, collapsed)
    assert precision == 1
    assert recall <= 0.002


def test_a_missing_half_shows_in_recall_alone():
    rng = np.random.default_rng(6)
    left, right = rng.standard_normal((2, 500, 3)) + np.array([-50, 50])[:, None, None]
    precision, recall = pair(np.concatenate([left, right]), left[:250] * 1.0)
    assert precision == 1
    assert 0.4 < recall <= 0.5


def test_swapping_the_sides_swaps_the_figures():
    real, fake = sets(7)
    assert pair(real, fake) == pair(fake, real)[::-1]


def test_order_orthogonal_maps_shift_and_scale_do_not_matter():
    real, fake = (x.astype(np.float64) for x in sets(8))
    expected = pair(real, fake)
    turn = 7 * ortho_group.rvs(4, random_state=0)
    assert pair(real[::-1], np.roll(fake, 13, axis=0)) == expected
    assert pair(real @ turn + 5, fake @ turn + 5) == expected


def test_copies_warn():
    real, fake = sets(9)
    with pytest.warns(MetricWarning, match="70 of 70 generated images have 3 or more exact copies"):
        assert pair(real, np.repeat(real[:1], 70, axis=0)) == (1, 1 / 90)
    # Three of a kind have two copies each, and so a neighbourhood.
    tripled = np.repeat(fake, 3, axis=0)
    assert pair(real, tripled)[0] == pair(real, fake)[0]


def test_constant_features_are_all_or_nothing():
    ones = np.ones((10, 3), np.float32) / 3
    with pytest.warns(MetricWarning, match="exact copies"):
        assert pair(ones, ones) == (1, 1)
    with pytest.warns(MetricWarning, match="exact copies"):
        assert pair(ones, 2 * ones) == (0, 0)


def test_agrees_with_prdc():
    prdc = pytest.importorskip("prdc")
    real, fake = (x.astype(np.float64) for x in sets(11, 300, 200, 10))
    expected = prdc.compute_prdc(real_features=real, fake_features=fake, nearest_k=5)
    assert pair(real, fake, k=5) == (expected["precision"], expected["recall"])


@pytest.mark.parametrize(("count", "spread"), [(3000, 1), (1000, 0.01)])
def test_memory_stays_within_its_limit(count, spread):
    # Collapsed to a point, every generated image lies in every ball.
    real, fake = np.random.default_rng(10).standard_normal((2, count, 64)).astype(np.float32)
    limit, an_image = 8 * count**2 // 9, 1500  # a ninth of all distances at once
    tracemalloc.start()
    try:
        precision_recall(real=real, fake=spread * fake, memory=limit)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < limit + an_image * 2 * count


def test_bad_input_is_refused():
    real, fake = sets()
    with pytest.raises(TypeError):
        precision_recall(real, fake)
    with pytest.raises(InputError, match="k is 0"):
        precision_recall(real=real, fake=fake, k=0)
    with pytest.raises(InputError, match=r"generated: 1 image\(s\), expected at least 4 for k = 3"):
        precision_recall(real=real, fake=fake[:1])
    with pytest.raises(InputError, match="real: 3 image"):
        precision_recall(real=real[:3], fake=fake)
    with pytest.raises(InputError, match="generated images have 3 features, expected 4"):
        precision_recall(real=real, fake=fake[:, :3])
    fake[5, 1] = np.nan
    with pytest.raises(InputError, match="1 of 70 images have NaN"):
        precision_recall(real=real, fake=fake)
