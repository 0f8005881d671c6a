"""Improved precision and recall (Kynkäänniemi et al. 2019): how much of the generated set lies where real images do,
and how much of the real set the generated one reaches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from trilemma.metrics.neighbours import MEMORY
from trilemma.metrics.overlap import Overlap, overlap


@dataclass(frozen=True)
class PrecisionRecall:
    """`precision`: share of generated images inside the real manifold. `recall`: share of real images inside the
    generated one. Both in [0, 1], higher is better. `precision_se`, `recall_se`: standard errors over draws of both
    sets, NaN for fewer than 2(k + 1) images in one."""

    precision: float
    recall: float
    precision_se: float
    recall_se: float

    @staticmethod
    def of(found: Overlap, k: int) -> PrecisionRecall:
        """Read from an overlap that has `k` on both sides."""
        precision, recall = found.fake_in_real[k].inside, found.real_in_fake[k].inside
        return PrecisionRecall(precision.value, recall.value, precision.standard_error, recall.standard_error)


def precision_recall(
    *, real: Float[np.ndarray, "n d"], fake: Float[np.ndarray, "m d"], k: int = 3, memory: int = MEMORY
) -> PrecisionRecall:
    """Precision and recall (eqs. 1-3 of the paper): a set's manifold is the union of balls around its images, each
    reaching to the k-th nearest other one of the set, its border included.

    The balls shrink as a set grows, so figures compare at equal counts and equal k only. torch-fidelity computes the
    same, by default on VGG-16's features; `prdc` leaves the border out, which shows in copies alone. Warnings, errors
    and memory: see `overlap`.
    """
    found = overlap(real=real, fake=fake, real_ks=[k], fake_ks=[k], name="precision_recall", memory=memory)
    return PrecisionRecall.of(found, k)
