from __future__ import annotations

import numpy as np
import pytest

from trilemma.errors import InputError
from trilemma.metrics import (
    MetricWarning,
    Statistics,
    TooFewError,
    frechet_by_count,
    frechet_distance,
    frechet_infinity,
    frechet_standard_error,
)

DIM = 10
SCALES = np.linspace(0.5, 2, DIM)
REAL = Statistics(np.zeros(DIM), np.diag(SCALES**2))
SHIFT, SPREAD = 0.2, 1.2
TRUTH = DIM * SHIFT**2 + np.sum((SCALES * (SPREAD - 1)) ** 2)


def drawn(seed: int, count: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(SHIFT, SPREAD * SCALES, (count, DIM))


def test_infinitely_many_images_leave_no_bias():
    found = [frechet_infinity(real=REAL, fake=drawn(seed, 400)) for seed in range(60)]
    figures = np.array([each.distance for each in found])
    plain = np.array([each.points[0][1] for each in found])
    noise = figures.std() / np.sqrt(60)
    assert abs(figures.mean() - TRUTH) < 3 * noise
    assert plain.mean() - TRUTH > 5 * noise
    assert np.mean([each.standard_error for each in found]) == pytest.approx(figures.std(), rel=0.3)


def test_the_line_goes_through_the_distances_at_each_count():
    fake = drawn(0, 240)
    found = frechet_infinity(real=REAL, fake=fake, parts=3, seed=5)
    shuffled = fake[np.random.default_rng(5).permutation(240)]
    heights = [
        np.mean([frechet_distance(real=REAL, fake=Statistics.of(part)) for part in np.split(shuffled, pieces)])
        for pieces in (1, 2, 3)
    ]
    assert [y for _, y in found.points] == pytest.approx(heights, rel=1e-12)
    assert [1 / x for x, _ in found.points] == pytest.approx([240, 120, 80])
    assert found.distance == pytest.approx(np.polyfit([1 / 240, 2 / 240, 3 / 240], heights, 1)[1], rel=1e-9)
    assert found.standard_error > frechet_standard_error(real=REAL, fake=fake)


def test_order_matters_no_more_than_the_error_says():
    fake = drawn(2, 400)
    found, turned = (frechet_infinity(real=REAL, fake=x) for x in (fake, fake[np.argsort(fake[:, 0])]))
    assert turned.distance == pytest.approx(found.distance, abs=found.standard_error)
    assert found == frechet_infinity(real=REAL, fake=fake)


def test_distances_by_count_are_those_of_the_first_so_many():
    fake = drawn(3, 5000)
    found = frechet_by_count(real=REAL, fake=fake, counts=[5000, 50, 4500, 50], seed=7)
    shuffled = fake[np.random.default_rng(7).permutation(5000)]
    for (count, distance), expected in zip(found, (50, 4500, 5000), strict=True):
        assert count == expected
        fitted = Statistics.of(shuffled[:count])
        assert distance == pytest.approx(frechet_distance(real=REAL, fake=fitted), rel=1e-9)
    assert found[0][1] > found[1][1]  # the bias of few images


def test_few_images_warn_by_their_count():
    with pytest.warns(MetricWarning, match="frechet_by_count: 10 generated images for 10 features"):
        frechet_by_count(real=REAL, fake=drawn(4, 30), counts=[10, 30])


def test_bad_input_is_refused():
    fake = drawn(5, 44)
    for measure in (frechet_infinity, frechet_by_count):
        with pytest.raises(TypeError):
            measure(REAL, fake)
    assert frechet_infinity(real=REAL, fake=fake).points
    with pytest.raises(TooFewError, match=r"43 image\(s\), expected at least 44 for 10 features"):
        frechet_infinity(real=REAL, fake=fake[:43])
    with pytest.raises(InputError, match="parts is 2"):
        frechet_infinity(real=REAL, fake=fake, parts=2)
    with pytest.raises(InputError, match="9 features an image in fake, expected 10"):
        frechet_infinity(real=REAL, fake=fake[:, :9])
    for counts in ([], [1, 20], [20, 45]):
        with pytest.raises(InputError, match="expected some from 2 to 44"):
            frechet_by_count(real=REAL, fake=fake, counts=counts)
    fake[0, 0] = np.nan
    with pytest.raises(InputError, match="1 of 44 images have NaN"):
        frechet_infinity(real=REAL, fake=fake)
    with pytest.raises(InputError, match="1 of 44 images have NaN"):
        frechet_by_count(real=REAL, fake=fake, counts=[10])
