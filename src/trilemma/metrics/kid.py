"""Kernel Inception Distance (Bińkowski et al. 2018): the squared maximum mean discrepancy between the features of real
and of generated images. Unlike the Fréchet distance it is unbiased at any count and assumes no Gaussians."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64

from trilemma.errors import InputError
from trilemma.metrics.cautions import caution
from trilemma.metrics.checks import check_sets
from trilemma.metrics.neighbours import MEMORY, tile_side


@dataclass(frozen=True)
class KernelDistance:
    """`mean` and `std` over subsets, the figures that are usually printed as "KID ± std"; `std` is how far one subset's
    figure lies from another's, not an error of `mean`. `full`: the same unbiased estimate from all images at once.
    `standard_error`: that of `mean` over draws of the generated images. All may be below 0."""

    mean: float
    std: float
    full: float
    standard_error: float


def kid(
    *,
    real: Float[np.ndarray, "n d"],
    fake: Float[np.ndarray, "m d"],
    subsets: int = 100,
    subset_size: int = 1000,
    seed: int = 0,
    memory: int = MEMORY,
) -> KernelDistance:
    """The unbiased estimate of MMD² (sec. 4 of the paper, after Gretton et al. 2012, eq. 3) with the kernel
    (x·y/d + 1)³, in `subsets` pairs of subsets of `subset_size` images, drawn without replacement; a side with fewer
    images is taken whole.

    Every kernel value is computed once, tile by tile, and summed for all subsets at a time; so all images together come
    for free. `standard_error`² is (2/√m · std of a generated image's mean kernel to the generated less that to the real
    ones)², the first-order error of `full`, plus std²/subsets, for the subsets' own draw. Where real and generated
    images are alike it comes out too large. Beyond the features, `memory` bytes and 8 for each image and subset are
    used.

    torch-fidelity and torchmetrics give `mean` and `std` for subsets of their own draw; torch-fidelity refuses sets
    smaller than a subset. The estimate is neither invariant to shifts of all features nor to their scale. Warns where
    all images of a side have the same features. Raises InputError for NaN, features of two lengths, subsets below 1 or
    subset_size below 2, and `TooFewError` for fewer than two images a side."""
    if subsets < 1 or subset_size < 2:
        raise InputError(f"kid: {subsets} subsets of {subset_size} images, expected 1 or more of at least 2")
    check_sets("kid", 2, real=real, generated=fake)
    for side, features in (("real", real), ("generated", fake)):
        if (features == features[0]).all():
            caution(f"kid: all {side} images have the same features")
    draw = np.random.default_rng(seed)
    in_real, in_fake = (_memberships(draw, len(x), min(subset_size, len(x)), subsets) for x in (real, fake))
    (n, n_some), (m, m_some) = ((len(x), min(subset_size, len(x))) for x in (real, fake))

    within_real, _ = _kernel_sums(real, real, in_real, in_real, memory, itself=True)
    within_fake, to_fake = _kernel_sums(fake, fake, in_fake, in_fake, memory, itself=True)
    across, to_real = _kernel_sums(fake, real, in_fake, in_real, memory)

    # The first column is of all images, the others are of the subsets.
    n_each, m_each = (np.array([whole] + [some] * subsets) for whole, some in ((n, n_some), (m, m_some)))
    estimates = within_real / (n_each * (n_each - 1.0)) + within_fake / (m_each * (m_each - 1.0))
    estimates -= 2 * across / (n_each * m_each)
    full, each = float(estimates[0]), estimates[1:]
    influence = to_fake / (m - 1) - to_real / n
    variance = 4 * influence.var(ddof=1) / m + each.var() / subsets
    return KernelDistance(float(each.mean()), float(each.std()), full, math.sqrt(variance))


def _memberships(draw: np.random.Generator, count: int, size: int, subsets: int) -> Float64[np.ndarray, "n s+1"]:
    """Which images each subset has, as columns of ones and zeros, after a column of all images."""
    columns = np.zeros((count, 1 + subsets))
    columns[:, 0] = 1
    for subset in range(1, 1 + subsets):
        columns[draw.choice(count, size, replace=False), subset] = 1
    return columns


def _kernel_sums(
    a: Float[np.ndarray, "n d"],
    b: Float[np.ndarray, "m d"],
    in_a: Float64[np.ndarray, "n s"],
    in_b: Float64[np.ndarray, "m s"],
    memory: int,
    itself: bool = False,
) -> tuple[Float64[np.ndarray, " s"], Float64[np.ndarray, " n"]]:
    """The sum of the kernel over pairs that are both in a subset, for each subset; and over all of b, for each of a.
    `itself`: b is a, and an image makes no pair with itself."""
    side = tile_side(a.shape[1] + in_a.shape[1], memory)
    sums, of_rows = np.zeros(in_a.shape[1]), np.zeros(len(a))
    for i in range(0, len(a), side):
        x = a[i : i + side].astype(np.float64)
        for j in range(i if itself else 0, len(b), side):
            kernel = x @ b[j : j + side].astype(np.float64).T
            kernel /= a.shape[1]
            kernel += 1
            kernel *= kernel * kernel
            if itself and i == j:
                np.fill_diagonal(kernel, 0)
            by_row = kernel @ in_b[j : j + side]
            of_rows[i : i + side] += by_row[:, 0]
            twice = itself and i < j  # the tile below the diagonal is this one, turned
            if twice:
                of_rows[j : j + side] += kernel.sum(axis=0)
            sums += (1 + twice) * np.einsum("ns,ns->s", in_a[i : i + side], by_row)
    return sums, of_rows
