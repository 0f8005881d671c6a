"""The measures by name: what each needs, says and gives, and how to compute several at once.

A measure's name is the key of its figure in an evaluation file. To add one: a function from `Inputs` to the keys and
values it gives, and its line in `METRICS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Int

from trilemma.errors import InputError, unknown
from trilemma.metrics.balance import balance, class_counts, recognised
from trilemma.metrics.cautions import caution
from trilemma.metrics.features import Features
from trilemma.metrics.frechet import frechet_distance, frechet_standard_error
from trilemma.metrics.precision_recall import precision_recall
from trilemma.metrics.speed import Speed
from trilemma.metrics.statistics import Statistics

BOOTSTRAP_LIMIT = 512
"""The longest features whose Fréchet distance is given a standard error."""

Need = Literal["statistics", "features", "logits", "labels", "sampler"]


@dataclass(frozen=True)
class ReferenceFeatures:
    """What generated images are held against: statistics, and the features they are of, unless only a file of
    statistics is at hand."""

    statistics: Statistics
    features: Features | None = None

    @staticmethod
    def of(features: Features, metadata: Mapping[str, Any] | None = None) -> ReferenceFeatures:
        """A reference with all there is. `metadata`: see `Statistics`."""
        return ReferenceFeatures(Statistics.of(features.pooled, metadata), features)


@dataclass(frozen=True)
class Inputs:
    """All that a measure may look at; see `compute`."""

    real: ReferenceFeatures
    fake: Features
    labels: np.ndarray | None
    sampler: Callable[[], Speed] | None
    neighbours: int
    metadata: Mapping[str, Any]

    def missing(self, needs: frozenset[Need]) -> list[str]:
        """What of `needs` isn't there, in words."""
        classifies = self.fake.logits is not None
        return missing(needs, self.real, classifies, self.labels is not None, self.sampler is not None)


def missing(
    needs: frozenset[Need], real: ReferenceFeatures, classifies: bool, labels: bool, sampler: bool
) -> list[str]:
    """What of `needs` isn't there, in words: given whether the features classify, classes were asked for, and there is
    a sampler to time."""
    features = real.features
    there: dict[Need, tuple[bool, str]] = {
        "statistics": (True, ""),
        "features": (features is not None, "the reference's features, not its statistics alone"),
        "logits": (
            classifies and (features is None or features.logits is not None),
            "features that classify, such as 'digits'",
        ),
        "labels": (labels, "the classes that were asked for"),
        "sampler": (sampler, "a sampler to time"),
    }
    return [there[need][1] for need in sorted(needs) if not there[need][0]]


@dataclass(frozen=True)
class Metric:
    """One measure. `axis`: where it stands among quality, coverage and speed. `better`: the direction. `details`: keys
    that come with its own in an evaluation. `measure` may give several metrics' keys at once; it runs once."""

    description: str
    axis: Literal["quality", "coverage", "speed"]
    better: Literal["lower", "higher"]
    needs: frozenset[Need]
    measure: Callable[[Inputs], dict[str, Any]]
    details: tuple[str, ...] = ()


def compute(
    names: Sequence[str] | None,
    *,
    real: ReferenceFeatures,
    fake: Features,
    labels: Int[np.ndarray, " n"] | None = None,
    sampler: Callable[[], Speed] | None = None,
    neighbours: int = 3,
    features: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The measures `names`, or all that can be had (None), as flat keys and plain JSON values; None stands for a figure
    that is not finite, or for a class without images.

    `fake`: features of generated images. `labels`: the classes they were asked for. `sampler`: times the sampler when
    called, as `lambda: measure(generate, batch=64)`. `neighbours`: k of precision and recall. `features`: the record of
    `fake`'s extractor, which must be the reference's.

    Warns of what a reader must know, in `MetricWarning`s: gather them with `gathered_cautions`. Raises InputError for a
    name that does not exist, a measure asked for by name whose needs aren't met, and what the measures refuse.
    """
    inputs = Inputs(real, fake, labels, sampler, neighbours, {"features": features} if features else {})
    chosen = check_names(names)
    lacking = {name: absent for name in chosen if (absent := inputs.missing(METRICS[name].needs))}
    if names is not None:
        refuse(lacking, [other for other in METRICS if not inputs.missing(METRICS[other].needs)])
    left_out = [name for name in lacking if "features" in METRICS[name].needs and real.features is None]
    if left_out:
        caution(f"left out: {', '.join(left_out)}; the reference is given by its statistics alone")

    done: dict[Callable[[Inputs], dict[str, Any]], dict[str, Any]] = {}
    values: dict[str, Any] = {}
    for name in chosen:
        if name in lacking:
            continue
        metric = METRICS[name]
        if metric.measure not in done:
            done[metric.measure] = metric.measure(inputs)
        values |= {key: _plain(done[metric.measure][key]) for key in (name, *metric.details)}
    return values


def check_needs(
    names: Sequence[str] | None, *, real: ReferenceFeatures, classifies: bool, labels: bool, sampler: bool
) -> None:
    """Refuse now, before anything is generated, what `compute` would refuse then: a metric that does not exist, or one
    asked for by name whose needs will not be met. Raises InputError."""
    absent = {name: missing(metric.needs, real, classifies, labels, sampler) for name, metric in METRICS.items()}
    if names is not None:
        lacking = {name: absent[name] for name in check_names(names) if absent[name]}
        refuse(lacking, [name for name in METRICS if not absent[name]])


def refuse(lacking: Mapping[str, Sequence[str]], able: Sequence[str]) -> None:
    """Raise InputError for the first metric that lacks something."""
    for name, absent in lacking.items():
        raise InputError(f"metric {name!r} needs {' and '.join(absent)}; to be had here: {', '.join(able)}")


def check_names(names: Sequence[str] | None) -> list[str]:
    """The metrics named, each once, or all. Raises InputError for a name that does not exist."""
    for name in names or ():
        if name not in METRICS:
            raise unknown("metric", name, METRICS)
    return list(METRICS if names is None else dict.fromkeys(names))


def _frechet(inputs: Inputs) -> dict[str, Any]:
    fake = Statistics.of(inputs.fake.pooled, inputs.metadata)
    real = inputs.real.statistics
    distance = frechet_distance(real=real, fake=fake)
    # Twenty more distances: seconds with a small classifier's features, minutes with thousands of them.
    error = frechet_standard_error(real=real, fake=inputs.fake.pooled) if fake.dim <= BOOTSTRAP_LIMIT else None
    return {"frechet_distance": distance, "frechet_distance_se": error}


def _precision_recall(inputs: Inputs) -> dict[str, Any]:
    assert inputs.real.features is not None
    pair = precision_recall(real=inputs.real.features.pooled, fake=inputs.fake.pooled, k=inputs.neighbours)
    return {"precision": pair.precision, "recall": pair.recall}


def _recognised(inputs: Inputs) -> dict[str, Any]:
    assert inputs.fake.logits is not None
    assert inputs.labels is not None
    result = recognised(inputs.fake.logits, inputs.labels)
    return {"recognised": result.fraction, "recognised_by_class": result.by_class}


def _balance(inputs: Inputs) -> dict[str, Any]:
    assert inputs.real.features is not None
    assert inputs.real.features.logits is not None
    assert inputs.fake.logits is not None
    result = balance(real=class_counts(inputs.real.features.logits), fake=class_counts(inputs.fake.logits))
    return {
        "balance_kl": result.kl,
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
    }


def _plain(value: Any) -> Any:
    """`value` as JSON takes it: numbers and lists, None for NaN and infinity."""
    if isinstance(value, np.ndarray | list):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


METRICS: dict[str, Metric] = {
    "frechet_distance": Metric(
        "Fréchet distance between Gaussians fitted to features",
        "quality",
        "lower",
        frozenset({"statistics"}),
        _frechet,
        ("frechet_distance_se",),
    ),
    "precision": Metric(
        "share of generated images within the reference's neighbourhoods (k nearest)",
        "quality",
        "higher",
        frozenset({"features"}),
        _precision_recall,
    ),
    "recall": Metric(
        "share of the reference within the generated images' neighbourhoods (k nearest)",
        "coverage",
        "higher",
        frozenset({"features"}),
        _precision_recall,
    ),
    "recognised": Metric(
        "share of images that a classifier takes for the class asked for",
        "quality",
        "higher",
        frozenset({"logits", "labels"}),
        _recognised,
        ("recognised_by_class",),
    ),
    "balance_kl": Metric(
        "KL of class frequencies to the reference's, in nats, with the chi-square test",
        "coverage",
        "lower",
        frozenset({"features", "logits"}),
        _balance,
        ("class_counts", "balance_chi2", "balance_p"),
    ),
    "images_per_second": Metric(
        "images a second, median after a warm-up, at a stated batch",
        "speed",
        "higher",
        frozenset({"sampler"}),
        _speed,
        ("images_per_second_range", "seconds_per_image", "speed_batch", "network_evaluations"),
    ),
}
