"""Whether a classifier finds every class in the generated images as often as in the reference, and finds in each image
the class that was asked for."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64, Int, Int64
from scipy.special import softmax
from scipy.stats import chi2 as chi2_distribution

from trilemma.errors import InputError
from trilemma.metrics.cautions import caution
from trilemma.metrics.features import check_rows


@dataclass(frozen=True)
class Balance:
    """`counts` [k]: generated images a class. `kl`: KL(generated ‖ reference) of the class frequencies, in nats, 0 when
    they are equal; `kl_se`: its standard error over draws of both, NaN where it is infinite. `chi2`: Pearson's
    statistic, `p`: how often chance alone gives one as large."""

    counts: Int64[np.ndarray, " k"]
    kl: float
    kl_se: float
    chi2: float
    p: float


CONFIDENT = 0.9
"""The probability above which a classifier counts as sure of an image."""


@dataclass(frozen=True)
class Recognised:
    """`fraction` of images in which the class asked for is the most likely one, with its binomial `standard_error`, no
    less than one image's part; `by_class` [k] the same fraction among the images of each class, NaN where none was
    asked for."""

    fraction: float
    standard_error: float
    by_class: Float64[np.ndarray, " k"]


def class_counts(logits: Float[np.ndarray, "n k"]) -> Int64[np.ndarray, " k"]:
    """How many images have each class as their most likely one. Raises InputError for NaN or no image."""
    check_rows(logits, "class_counts: logits")
    if not len(logits):
        raise InputError("class_counts: there are no images, expected at least one")
    return np.bincount(logits.argmax(axis=1), minlength=logits.shape[1]).astype(np.int64)


def balance(*, real: Int[np.ndarray, " k"], fake: Int[np.ndarray, " k"]) -> Balance:
    """Class counts of generated images against the frequencies of the reference's, both by the same classifier, so that
    its own mistakes weigh on both sides.

    `kl_se` takes classes to be drawn at random: it is too large for images that were asked for in equal numbers of each
    class. The χ² test takes the reference's frequencies as exact: with a reference no larger than the sample, p is too
    small. Classes found on neither side don't count. Warns where the test is only rough (under 5 images expected of a
    class), and where a class is not in the reference, which makes KL and χ² infinite. Raises InputError for counts of
    different lengths, or without images.
    """
    if real.shape != fake.shape or real.ndim != 1:
        raise InputError(
            f"balance: counts of {list(fake.shape)} classes in fake, expected {list(real.shape)} as in real"
        )
    if real.min(initial=0) < 0 or fake.min(initial=0) < 0 or not real.sum() or not fake.sum():
        raise InputError(f"balance: {real.sum()} real and {fake.sum()} generated images, expected at least one of each")
    observed = fake / fake.sum()
    expected = real / real.sum()
    seen = fake > 0
    foreign = np.flatnonzero(seen & (real == 0))
    if len(foreign):
        caution(f"balance: classes {foreign.tolist()} are not in the reference, so KL and chi-square are infinite")
        return Balance(fake, np.inf, np.nan, np.inf, 0.0)
    present = real > 0
    scarce = np.count_nonzero(expected[present] * fake.sum() < 5)
    if scarce:
        caution(
            f"balance: fewer than 5 of {fake.sum()} images expected in {scarce} classes, so balance_p is only rough"
        )
    kl = float(np.sum(observed[seen] * np.log(observed[seen] / expected[seen])))
    chi2 = float(fake.sum() * np.sum((observed - expected)[present] ** 2 / expected[present]))
    freedom = np.count_nonzero(present) - 1
    p = float(chi2_distribution.sf(chi2, freedom)) if freedom else 1.0
    error = _kl_standard_error(observed[present], expected[present], fake.sum(), real.sum())
    return Balance(fake, max(kl, 0.0), error, chi2, p)


def _kl_standard_error(
    observed: Float64[np.ndarray, " k"], expected: Float64[np.ndarray, " k"], m: int, n: int
) -> float:
    """That of KL(observed ‖ expected), frequencies among m and n images.

    By the delta method, an image of class c has the influence log(p_c/q_c) if generated and −p_c/q_c if of the
    reference. That is nothing where the frequencies are equal, and there KL is (1/m + 1/n)/2 times a χ² of k − 1
    degrees of freedom (Wilks 1938), of the variance `chance`. Chance also raises what the delta method finds, by twice
    as much, which is taken off.
    """
    ratio = observed / expected
    logs = np.log(ratio, out=np.zeros_like(ratio), where=ratio > 0)
    first = 0.0
    for frequencies, influence, count in ((observed, logs, m), (expected, ratio, n)):
        first += (frequencies @ influence**2 - (frequencies @ influence) ** 2) / count
    chance = max(len(ratio) - 1, 1) / 2 * (1 / m + 1 / n) ** 2
    return float(np.sqrt(chance + max(first - 2 * chance, 0.0)))


def recognised(logits: Float[np.ndarray, "n k"], labels: Int[np.ndarray, " n"]) -> Recognised:
    """How often the classifier sees in an image the class in `labels`, in all and for each class. Raises InputError for
    NaN, no image, another number of labels than images, and labels out of [0, k)."""
    check_rows(logits, "recognised: logits")
    labels = np.asarray(labels)
    count, classes = logits.shape
    if labels.shape != (count,) or not count:
        raise InputError(f"recognised: {labels.size} labels for {count} images, expected one each, at least one")
    wrong = labels[(labels < 0) | (labels >= classes)]
    if len(wrong):
        nearest = min(max(int(wrong[0]), 0), classes - 1)
        raise InputError(f"recognised: label {wrong[0]}, expected 0 to {classes - 1} (nearest: {nearest})")
    hits = logits.argmax(axis=1) == labels
    asked = np.bincount(labels, minlength=classes)
    found = np.bincount(labels, weights=hits, minlength=classes)
    by_class = np.divide(found, asked, out=np.full(classes, np.nan), where=asked > 0)
    fraction = float(hits.mean())
    return Recognised(fraction, max(math.sqrt(fraction * (1 - fraction) / count), 1 / count), by_class)


@dataclass(frozen=True)
class Recognisability:
    """How sure a classifier is. `confidence`: the mean probability of the most likely class, with its
    `standard_error` over draws of the images (NaN for one). `confident`: the share of images in which it is above
    `CONFIDENT`. Of the images taken for each class: `counts` [k] of them, and the same two figures,
    `confidence_by_class` [k] and `confident_by_class` [k], NaN for a class that no image was taken for."""

    confidence: float
    standard_error: float
    confident: float
    counts: Int64[np.ndarray, " k"]
    confidence_by_class: Float64[np.ndarray, " k"]
    confident_by_class: Float64[np.ndarray, " k"]


def recognisability_by_class(logits: Float[np.ndarray, "n k"]) -> Recognisability:
    """How recognisable images are for which no class was asked (D, section 3.3, where people looked at them): by class,
    as a classifier sees them. Raises InputError for NaN or no image."""
    counts = class_counts(logits)
    shares = softmax(logits.astype(np.float64), axis=1)
    taken, sure = logits.argmax(axis=1), shares.max(axis=1)

    def by_class(values: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " k"]:
        sums = np.bincount(taken, weights=values, minlength=len(counts))
        return np.divide(sums, counts, out=np.full(len(counts), np.nan), where=counts > 0)

    above = (sure > CONFIDENT).astype(np.float64)
    error = float(sure.std(ddof=1)) / math.sqrt(len(sure)) if len(sure) > 1 else math.nan
    return Recognisability(float(sure.mean()), error, float(above.mean()), counts, by_class(sure), by_class(above))


CHANCE = 0.02
"""How often chance alone may say that classes are absent from samples that lack none."""


def absent(counts: Int[np.ndarray, " k"], shares: Float[np.ndarray, " k"]) -> Int64[np.ndarray, " a"]:
    """The classes of which there is no image, though chance would leave out any of them less often than `CHANCE`.

    `counts` [k]: the images of each class; `shares` [k]: how often each is to be expected, in proportion. Of n images
    none is of a class of the share s in (1 − s)ⁿ of all draws. Among a thousand classes some are missing by chance: the
    classes are those of Benjamini & Hochberg 1995 (1), of all that there could be. Raises InputError for different
    lengths."""
    counts, shares = np.asarray(counts), np.asarray(shares, dtype=np.float64)
    if counts.shape != shares.shape or counts.ndim != 1:
        raise InputError(f"absent: counts of {list(counts.shape)} classes, expected {list(shares.shape)} as in shares")
    none = np.flatnonzero((counts == 0) & (shares > 0))
    if not len(none):
        return none
    by_chance = (1 - shares[none] / shares.sum()) ** counts.sum()
    ranked = np.sort(by_chance)
    met = ranked * np.count_nonzero(shares) < CHANCE * np.arange(1, len(none) + 1)
    return none[by_chance <= ranked[met].max(initial=-1.0)]
