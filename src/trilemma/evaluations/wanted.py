"""What is to be measured, and refusing what could not be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trilemma.errors import InputError
from trilemma.evaluations.extractors import extractor_of
from trilemma.evaluations.reference import Reference
from trilemma.metrics import METRICS, check_needs
from trilemma.metrics.computing import check_names


@dataclass(frozen=True)
class Wanted:
    """What is to be measured: metrics by name (None: all that can be had), by which features, k of precision and
    recall, and the counts of images to compute the Fréchet distance from."""

    metrics: Sequence[str] | None
    features: str
    neighbours: int
    counts: Sequence[int] | None

    @staticmethod
    def of(metrics: Sequence[str] | None, features: str, neighbours: int, counts: Sequence[int] | None) -> Wanted:
        """Checked. Whoever gives counts wants the distances at them, whatever else; a name alone is one. Raises
        InputError."""
        metrics = [metrics] if isinstance(metrics, str) else metrics
        if neighbours < 1:
            raise InputError(f"neighbours: {neighbours}, expected 1 or more")
        if counts is not None and (not counts or min(counts) < 2):
            raise InputError(f"counts: {list(counts)}, expected whole numbers from 2")
        if metrics is not None and not metrics:
            raise InputError("metrics: none are named, expected one or more, or nothing for all that can be had")
        if metrics is not None:
            check_names(metrics)
        if metrics is not None and counts is not None:
            metrics = [*dict.fromkeys([*metrics, "frechet_by_count"])]
        return Wanted(metrics, features, neighbours, counts)

    @property
    def reference_features(self) -> bool:
        """Whether some metric takes more of the reference than its statistics."""
        return self.metrics is None or any(
            "features" in METRICS[name].needs for name in self.metrics if name in METRICS
        )

    @property
    def classes(self) -> bool:
        """Whether some metric asks which class an image has."""
        return self.metrics is None or any("classes" in METRICS[name].needs for name in self.metrics if name in METRICS)

    @property
    def holdout(self) -> bool | None:
        """Whether held-out images are needed; None: if they cost little."""
        return None if self.metrics is None else "memorisation" in self.metrics


def check_measurable(
    shape: tuple[int, int, int], against: Reference, features: str, metrics: Sequence[str] | None, **there: bool
) -> list[str]:
    """The metrics that can be had of images of this shape (c, h, w), of those named or of all. Raises InputError where
    such images cannot be held against the reference, or `metrics` need what is not `there` (see `check_needs`)."""
    if against.size is not None and against.size != shape:
        raise InputError(f"reference: its images are {against.size}, the run's {shape} (c, h, w)")
    channels, height, width = shape
    seen = against.looked(extractor_of(features)(np.zeros((1, height, width, channels), dtype=np.uint8)))
    real, name = against.features, against.record["data"]
    if real.statistics.dim != seen.dim:
        raise InputError(f"reference {name!r}: {real.statistics.dim} features, expected {seen.dim} of {features!r}")
    if real.spatial is not None and seen.spatial is not None and real.spatial.dim != seen.spatial.shape[1]:
        dims = real.spatial.dim, seen.spatial.shape[1]
        raise InputError(f"reference {name!r}: {dims[0]} spatial features, expected {dims[1]} of {features!r}")
    return check_needs(metrics, real, seen, **there)
