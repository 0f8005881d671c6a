"""Distances between many feature vectors, a tile at a time, so that memory doesn't grow with the number of images.

Vectors are float64 and centred within a tile. Distances come from inner products, whose rounding depends on the tile;
`TIE` says how near two squared distances are taken as equal, relative to the squared lengths of the vectors: copies are
at distance 0 exactly, and ties, as copies make them, are counted alike whatever the tiles.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64

from trilemma.errors import InputError
from trilemma.metrics.cautions import caution
from trilemma.metrics.checks import check_sets

TIE = 1e-10
MEMORY = 256 * 2**20


def tile_side(dim: int, memory: int = MEMORY) -> int:
    """Rows in a tile such that what is held at once, some three blocks of vectors and five of distances in float64,
    stays under `memory` bytes."""
    side = (-3 * dim + math.sqrt(9 * dim**2 + 20 * memory / 8)) / 10
    return max(int(side), 1)


def squared_distance_tiles(
    a: Float[np.ndarray, "n d"],
    b: Float[np.ndarray, "m d"],
    *,
    centre: Float64[np.ndarray, " d"],
    memory: int = MEMORY,
    upper: bool = False,
) -> Iterator[tuple[slice, slice, Float64[np.ndarray, "r c"], Float64[np.ndarray, "r c"]]]:
    """Yields (rows of a, rows of b, squared distances, their tie margin). `centre` is taken from both sides, so that
    features far from the origin keep their digits. `upper`: leave out tiles below the diagonal (for a with itself)."""
    side = tile_side(a.shape[1], memory)
    for i in range(0, len(a), side):
        rows = slice(i, min(i + side, len(a)))
        x = a[rows] - centre
        x_norms = np.einsum("nd,nd->n", x, x)[:, None]
        for j in range(i if upper else 0, len(b), side):
            columns = slice(j, min(j + side, len(b)))
            y = b[columns] - centre
            norms = x_norms + np.einsum("nd,nd->n", y, y)
            squared = x @ y.T
            squared *= -2
            squared += norms
            norms *= TIE
            squared[squared <= norms] = 0
            yield rows, columns, squared, norms


def neighbour_radii(
    features: Float[np.ndarray, "n d"], ks: Collection[int], *, centre: Float64[np.ndarray, " d"], memory: int = MEMORY
) -> dict[int, Float64[np.ndarray, " n"]]:
    """For each k of `ks`, the squared distance of every vector to its k-th nearest other one; n > k."""
    largest = max(ks)
    nearest = np.full((len(features), largest), np.inf)

    def take(rows: slice, squared: np.ndarray) -> None:
        joined = np.concatenate([nearest[rows], squared], axis=1)
        joined.partition(largest - 1, axis=1)
        nearest[rows] = joined[:, :largest]

    for rows, columns, squared, _ in squared_distance_tiles(
        features, features, centre=centre, memory=memory, upper=True
    ):
        if rows == columns:
            np.fill_diagonal(squared, np.inf)  # a vector is not its own neighbour
        else:
            take(columns, squared.T)
        take(rows, squared)
    nearest.sort(axis=1)
    return {k: nearest[:, k - 1].copy() for k in ks}


def nearest_distances(
    points: Float[np.ndarray, "n d"], among: Float[np.ndarray, "m d"], *, memory: int = MEMORY
) -> Float64[np.ndarray, " n"]:
    """Distance of every vector of `points` to the nearest one of `among`; 0 for a copy."""
    nearest = np.full(len(points), np.inf)
    centre = among.mean(axis=0, dtype=np.float64)
    for rows, _, squared, _ in squared_distance_tiles(points, among, centre=centre, memory=memory):
        nearest[rows] = np.minimum(nearest[rows], squared.min(axis=1))
    return np.sqrt(nearest)


@dataclass(frozen=True)
class Contained:
    """Points in balls. `balls` [m]: how many balls each point lies in, borders included. `reached` [n]: whether each
    ball holds a point."""

    balls: Int64[np.ndarray, " m"]
    reached: Bool[np.ndarray, " n"]

    @property
    def share(self) -> float:
        """The share of points that lie in a ball."""
        return float((self.balls > 0).mean())


@dataclass(frozen=True)
class Overlap:
    """Two sets in each other's neighbourhoods, by k: `fake_in_real[k]` holds generated images in the balls around real
    ones, each of which reaches to its k-th nearest other real one; `real_in_fake[k]` the other way round."""

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
    """What precision, recall, density and coverage are read from, for every k in one pass over each pair of sets.
    `real_ks`, `fake_ks`: the k of balls around real and around generated images; `name`: that of the measure, in what
    it says. Beyond the features some `memory` bytes are used, whatever the counts.

    Warns of balls without extent (images with k exact copies). Raises InputError for k below 1, features of two
    lengths, NaN, and `TooFewError` for no more than k images on a side.
    """
    ks = {*real_ks, *fake_ks}
    if min(ks, default=1) < 1:
        raise InputError(f"{name}: k is {min(ks)}, expected 1 or more")
    largest = max(ks, default=0)
    check_sets(name, largest + 1, f" for k = {largest}", real=real, generated=fake)
    centre = real.mean(axis=0, dtype=np.float64)
    real_radii = neighbour_radii(real, real_ks, centre=centre, memory=memory) if real_ks else {}
    fake_radii = neighbour_radii(fake, fake_ks, centre=centre, memory=memory) if fake_ks else {}
    for side, radii in (("real", real_radii), ("generated", fake_radii)):
        for k, reach in radii.items():
            copies = np.count_nonzero(reach == 0)
            if copies:
                caution(
                    f"{name}: {copies} of {len(reach)} {side} images have {k} or more exact copies in features, "
                    "so their neighbourhoods have no extent"
                )

    found = Overlap(
        {k: Contained(np.zeros(len(fake), np.int64), np.zeros(len(real), bool)) for k in real_radii},
        {k: Contained(np.zeros(len(real), np.int64), np.zeros(len(fake), bool)) for k in fake_radii},
    )
    for rows, columns, squared, margin in squared_distance_tiles(real, fake, centre=centre, memory=memory):
        squared -= margin
        for k, reach in real_radii.items():
            inside = squared <= reach[rows, None]
            found.fake_in_real[k].balls[columns] += np.count_nonzero(inside, axis=0)
            found.fake_in_real[k].reached[rows] |= inside.any(axis=1)
        for k, reach in fake_radii.items():
            inside = squared <= reach[None, columns]
            found.real_in_fake[k].balls[rows] += np.count_nonzero(inside, axis=1)
            found.real_in_fake[k].reached[columns] |= inside.any(axis=0)
    return found
