"""The Fréchet distance as a function of how many images it is computed from, and its limit for infinitely many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from trilemma.errors import InputError
from trilemma.metrics.checks import check_count
from trilemma.metrics.frechet import frechet_distance, frechet_standard_error
from trilemma.metrics.statistics import Moments, Statistics

PARTS = 4
"""Parts that the images are cut into at the most, for the extrapolation."""


@dataclass(frozen=True)
class FrechetInfinity:
    """`distance`: the Fréchet distance extrapolated to infinitely many generated images; it may come out below 0.
    `standard_error`: over draws of the images, see `frechet_infinity`. `points`: the (1/N, distance) of the line."""

    distance: float
    standard_error: float
    points: tuple[tuple[float, float], ...]


def frechet_infinity(
    *, real: Statistics, fake: Float[np.ndarray, "n d"], parts: int = PARTS, seed: int = 0
) -> FrechetInfinity:
    """FID∞ (Chong & Forsyth 2020, sec. 4): the distance from N images is, to first order, that from infinitely many
    plus b/N; a line through distances at several N, over 1/N, meets 0 there.

    The paper draws 15 subsets at random. Here the images, shuffled, are cut into 1, 2 … `parts` equal parts, and the
    distance at N = n/m is the mean over the m parts: every size sees all images, so that which ones were drawn moves
    the line as a whole and doesn't tilt it. `standard_error` is √(e² + f²), e the error of the distance itself
    (`frechet_standard_error`) and f the intercept's in the fit.

    Only the number of generated images is taken out: a small reference biases this as it does the distance. Raises
    `TooFewError` unless each of the smallest parts has more images than there are features (the distance is no line in
    1/N below that), and InputError for fewer than 3 parts, NaN, features of another length than the reference's."""
    name = "frechet_infinity"
    if parts < 3:
        raise InputError(f"{name}: parts is {parts}, expected 3 or more for a line with an error")
    check_count(fake, parts * (real.dim + 1), f"{name}: generated", f" for {real.dim} features")
    error = frechet_standard_error(real=real, fake=fake, name=name)
    shuffled = fake[np.random.default_rng(seed).permutation(len(fake))]
    heights = [
        np.mean(
            [frechet_distance(real=real, fake=Statistics.of(p), name=name) for p in np.array_split(shuffled, pieces)]
        )
        for pieces in range(1, parts + 1)
    ]
    inverse = np.arange(1, parts + 1) / len(fake)
    design = np.stack([np.ones(parts), inverse], axis=1)
    line, *_ = np.linalg.lstsq(design, np.array(heights), rcond=None)
    residual = np.sum((heights - design @ line) ** 2) / (parts - 2)
    fit = residual * np.linalg.inv(design.T @ design)[0, 0]
    points = tuple((float(x), float(y)) for x, y in zip(inverse, heights, strict=True))
    return FrechetInfinity(float(line[0]), float(np.sqrt(error**2 + fit)), points)


def frechet_by_count(
    *, real: Statistics, fake: Float[np.ndarray, "n d"], counts: Sequence[int], seed: int = 0
) -> list[tuple[int, float]]:
    """The Fréchet distance from each of `counts` images (D, figure 9), as (count, distance) in rising order: the first
    so many of the images, shuffled, so that a set is part of the next larger one. One pass over the features, and a
    distance for each count.

    Warns as `frechet_distance` does. Raises InputError for no count, a count below 2 or above n, NaN, features of
    another length than the reference's."""
    name = "frechet_by_count"
    check_count(fake, 2, f"{name}: generated")
    wrong = [count for count in counts if not 2 <= count <= len(fake)]
    if wrong or not counts:
        raise InputError(f"{name}: counts are {list(counts)}, expected some from 2 to {len(fake)}, the images at hand")
    order = np.random.default_rng(seed).permutation(len(fake))
    moments, found = Moments(), []
    for count in sorted(set(counts)):
        for start in range(moments.count, count, 4096):
            moments.update(fake[order[start : min(start + 4096, count)]])
        found.append((count, frechet_distance(real=real, fake=moments.statistics(), name=name)))
    return found
