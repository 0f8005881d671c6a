"""What measures look at, and what each may lack."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from trilemma.metrics.features import Features
from trilemma.metrics.speed import Speed
from trilemma.metrics.statistics import Statistics

Need = Literal["features", "spatial", "holdout", "logits", "classes", "labels", "counts", "sampler"]

WORDS: dict[Need, str] = {
    "features": "the reference's features, not its statistics alone",
    "spatial": "spatial features on both sides, such as 'inception' has",
    "holdout": "held-out images of the reference's kind",
    "logits": "features that classify, such as 'digits'",
    "classes": "features that classify, such as 'digits', or a labelled reference, five images a class or more",
    "labels": "the classes that were asked for",
    "counts": "the counts of images to measure at",
    "sampler": "a sampler to time",
}
"""The needs in words, for who lacks them."""


@dataclass(frozen=True)
class ReferenceFeatures:
    """What generated images are held against: statistics, and the features they are of, unless only a file of
    statistics is at hand. `spatial`: the statistics of spatial features, for sFID. `holdout`: features of images that
    the model was not trained on, for memorisation; `features` are then those it was trained on."""

    statistics: Statistics
    features: Features | None = None
    spatial: Statistics | None = None
    holdout: Features | None = None

    @staticmethod
    def of(
        features: Features, metadata: Mapping[str, Any] | None = None, holdout: Features | None = None
    ) -> ReferenceFeatures:
        """A reference with all there is. `metadata`: see `Statistics`."""
        spatial = None if features.spatial is None else Statistics.of(features.spatial, metadata)
        return ReferenceFeatures(Statistics.of(features.pooled, metadata), features, spatial, holdout)


@dataclass(frozen=True)
class Inputs:
    """All that a measure may look at, and the `names` of the measures to be taken; see `compute`."""

    names: frozenset[str]
    real: ReferenceFeatures
    fake: Features
    labels: np.ndarray | None
    sampler: Callable[[], Speed] | None
    neighbours: int
    counts: Sequence[int] | None
    metadata: Mapping[str, Any]


def there(
    real: ReferenceFeatures, fake: Features, *, labels: bool, sampler: bool, counts: bool = False
) -> frozenset[Need]:
    """The needs that are met: given features of generated images or of any that are looked at alike, and whether
    classes were asked for, there is a sampler to time, and counts are given."""
    met: dict[Need, bool] = {
        "features": real.features is not None,
        "spatial": fake.spatial is not None and real.spatial is not None,
        "holdout": real.holdout is not None,
        "logits": fake.logits is not None and (real.features is None or real.features.logits is not None),
        "classes": fake.by_class is not None and (real.features is None or real.features.by_class is not None),
        "labels": labels,
        "counts": counts,
        "sampler": sampler,
    }
    return frozenset(need for need, is_met in met.items() if is_met)
