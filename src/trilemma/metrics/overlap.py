"""Two sets of images in each other's neighbourhoods: what precision, recall, density and coverage are read from, with
their standard errors."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64, Int32

from trilemma.errors import InputError
from trilemma.metrics.cautions import caution
from trilemma.metrics.checks import check_sets
from trilemma.metrics.halves import SPLITS, Estimate, mean_by_halves, random_halves
from trilemma.metrics.neighbours import MEMORY, nearest_others, squared_distance_tiles


@dataclass(frozen=True)
class Contained:
    """Points in balls, borders included. `inside`: the share of points that lie in a ball. `balls`: how many balls a
    point lies in, on the mean. `reached`: the share of balls that hold a point."""

    inside: Estimate
    balls: Estimate
    reached: Estimate


@dataclass(frozen=True)
class Overlap:
    """By k: `fake_in_real[k]` holds generated images in the balls around real ones, each of which reaches to its k-th
    nearest other real one; `real_in_fake[k]` the other way round."""

    fake_in_real: dict[int, Contained]
    real_in_fake: dict[int, Contained]


def overlap(
    *,
    real: Float[np.ndarray, "n d"],
    fake: Float[np.ndarray, "m d"],
    real_ks: Collection[int] = (),
    fake_ks: Collection[int] = (),
    name: str = "neighbours",
    memory: int = MEMORY,
) -> Overlap:
    """Points in balls for every k, of all images and of halves, in one pass over each pair of sets. `real_ks`,
    `fake_ks`: the k of balls around real and around generated images; `name`: that of the measure, in what it says.
    Beyond the features `memory` bytes and some 1.5 kB an image are used.

    Warns of balls without extent (images with k exact copies), and of fewer than 2(k + 1) images on a side, too few to
    halve for a standard error. Raises InputError for k below 1, features of two lengths, NaN, and `TooFewError` for no
    more than k images on a side.
    """
    ks = {*real_ks, *fake_ks}
    if min(ks, default=1) < 1:
        raise InputError(f"{name}: k is {min(ks)}, expected 1 or more")
    largest = max(ks, default=0)
    check_sets(name, largest + 1, f" for k = {largest}", real=real, generated=fake)
    few = min(len(real), len(fake))
    splits = {k: SPLITS if few >= 2 * (k + 1) else 0 for k in sorted(ks)}
    for k, number in splits.items():
        if not number:
            caution(f"{name}: {few} images give no standard error for k = {k}, expected {2 * (k + 1)} on each side")
    draw = np.random.default_rng(0)
    in_real, in_fake = random_halves(len(real), draw), random_halves(len(fake), draw)
    centre = real.mean(axis=0, dtype=np.float64)
    around_real = _balls(real, {k: splits[k] for k in real_ks}, in_real, in_fake, centre, memory)
    around_fake = _balls(fake, {k: splits[k] for k in fake_ks}, in_fake, in_real, centre, memory)
    for side, around in (("real", around_real), ("generated", around_fake)):
        for k, balls in around.items():
            copies = np.count_nonzero(balls.nearest[:, k - 1] == 0)
            if copies:
                caution(
                    f"{name}: {copies} of {len(balls.nearest)} {side} images have {k} or more exact copies in "
                    "features, so their neighbourhoods have no extent"
                )
    for rows, columns, squared, margin in squared_distance_tiles(real, fake, centre=centre, memory=memory):
        squared -= margin
        for balls in around_real.values():
            balls.take(rows, columns, squared)
        for balls in around_fake.values():
            balls.take(columns, rows, squared.T)
    return Overlap(
        {k: balls.contained() for k, balls in around_real.items()},
        {k: balls.contained() for k, balls in around_fake.items()},
    )


class _Balls:
    """Balls around images, the centres, and what is known so far of the points in them. The first row is of all images;
    in every split, the points of a half are looked for in balls around centres of the same half, to the k-th nearest
    other one in it. `nearest`: squared distances of each centre to others, from near to far; `ranks`: at which of those
    its ball ends; `centres`, `points`: the half they are in."""

    def __init__(
        self,
        nearest: Float64[np.ndarray, "n c"],
        ranks: Int32[np.ndarray, "s+1 n"],
        centres: Bool[np.ndarray, "s+1 n"],
        points: Bool[np.ndarray, "s+1 m"],
    ) -> None:
        self.nearest, self.ranks, self.centres, self.points = nearest, ranks, centres, points
        self.widest = nearest[np.arange(len(nearest)), ranks.max(axis=0)]
        self.balls = np.zeros(points.shape, np.int32)
        self.reached = np.zeros(centres.shape, bool)

    def take(self, rows: slice, columns: slice, squared: Float64[np.ndarray, "r c"]) -> None:
        """Count in a tile of squared distances, of centres to points."""
        i, j = np.nonzero(squared <= self.widest[rows, None])
        near = squared[i, j]
        nearest, ranks, reached = self.nearest[rows], self.ranks[:, rows], self.reached[:, rows]
        centres, points, balls = self.centres[:, rows], self.points[:, columns], self.balls[:, columns]
        for split in range(len(centres)):
            within = near <= nearest[i, ranks[split, i]]
            within &= centres[split, i] == points[split, j]
            reached[split, i[within]] = True
            balls[split] += np.bincount(j[within], minlength=balls.shape[1])

    def contained(self) -> Contained:
        """What is known once all tiles are in."""
        return Contained(
            mean_by_halves(self.balls > 0, self.points),
            mean_by_halves(self.balls, self.points),
            mean_by_halves(self.reached, self.centres),
        )


def _balls(
    features: Float[np.ndarray, "n d"],
    splits: Mapping[int, int],
    centres: Bool[np.ndarray, "s+1 n"],
    points: Bool[np.ndarray, "s+1 m"],
    centre: Float64[np.ndarray, " d"],
    memory: int,
) -> dict[int, _Balls]:
    """Balls around each vector, for each k with its number of splits."""
    if not splits:
        return {}
    # Among so many nearest ones are k of the same half, but for one image in a thousand.
    count = min(2 * max(splits) + 6 * math.isqrt(max(splits)) + 6, len(features) - 1)
    nearest, which = nearest_others(features, count, centre=centre, memory=memory)
    ranks = {k: np.empty((1 + number, len(features)), np.int32) for k, number in splits.items()}
    for split, half in enumerate(centres):
        own = (half[which] == half[:, None]).cumsum(axis=1, dtype=np.int32)
        for k, number in splits.items():
            if split <= number:
                reaches = own >= k
                reaches[:, -1] = True
                ranks[k][split] = reaches.argmax(axis=1)
    return {k: _Balls(nearest, ranks[k], centres[: 1 + s], points[: 1 + s]) for k, s in splits.items()}
