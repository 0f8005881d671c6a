"""Standard errors by halves, of means over images that depend on one another, as counts of neighbours do.

The variance of such a mean is that of independent images times a design effect (Kish 1965, Survey Sampling, ch. 8). The
images are split in halves at random, again and again. A half is measured as if there were no other images, so the two
halves' figures are independent, and the mean square of their difference, over what independent images would give, is
the design effect (after the random groups of Wolter 2007, Introduction to Variance Estimation, ch. 2). Of two sets both
are split, and the error is over draws of both.

That holds for neighbours, where two usual ways fail. The bootstrap draws images twice, and a copy is a neighbour at no
distance (Abadie & Imbens 2008, for matching). The jackknife leaves out one image at a time, and comes out 1.3 to 2.2
times too large: what depends on several images together it counts once for each of them (Efron & Stein 1981).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Shaped

SPLITS = 64
"""Random splits in halves. Their own draw moves an error by some 10 %."""


@dataclass(frozen=True)
class Estimate:
    """A figure and its standard error, NaN where there are too few images for one."""

    value: float
    standard_error: float


def random_halves(count: int, draw: np.random.Generator) -> Bool[np.ndarray, "s+1 n"]:
    """Which half each image is in: in the first row all in one, then for each of `SPLITS` at random."""
    sides = np.broadcast_to(np.arange(count) % 2 == 1, (SPLITS, count))
    return np.concatenate([np.zeros((1, count), bool), draw.permuted(sides, axis=1)])


def mean_by_halves(values: Shaped[np.ndarray, "s+1 n"], halves: Bool[np.ndarray, "s+1 n"]) -> Estimate:
    """The mean of the values that images have among all, in the first row, with its standard error, from the values
    they have in their half of each split.

    The error is at least 1/n, one image's part: a share that is 0 or 1 in the images at hand is known no better than
    that. Without splits it is NaN.
    """
    value, count = float(values[0].mean()), values.shape[1]
    if len(values) == 1:
        return Estimate(value, math.nan)
    sides = np.stack([halves[1:], ~halves[1:]])
    sizes, own = sides.sum(axis=2), values[1:].astype(np.float64)
    means, squares = (np.einsum("sn,hsn->hs", each, sides) / sizes for each in (own, own**2))
    between = np.mean((means[0] - means[1]) ** 2)
    if_independent = np.mean(((squares - means**2) / sizes).sum(axis=0))
    effect = between / if_independent if if_independent else 1.0
    return Estimate(value, max(math.sqrt(effect * values[0].var() / count), 1 / count))
