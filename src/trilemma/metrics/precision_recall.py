"""Improved precision and recall (Kynkäänniemi et al. 2019): how much of the generated set lies where real images do,
and how much of the real set the generated one reaches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from trilemma.errors import InputError
from trilemma.metrics.cautions import caution
from trilemma.metrics.features import check_rows
from trilemma.metrics.neighbours import MEMORY, neighbour_radii, squared_distance_tiles


@dataclass(frozen=True)
class PrecisionRecall:
    """`precision`: share of generated images inside the real manifold. `recall`: share of real images inside the
    generated one. Both in [0, 1], higher is better."""

    precision: float
    recall: float


def precision_recall(
    *, real: Float[np.ndarray, "n d"], fake: Float[np.ndarray, "m d"], k: int = 3, memory: int = MEMORY
) -> PrecisionRecall:
    """Precision and recall (eqs. 1-3 of the paper): a set's manifold is the union of balls around its images, each
    reaching to the k-th nearest other one of the set, its border included.

    The balls shrink as a set grows, so figures compare at equal counts and equal k only. Beyond the features some
    `memory` bytes are used, whatever the counts. Warns of balls without extent (images with k exact copies). Raises
    InputError for k below 1, no more than k images on a side, features of two lengths, NaN.
    """
    if k < 1:
        raise InputError(f"precision_recall: k is {k}, expected 1 or more")
    for side, features in (("real", real), ("generated", fake)):
        check_rows(features, f"precision_recall: {side} features")
        if len(features) <= k:
            raise InputError(f"precision_recall: {len(features)} {side} image(s), expected more than k = {k}")
    if real.shape[1] != fake.shape[1]:
        raise InputError(f"precision_recall: {fake.shape[1]} features in fake, expected {real.shape[1]} as in real")

    centre = real.mean(axis=0, dtype=np.float64)
    real_radii = neighbour_radii(real, k, centre=centre, memory=memory)
    fake_radii = neighbour_radii(fake, k, centre=centre, memory=memory)
    for side, radii in (("real", real_radii), ("generated", fake_radii)):
        copies = np.count_nonzero(radii == 0)
        if copies:
            caution(
                f"precision_recall: {copies} of {len(radii)} {side} images have {k} or more exact copies in features, "
                "so their neighbourhoods have no extent"
            )

    inside_real = np.zeros(len(fake), dtype=bool)
    inside_fake = np.zeros(len(real), dtype=bool)
    for rows, columns, squared, margin in squared_distance_tiles(real, fake, centre=centre, memory=memory):
        squared -= margin
        inside_real[columns] |= (squared <= real_radii[rows, None]).any(axis=0)
        inside_fake[rows] |= (squared <= fake_radii[None, columns]).any(axis=1)
    return PrecisionRecall(float(inside_real.mean()), float(inside_fake.mean()))
