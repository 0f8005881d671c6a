"""The measures by name: what each needs, says and gives.

A measure's name is the key of its figure in an evaluation file. One more is a function from `Inputs` to the keys and
values it gives, under the decorator that names it, here or in a package of your own. Keys that end in `_se` are
standard errors of the key before, over draws of the generated images, and of the reference too where the measure counts
neighbours or classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from trilemma.metrics.balance import balance, class_counts, recognisability_by_class, recognised
from trilemma.metrics.checks import TooFewError, check_sets
from trilemma.metrics.density_coverage import DENSITY_NEIGHBOURS, DensityCoverage
from trilemma.metrics.frechet import frechet_distance, frechet_standard_error
from trilemma.metrics.frechet_counts import PARTS, frechet_by_count, frechet_infinity
from trilemma.metrics.inception_score import SPLITS, inception_score
from trilemma.metrics.inputs import Inputs
from trilemma.metrics.kid import kid
from trilemma.metrics.memorisation import memorisation
from trilemma.metrics.metric import AGAINST, FEATURES, metric
from trilemma.metrics.overlap import overlap
from trilemma.metrics.precision_recall import PrecisionRecall
from trilemma.metrics.statistics import Statistics

_share = "{:.3f}".format
_NEAREST = (*AGAINST, "samples.count", "neighbours")


def _fid(features: str, count: int) -> str:
    """As results are named by their features and sample count: FID-50k, FD-500."""
    name = "FID" if features.startswith("inception") else "FD"
    return f"{name}-{count // 1000}k" if count and count % 1000 == 0 else f"{name}-{count}"


def _binomial(figures: Mapping[str, Any], count: int) -> float | None:
    """Of the share recognised, in files from before it was recorded."""
    share = figures["recognised"]
    return math.sqrt(share * (1 - share) / count) if count > 0 and 0 <= share <= 1 else None


@metric(
    "frechet_distance",
    "Fréchet distance between Gaussians fitted to features (FID, of the Inception network's)",
    axis="quality",
    better="lower",
    title="Fréchet distance",
    also=("fid", "fd"),
    heading=_fid,
    least=lambda dim, k: 2,
    column=True,
)
def _frechet(inputs: Inputs) -> dict[str, Any]:
    fake, real = inputs.fake.pooled, inputs.real.statistics
    distance = frechet_distance(real=real, fake=Statistics.of(fake, inputs.metadata))
    return {"frechet_distance": distance, "frechet_distance_se": frechet_standard_error(real=real, fake=fake)}


@metric(
    "frechet_infinity",
    "Fréchet distance extrapolated to infinitely many generated images (FID∞)",
    axis="quality",
    better="lower",
    title="Fréchet, N → ∞",
    basis=AGAINST,
    least=lambda dim, k: PARTS * (dim + 1),
)
def _frechet_infinity(inputs: Inputs) -> dict[str, Any]:
    found = frechet_infinity(real=inputs.real.statistics, fake=inputs.fake.pooled)
    return {"frechet_infinity": found.distance, "frechet_infinity_se": found.standard_error}


@metric(
    "frechet_by_count",
    "Fréchet distance at each of the counts given, as pairs of count and distance",
    axis="quality",
    better="lower",
    title="Fréchet by N",
    needs={"counts"},
    least=lambda dim, k: 2,
)
def _frechet_by_count(inputs: Inputs) -> dict[str, Any]:
    assert inputs.counts is not None
    found = frechet_by_count(real=inputs.real.statistics, fake=inputs.fake.pooled, counts=inputs.counts)
    return {"frechet_by_count": [list(pair) for pair in found]}


@metric(
    "sfid",
    "Fréchet distance of spatial features (sFID, of the Inception network's)",
    axis="quality",
    better="lower",
    title="sFID",
    needs={"spatial"},
    least=lambda dim, k: 2,
)
def _sfid(inputs: Inputs) -> dict[str, Any]:
    fake, real = inputs.fake.spatial, inputs.real.spatial
    assert fake is not None and real is not None
    distance = frechet_distance(real=real, fake=Statistics.of(fake, inputs.metadata), name="sfid")
    return {"sfid": distance, "sfid_se": frechet_standard_error(real=real, fake=fake, name="sfid")}


@metric(
    "kid",
    "unbiased squared kernel distance of features, mean over 100 subsets (KID)",
    axis="quality",
    better="lower",
    title="KID",
    needs={"features"},
    details=("kid_std", "kid_full"),
    basis=AGAINST,
    least=lambda dim, k: 2,
)
def _kid(inputs: Inputs) -> dict[str, Any]:
    assert inputs.real.features is not None
    found = kid(real=inputs.real.features.pooled, fake=inputs.fake.pooled)
    return {"kid": found.mean, "kid_se": found.standard_error, "kid_std": found.std, "kid_full": found.full}


@metric(
    "inception_score",
    "how sure and how varied a classifier's answers are, over 10 splits (IS)",
    axis="quality",
    better="higher",
    also=("is",),
    needs={"logits"},
    details=("inception_score_std",),
    basis=(*FEATURES, "samples.count"),
    least=lambda dim, k: SPLITS,
)
def _inception_score(inputs: Inputs) -> dict[str, Any]:
    assert inputs.fake.logits is not None
    found = inception_score(fake=inputs.fake.logits)
    return {
        "inception_score": found.mean,
        "inception_score_se": found.standard_error,
        "inception_score_std": found.std,
    }


@metric(
    "recognised",
    "share of images that a classifier takes for the class asked for",
    axis="quality",
    better="higher",
    needs={"classes", "labels"},
    details=("recognised_by_class",),
    basis=(*FEATURES, "classifier", "samples.classes"),
    estimate=_binomial,
    unit="%",
    scale=100,
    show="{:.1f}".format,
    column=True,
)
def _recognised(inputs: Inputs) -> dict[str, Any]:
    assert inputs.fake.by_class is not None
    assert inputs.labels is not None
    result = recognised(inputs.fake.by_class, inputs.labels)
    return {
        "recognised": result.fraction,
        "recognised_se": result.standard_error,
        "recognised_by_class": result.by_class,
    }


@metric(
    "confidence",
    "mean probability of the class that a classifier takes an image for, also by class",
    axis="quality",
    better="higher",
    needs={"classes"},
    details=("confident", "class_counts", "confidence_by_class", "confident_by_class"),
    basis=(*FEATURES, "classifier", "samples.classes"),
    show=_share,
)
def _confidence(inputs: Inputs) -> dict[str, Any]:
    assert inputs.fake.by_class is not None
    found = recognisability_by_class(inputs.fake.by_class)
    return {
        "confidence": found.confidence,
        "confidence_se": found.standard_error,
        "confident": found.confident,
        "class_counts": found.counts,
        "confidence_by_class": found.confidence_by_class,
        "confident_by_class": found.confident_by_class,
    }


@metric(
    "coverage",
    "share of the reference with a generated image in its neighbourhood (5 nearest)",
    axis="coverage",
    better="higher",
    needs={"features"},
    least=lambda dim, k: DENSITY_NEIGHBOURS + 1,
    show=_share,
)
@metric(
    "recall",
    "share of the reference within the generated images' neighbourhoods (k nearest)",
    axis="coverage",
    better="higher",
    needs={"features"},
    basis=_NEAREST,
    least=lambda dim, k: k + 1,
    show=_share,
    column=True,
)
@metric(
    "density",
    "how many of the reference's neighbourhoods a generated image lies in, over k = 5",
    axis="quality",
    better="higher",
    needs={"features"},
    least=lambda dim, k: DENSITY_NEIGHBOURS + 1,
    show=_share,
)
@metric(
    "precision",
    "share of generated images within the reference's neighbourhoods (k nearest)",
    axis="quality",
    better="higher",
    also=("prdc",),
    needs={"features"},
    basis=_NEAREST,
    least=lambda dim, k: k + 1,
    show=_share,
    column=True,
)
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


@metric(
    "memorisation",
    "share of images nearer to a training image than 99 % of held-out ones; 0.01 of real images",
    axis="coverage",
    better="lower",
    needs={"features", "holdout"},
    details=("memorisation_ratio", "memorisation_z"),
    basis=(*AGAINST, "reference.holdout"),
    show=_share,
)
def _memorisation(inputs: Inputs) -> dict[str, Any]:
    real = inputs.real
    assert real.features is not None and real.holdout is not None
    found = memorisation(real=real.features.pooled, fake=inputs.fake.pooled, holdout=real.holdout.pooled)
    return {
        "memorisation": found.share,
        "memorisation_se": found.share_se,
        "memorisation_ratio": found.ratio,
        "memorisation_z": found.z,
    }


@metric(
    "balance_kl",
    "KL of class frequencies to the reference's, in nats, with the chi-square test",
    axis="coverage",
    better="lower",
    title="balance KL",
    needs={"features", "classes"},
    details=("class_counts", "balance_chi2", "balance_p"),
    basis=(*AGAINST, "classifier", "samples.count"),
    show=_share,
    column=True,
)
def _balance(inputs: Inputs) -> dict[str, Any]:
    assert inputs.real.features is not None
    assert inputs.real.features.by_class is not None
    assert inputs.fake.by_class is not None
    result = balance(real=class_counts(inputs.real.features.by_class), fake=class_counts(inputs.fake.by_class))
    return {
        "balance_kl": result.kl,
        "balance_kl_se": result.kl_se,
        "balance_chi2": result.chi2,
        "balance_p": result.p,
        "class_counts": result.counts,
    }
