from __future__ import annotations

import warnings

import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import entropy

from trilemma.errors import InputError
from trilemma.metrics import MetricWarning, TooFewError, inception_score


def logits(seed: int = 0, n: int = 600, k: int = 7, scale: float = 3) -> np.ndarray:
    return (scale * np.random.default_rng(seed).standard_normal((n, k))).astype(np.float32)


def by_definition(values: np.ndarray) -> float:
    shares = softmax(values.astype(np.float64), axis=1)
    return float(np.exp(np.mean([entropy(row, shares.mean(axis=0)) for row in shares])))


def certain(classes: np.ndarray, k: int) -> np.ndarray:
    return 1000.0 * np.eye(k)[classes]


def test_images_that_are_all_alike_score_one():
    found = inception_score(fake=np.tile(logits(n=1), (200, 1)))
    assert found.mean == pytest.approx(1, abs=1e-12)
    assert found.std == pytest.approx(0, abs=1e-12)


def test_certain_and_even_answers_score_the_number_of_classes():
    # Just below: a shuffled part does not hold each class equally often.
    every = certain(np.arange(4000) % 4, 4)
    found = inception_score(fake=every)
    assert found.mean == pytest.approx(4, rel=0.01)
    assert found.mean < 4


@pytest.mark.parametrize("splits", [2, 10])
def test_agrees_with_the_definition(splits):
    values = logits(1)
    parts = np.array_split(np.random.default_rng(0).permutation(600), splits)
    scores = [by_definition(values[part]) for part in parts]
    found = inception_score(fake=values, splits=splits)
    assert (found.mean, found.std) == pytest.approx((np.mean(scores), np.std(scores)), rel=1e-10)
    assert found.standard_error == pytest.approx(np.std(scores, ddof=1) / np.sqrt(splits), rel=1e-10)


def test_a_class_that_never_appears_costs_nothing():
    values = certain(np.arange(1000) % 2, 2)
    padded = np.concatenate([values, np.full((1000, 3), -1e6)], axis=1)
    assert inception_score(fake=padded).mean == inception_score(fake=values).mean


def test_order_of_classes_and_a_constant_do_not_matter():
    values = logits(2)
    expected = inception_score(fake=values).mean
    assert inception_score(fake=values[:, ::-1]).mean == pytest.approx(expected, rel=1e-10)
    assert inception_score(fake=values.astype(np.float64) + 50).mean == pytest.approx(expected, rel=1e-10)


def test_order_of_images_matters_no_more_than_the_draw_of_splits():
    values = logits(3, n=3000)
    found, turned = inception_score(fake=values), inception_score(fake=values[np.argsort(values[:, 0])])
    assert turned.mean == pytest.approx(found.mean, abs=found.std)
    assert turned.mean > 0.97 * by_definition(values)  # parts in order would see a narrow range of the first class


def test_few_images_a_part_warn():
    with pytest.warns(MetricWarning, match="6 images in each of 10 parts for 7 classes bias it downward"):
        inception_score(fake=logits(n=69))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        inception_score(fake=logits(n=70))


def test_bad_input_is_refused():
    values = logits()
    with pytest.raises(TypeError):
        inception_score(values)
    with pytest.raises(TooFewError, match=r"1 image\(s\), expected at least 10 for 10 splits"):
        inception_score(fake=values[:1])
    with pytest.raises(InputError, match="splits is 1"):
        inception_score(fake=values, splits=1)
    values[0, 0] = np.nan
    with pytest.raises(InputError, match="1 of 600 images have NaN"):
        inception_score(fake=values)
