"""Distances between many feature vectors, a tile at a time, so that memory doesn't grow with the number of images.

Vectors are float64 and centred within a tile. Distances come from inner products, whose rounding depends on the tile;
`TIE` says how near two squared distances are taken as equal, relative to the squared lengths of the vectors: copies are
at distance 0 exactly, and ties, as copies make them, are counted alike whatever the tiles.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Float64, Int64

TIE = 1e-10
MEMORY = 256 * 2**20


def tile_side(dim: int, memory: int = MEMORY) -> int:
    """Rows in a tile such that what is held at once, some three blocks of vectors and seven of distances in float64,
    stays under `memory` bytes."""
    side = (-3 * dim + math.sqrt(9 * dim**2 + 28 * memory / 8)) / 14
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


def nearest_others(
    features: Float[np.ndarray, "n d"], count: int, *, centre: Float64[np.ndarray, " d"], memory: int = MEMORY
) -> tuple[Float64[np.ndarray, "n {count}"], Int64[np.ndarray, "n {count}"]]:
    """The squared distances of every vector to its `count` nearest other ones, from near to far, and which those are;
    n > count."""
    nearest = np.full((len(features), count), np.inf)
    which = np.zeros((len(features), count), np.int64)

    def take(rows: slice, columns: slice, squared: np.ndarray) -> None:
        joined = np.concatenate([nearest[rows], squared], axis=1)
        chosen = joined.argpartition(count - 1, axis=1)[:, :count]
        nearest[rows] = np.take_along_axis(joined, chosen, axis=1)
        held = np.take_along_axis(which[rows], np.minimum(chosen, count - 1), axis=1)
        which[rows] = np.where(chosen < count, held, chosen - count + columns.start)

    for rows, columns, squared, _ in squared_distance_tiles(
        features, features, centre=centre, memory=memory, upper=True
    ):
        if rows == columns:
            np.fill_diagonal(squared, np.inf)  # a vector is not its own neighbour
        else:
            take(columns, rows, squared.T)
        take(rows, columns, squared)
    order = nearest.argsort(axis=1)
    return np.take_along_axis(nearest, order, axis=1), np.take_along_axis(which, order, axis=1)


def nearest_distances(
    points: Float[np.ndarray, "n d"], among: Float[np.ndarray, "m d"], *, memory: int = MEMORY
) -> Float64[np.ndarray, " n"]:
    """Distance of every vector of `points` to the nearest one of `among`; 0 for a copy."""
    nearest = np.full(len(points), np.inf)
    centre = among.mean(axis=0, dtype=np.float64)
    for rows, _, squared, _ in squared_distance_tiles(points, among, centre=centre, memory=memory):
        nearest[rows] = np.minimum(nearest[rows], squared.min(axis=1))
    return np.sqrt(nearest)
