from __future__ import annotations

import warnings

import numpy as np
import pytest
from scipy.stats import chisquare, entropy

from trilemma.errors import InputError
from trilemma.metrics import MetricWarning, absent, balance, class_counts, recognisability_by_class, recognised
from trilemma.metrics.balance import CHANCE


def logits_of(classes, k: int = 4) -> np.ndarray:
    """Logits whose most likely class is the one given, by a small margin."""
    noise = np.random.default_rng(0).uniform(-1, 1, (len(classes), k)).astype(np.float32)
    noise[np.arange(len(classes)), classes] = 1.5
    return noise


def test_counts_are_of_the_most_likely_class():
    assert class_counts(logits_of([0, 3, 3, 1, 3])).tolist() == [1, 1, 0, 3]


def test_equal_frequencies_are_in_balance():
    found = balance(real=np.array([100, 200, 300]), fake=np.array([10, 20, 30]))
    assert (found.kl, found.chi2, found.p) == (pytest.approx(0, abs=1e-12), pytest.approx(0, abs=1e-12), 1)


def test_agrees_with_scipy():
    real, fake = np.array([450, 300, 500, 250]), np.array([80, 33, 47, 40])
    found = balance(real=real, fake=fake)
    expected = chisquare(fake, real / real.sum() * fake.sum())
    assert found.kl == pytest.approx(entropy(fake, real), rel=1e-12)
    assert found.chi2 == pytest.approx(expected.statistic, rel=1e-12)
    assert found.p == pytest.approx(expected.pvalue, rel=1e-10)


def test_a_single_class_of_ten_costs_log_ten():
    found = balance(real=np.full(10, 45), fake=np.array([500] + [0] * 9))
    assert found.kl == pytest.approx(np.log(10), rel=1e-12)
    assert found.chi2 == pytest.approx(4500, rel=1e-12)
    assert found.p < 1e-300


def test_p_is_uniform_when_the_frequencies_are_right():
    rng = np.random.default_rng(1)
    ps = [balance(real=np.array([50, 30, 20]), fake=rng.multinomial(1000, [0.5, 0.3, 0.2])).p for _ in range(400)]
    assert np.mean(ps) == pytest.approx(0.5, abs=0.06)
    assert np.mean(np.array(ps) < 0.1) == pytest.approx(0.1, abs=0.05)


def test_order_of_classes_does_not_matter():
    real, fake = np.array([450, 300, 500, 250]), np.array([80, 33, 47, 40])
    turned, straight = balance(real=real[::-1], fake=fake[::-1]), balance(real=real, fake=fake)
    assert (turned.kl, turned.p) == (pytest.approx(straight.kl), pytest.approx(straight.p))


def test_a_class_on_neither_side_does_not_count():
    found = balance(real=np.array([50, 0, 50]), fake=np.array([40, 0, 60]))
    expected = balance(real=np.array([50, 50]), fake=np.array([40, 60]))
    assert (found.kl, found.chi2, found.p) == (expected.kl, expected.chi2, expected.p)
    assert balance(real=np.array([5, 0]), fake=np.array([9, 0])).p == 1


def test_a_class_that_the_reference_lacks_is_infinitely_far():
    with pytest.warns(MetricWarning, match=r"classes \[1\] are not in the reference"):
        found = balance(real=np.array([50, 0, 50]), fake=np.array([40, 1, 59]))
    assert (found.kl, found.chi2, found.p) == (np.inf, np.inf, 0)
    assert np.isnan(found.kl_se)


def test_few_images_a_class_warn():
    with pytest.warns(MetricWarning, match="only rough"):
        balance(real=np.full(10, 9), fake=np.full(10, 4))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        balance(real=np.full(10, 9), fake=np.full(10, 5))


EVEN = np.full(10, 0.1)
DROPPED = np.array([0, *[1 / 9] * 9])
UNLIKE = np.array([0.2, 0.2, 0.2, 0.1, 0.1, 0.05, 0.05, 0.05, 0.03, 0.02])


@pytest.mark.parametrize("shares", [EVEN, 0.8 * EVEN + 0.2 * UNLIKE, DROPPED, UNLIKE])
@pytest.mark.parametrize(("m", "n"), [(500, 5000), (400, 400)])
def test_standard_error_is_the_spread_over_fresh_draws_of_both(shares, m, n):
    rng = np.random.default_rng(3)
    found = [balance(real=rng.multinomial(n, EVEN), fake=rng.multinomial(m, shares)) for _ in range(2000)]
    spread = np.std([each.kl for each in found], ddof=1)
    assert np.mean([each.kl_se for each in found]) == pytest.approx(spread, rel=0.2)


def test_standard_error_of_frequencies_that_differ_is_the_delta_methods():
    # Two classes, p of the first: the derivatives in p and q by difference, and the binomial variances.
    found = balance(real=np.array([50_000, 50_000]), fake=np.array([20_000, 80_000]))

    def kl(p: float, q: float) -> float:
        return p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))

    step = 1e-5
    by_p, by_q = ((kl(0.2 + a, 0.5 + b) - kl(0.2 - a, 0.5 - b)) / (2 * step) for a, b in ((step, 0), (0, step)))
    assert found.kl_se == pytest.approx(np.sqrt((by_p**2 * 0.16 + by_q**2 * 0.25) / 100_000), rel=1e-3)


def test_equal_frequencies_have_the_error_of_chance():
    found = balance(real=np.full(5, 100), fake=np.full(5, 20))
    assert (found.kl, found.kl_se) == (0, pytest.approx(np.sqrt(4 / 2) * (1 / 500 + 1 / 100), rel=1e-12))
    assert balance(real=np.array([9]), fake=np.array([9])).kl_se > 0


def test_recognised_has_a_binomial_error_and_never_none():
    asked = np.arange(200) % 4
    found = recognised(logits_of(np.where(np.arange(200) < 50, (asked + 1) % 4, asked)), asked)
    assert (found.fraction, found.standard_error) == (0.75, pytest.approx(np.sqrt(0.75 * 0.25 / 200)))
    assert recognised(logits_of(asked), asked).standard_error == 1 / 200


def test_recognised_in_all_and_by_class():
    found = recognised(logits_of([0, 1, 1, 2, 0]), np.array([0, 1, 0, 2, 0]))
    assert found.fraction == 0.8
    np.testing.assert_array_equal(found.by_class, [2 / 3, 1, 1, np.nan])


def test_one_image_is_recognised_or_not():
    assert recognised(logits_of([2]), np.array([2])).fraction == 1
    assert recognised(logits_of([2]), np.array([1])).fraction == 0


def test_recognisability_has_the_closed_form():
    # Two classes: probabilities 0.95 and 0.6 for the first, 0.8 for the second.
    p = np.array([[0.95, 0.05], [0.6, 0.4], [0.2, 0.8]])
    found = recognisability_by_class(np.log(p) + np.array([[0], [5], [-5]]))
    assert found.counts.tolist() == [2, 1]
    np.testing.assert_allclose(found.confidence_by_class, [0.775, 0.8], rtol=1e-12)
    np.testing.assert_allclose(found.confident_by_class, [0.5, 0], rtol=1e-12)
    assert (found.confidence, found.confident) == pytest.approx((2.35 / 3, 1 / 3), rel=1e-12)


def test_recognisability_of_a_class_without_images_is_nan():
    found = recognisability_by_class(logits_of([0, 0, 3]))
    assert found.counts.tolist() == [2, 0, 0, 1]
    assert np.isnan(found.confidence_by_class).tolist() == [False, True, True, False]
    weighted = np.nansum(found.counts * found.confidence_by_class) / 3
    assert found.confidence == pytest.approx(weighted, rel=1e-12)


def test_recognisability_depends_on_no_order():
    logits = 3 * np.random.default_rng(2).standard_normal((200, 5))
    found, turned = recognisability_by_class(logits), recognisability_by_class(logits[::-1, ::-1])
    np.testing.assert_allclose(turned.confidence_by_class[::-1], found.confidence_by_class, rtol=1e-12)
    assert turned.counts[::-1].tolist() == found.counts.tolist()
    assert turned.confident == found.confident


def test_bad_input_is_refused():
    logits = logits_of([0, 1])
    with pytest.raises(InputError, match=r"label 7, expected 0 to 3 \(nearest: 3\)"):
        recognised(logits, np.array([0, 7]))
    with pytest.raises(InputError, match=r"label 7, .* \(nearest: 3\)"):  # the first that is wrong
        recognised(logits, np.array([7, 9]))
    with pytest.raises(InputError, match="label -1"):
        recognised(logits, np.array([0, -1]))
    with pytest.raises(InputError, match="3 labels for 2 images"):
        recognised(logits, np.array([0, 1, 2]))
    with pytest.raises(InputError, match="no images"):
        class_counts(logits[:0])
    with pytest.raises(TypeError):
        balance(np.ones(3), np.ones(3))
    with pytest.raises(InputError, match="classes in fake"):
        balance(real=np.array([1, 2]), fake=np.array([1, 2, 3]))
    with pytest.raises(InputError, match="0 generated images"):
        balance(real=np.array([1, 2]), fake=np.array([0, 0]))
    logits[1, 0] = np.nan
    for measure in (class_counts, recognisability_by_class, lambda x: recognised(x, np.array([0, 1]))):
        with pytest.raises(InputError, match="1 of 2 images have NaN"):
            measure(logits)


def test_confidence_s_error_is_its_spread_over_fresh_draws():
    rng = np.random.default_rng(0)
    found = [recognisability_by_class(3 * rng.standard_normal((80, 4))) for _ in range(400)]
    means, errors = (np.array([getattr(one, name) for one in found]) for name in ("confidence", "standard_error"))
    assert errors.mean() == pytest.approx(means.std(), rel=0.1)
    assert np.isnan(recognisability_by_class(np.zeros((1, 4))).standard_error)


@pytest.mark.parametrize(("k", "n"), [(10, 30), (10, 60), (100, 600), (1000, 9000)])
def test_absence_is_said_of_samples_that_lack_none_as_seldom_as_it_says(k: int, n: int):
    rng = np.random.default_rng(k + n)
    shares = np.full(k, 1 / k)
    said = sum(len(absent(rng.multinomial(n, shares), shares)) > 0 for _ in range(1000))
    assert said <= 1000 * CHANCE + 4 * np.sqrt(1000 * CHANCE)


def test_absence_is_of_classes_to_be_expected():
    counts, shares = np.array([40, 0, 0, 0]), np.array([0.5, 0.3, 0.2, 0.0])
    np.testing.assert_array_equal(absent(counts, shares), [1, 2])
    np.testing.assert_array_equal(absent(counts, 7 * shares), [1, 2])
    assert not len(absent(counts // 10, shares)), "four images leave any of these out by chance"
    assert not len(absent(np.zeros(4, int), shares)) and not len(absent(counts, np.zeros(4)))
    with pytest.raises(InputError, match=r"counts of \[4\] classes, expected \[3\]"):
        absent(counts, shares[:3])
