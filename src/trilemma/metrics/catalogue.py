"""The measures by name: what each needs, says and gives.

A measure's name is the key of its figure in an evaluation file. To add one: a function from `Inputs` to the keys and
values it gives, and its line in `METRICS`. Keys that end in `_se` are standard errors of the key before, over draws of
the generated images, and of the reference too where the measure counts neighbours or classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from trilemma.metrics.balance import balance, class_counts, recognisability_by_class, recognised
from trilemma.metrics.checks import TooFewError, check_sets
from trilemma.metrics.density_coverage import DENSITY_NEIGHBOURS, DensityCoverage
from trilemma.metrics.frechet import frechet_distance, frechet_standard_error
from trilemma.metrics.frechet_counts import PARTS, frechet_by_count, frechet_infinity
from trilemma.metrics.inception_score import SPLITS, inception_score
from trilemma.metrics.inputs import Inputs, Need
from trilemma.metrics.kid import kid
from trilemma.metrics.memorisation import memorisation
from trilemma.metrics.overlap import overlap
from trilemma.metrics.precision_recall import PrecisionRecall
from trilemma.metrics.statistics import Statistics

Measure = Callable[[Inputs], dict[str, Any]]


@dataclass(frozen=True)
class Metric:
    """One measure. `axis`: where it stands among quality, coverage and speed. `better`: the direction. `details`: keys
    that come with its own in an evaluation. `measure` may give several metrics' keys at once; it runs once. `least`:
    how many generated images it takes, given the number of features and k of precision and recall."""

    description: str
    axis: Literal["quality", "coverage", "speed"]
    better: Literal["lower", "higher"]
    needs: frozenset[Need]
    measure: Measure
    details: tuple[str, ...] = ()
    least: Callable[[int, int], int] = lambda dim, k: 1


def _frechet(inputs: Inputs) -> dict[str, Any]:
    fake, real = inputs.fake.pooled, inputs.real.statistics
    distance = frechet_distance(real=real, fake=Statistics.of(fake, inputs.metadata))
    return {"frechet_distance": distance, "frechet_distance_se": frechet_standard_error(real=real, fake=fake)}


def _frechet_infinity(inputs: Inputs) -> dict[str, Any]:
    found = frechet_infinity(real=inputs.real.statistics, fake=inputs.fake.pooled)
    return {"frechet_infinity": found.distance, "frechet_infinity_se": found.standard_error}


def _frechet_by_count(inputs: Inputs) -> dict[str, Any]:
    assert inputs.counts is not None
    found = frechet_by_count(real=inputs.real.statistics, fake=inputs.fake.pooled, counts=inputs.counts)
    return {"frechet_by_count": [list(pair) for pair in found]}


def _sfid(inputs: Inputs) -> dict[str, Any]:
    fake, real = inputs.fake.spatial, inputs.real.spatial
    assert fake is not None and real is not None
    distance = frechet_distance(real=real, fake=Statistics.of(fake, inputs.metadata), name="sfid")
    return {"sfid": distance, "sfid_se": frechet_standard_error(real=real, fake=fake, name="sfid")}


def _kid(inputs: Inputs) -> dict[str, Any]:
    assert inputs.real.features is not None
    found = kid(real=inputs.real.features.pooled, fake=inputs.fake.pooled)
    return {"kid": found.mean, "kid_se": found.standard_error, "kid_std": found.std, "kid_full": found.full}


def _inception_score(inputs: Inputs) -> dict[str, Any]:
    assert inputs.fake.logits is not None
    found = inception_score(fake=inputs.fake.logits)
    return {
        "inception_score": found.mean,
        "inception_score_se": found.standard_error,
        "inception_score_std": found.std,
    }


def _neighbours(inputs: Inputs) -> dict[str, Any]:
    """Of precision, recall, density and coverage those asked for, from one pass over each pair of sets; a
    `TooFewError` in place of those whose k takes more images than there are."""
    assert inputs.real.features is not None
    real, fake, k = inputs.real.features.pooled, inputs.fake.pooled, inputs.neighbours
    values: dict[str, Any] = {}
    for name in {"precision", "recall", "density", "coverage"} & inputs.names:
        of = k if name in ("precision", "recall") else DENSITY_NEIGHBOURS
        try:
            check_sets(name, of + 1, f" for k = {of}", real=real, generated=fake)
        except TooFewError as few:
            values[name] = few
    left = inputs.names - values.keys()
    manifolds, densities = bool({"precision", "recall"} & left), bool({"density", "coverage"} & left)
    if not (manifolds or densities):
        return values
    found = overlap(
        real=real,
        fake=fake,
        real_ks={*([k] if manifolds else []), *([DENSITY_NEIGHBOURS] if densities else [])},
        fake_ks=[k] if manifolds else [],
    )
    values |= vars(PrecisionRecall.of(found, k)) if manifolds else {}
    return values | (vars(DensityCoverage.of(found, DENSITY_NEIGHBOURS)) if densities else {})


def _memorisation(inputs: Inputs) -> dict[str, Any]:
    real = inputs.real
    assert real.features is not None and real.holdout is not None
    found = memorisation(real=real.features.pooled, fake=inputs.fake.pooled, holdout=real.holdout.pooled)
    return {"memorisation": found.share, "memorisation_ratio": found.ratio, "memorisation_z": found.z}


def _recognised(inputs: Inputs) -> dict[str, Any]:
    assert inputs.fake.logits is not None
    assert inputs.labels is not None
    result = recognised(inputs.fake.logits, inputs.labels)
    return {
        "recognised": result.fraction,
        "recognised_se": result.standard_error,
        "recognised_by_class": result.by_class,
    }


def _confidence(inputs: Inputs) -> dict[str, Any]:
    assert inputs.fake.logits is not None
    found = recognisability_by_class(inputs.fake.logits)
    return {
        "confidence": found.confidence,
        "confident": found.confident,
        "class_counts": found.counts,
        "confidence_by_class": found.confidence_by_class,
        "confident_by_class": found.confident_by_class,
    }


def _balance(inputs: Inputs) -> dict[str, Any]:
    assert inputs.real.features is not None
    assert inputs.real.features.logits is not None
    assert inputs.fake.logits is not None
    result = balance(real=class_counts(inputs.real.features.logits), fake=class_counts(inputs.fake.logits))
    return {
        "balance_kl": result.kl,
        "balance_kl_se": result.kl_se,
        "balance_chi2": result.chi2,
        "balance_p": result.p,
        "class_counts": result.counts,
    }


def _speed(inputs: Inputs) -> dict[str, Any]:
    assert inputs.sampler is not None
    speed = inputs.sampler()
    return {
        "images_per_second": speed.images_per_second,
        "images_per_second_range": [speed.slowest, speed.fastest],
        "seconds_per_image": speed.seconds_per_image,
        "speed_batch": speed.batch,
        "network_evaluations": speed.network_evaluations,
        "multiply_adds": speed.multiply_adds,
        "peak_memory_bytes": speed.peak_memory,
        "peak_memory_kind": speed.memory_kind,
    }


METRICS: dict[str, Metric] = {
    "frechet_distance": Metric(
        "Fréchet distance between Gaussians fitted to features (FID, of the Inception network's)",
        "quality",
        "lower",
        frozenset(),
        _frechet,
        ("frechet_distance_se",),
        least=lambda dim, k: 2,
    ),
    "frechet_infinity": Metric(
        "Fréchet distance extrapolated to infinitely many generated images (FID∞)",
        "quality",
        "lower",
        frozenset(),
        _frechet_infinity,
        ("frechet_infinity_se",),
        least=lambda dim, k: PARTS * (dim + 1),
    ),
    "frechet_by_count": Metric(
        "Fréchet distance at each of the counts given, as pairs of count and distance",
        "quality",
        "lower",
        frozenset({"counts"}),
        _frechet_by_count,
        least=lambda dim, k: 2,
    ),
    "sfid": Metric(
        "Fréchet distance of spatial features (sFID, of the Inception network's)",
        "quality",
        "lower",
        frozenset({"spatial"}),
        _sfid,
        ("sfid_se",),
        least=lambda dim, k: 2,
    ),
    "kid": Metric(
        "unbiased squared kernel distance of features, mean over 100 subsets (KID)",
        "quality",
        "lower",
        frozenset({"features"}),
        _kid,
        ("kid_se", "kid_std", "kid_full"),
        least=lambda dim, k: 2,
    ),
    "inception_score": Metric(
        "how sure and how varied a classifier's answers are, over 10 splits (IS)",
        "quality",
        "higher",
        frozenset({"logits"}),
        _inception_score,
        ("inception_score_se", "inception_score_std"),
        least=lambda dim, k: SPLITS,
    ),
    "precision": Metric(
        "share of generated images within the reference's neighbourhoods (k nearest)",
        "quality",
        "higher",
        frozenset({"features"}),
        _neighbours,
        ("precision_se",),
        least=lambda dim, k: k + 1,
    ),
    "recall": Metric(
        "share of the reference within the generated images' neighbourhoods (k nearest)",
        "coverage",
        "higher",
        frozenset({"features"}),
        _neighbours,
        ("recall_se",),
        least=lambda dim, k: k + 1,
    ),
    "density": Metric(
        "how many of the reference's neighbourhoods a generated image lies in, over k = 5",
        "quality",
        "higher",
        frozenset({"features"}),
        _neighbours,
        ("density_se",),
        least=lambda dim, k: DENSITY_NEIGHBOURS + 1,
    ),
    "coverage": Metric(
        "share of the reference with a generated image in its neighbourhood (5 nearest)",
        "coverage",
        "higher",
        frozenset({"features"}),
        _neighbours,
        ("coverage_se",),
        least=lambda dim, k: DENSITY_NEIGHBOURS + 1,
    ),
    "memorisation": Metric(
        "share of images nearer to a training image than 99 % of held-out ones; 0.01 of real images",
        "coverage",
        "lower",
        frozenset({"features", "holdout"}),
        _memorisation,
        ("memorisation_ratio", "memorisation_z"),
    ),
    "recognised": Metric(
        "share of images that a classifier takes for the class asked for",
        "quality",
        "higher",
        frozenset({"logits", "labels"}),
        _recognised,
        ("recognised_se", "recognised_by_class"),
    ),
    "confidence": Metric(
        "mean probability of the class that a classifier takes an image for, also by class",
        "quality",
        "higher",
        frozenset({"logits"}),
        _confidence,
        ("confident", "class_counts", "confidence_by_class", "confident_by_class"),
    ),
    "balance_kl": Metric(
        "KL of class frequencies to the reference's, in nats, with the chi-square test",
        "coverage",
        "lower",
        frozenset({"features", "logits"}),
        _balance,
        ("balance_kl_se", "class_counts", "balance_chi2", "balance_p"),
    ),
    "images_per_second": Metric(
        "images a second, median after a warm-up, at a stated batch, with what it takes",
        "speed",
        "higher",
        frozenset({"sampler"}),
        _speed,
        (
            "images_per_second_range",
            "seconds_per_image",
            "speed_batch",
            "network_evaluations",
            "multiply_adds",
            "peak_memory_bytes",
            "peak_memory_kind",
        ),
    ),
}
