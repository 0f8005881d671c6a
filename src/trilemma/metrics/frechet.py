"""Fréchet distance between Gaussians fitted to features of real and of generated images, and its standard error."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Float64
from scipy.linalg import blas, lapack

from trilemma.errors import InputError
from trilemma.metrics.cautions import caution
from trilemma.metrics.checks import check_count
from trilemma.metrics.statistics import Statistics, check_same_features

ROWS = 4096
"""Images whose influence is computed at once."""


def frechet_distance(*, real: Statistics, fake: Statistics, name: str = "frechet_distance") -> float:
    """|μ_r − μ_f|² + Tr(C_r + C_f − 2(C_r C_f)^½) (Heusel et al. 2017, eq. 6), in squared units of the features; lower
    is better. It is symmetric; the names only keep records straight. Of the 2015 Inception network's pooled features
    it is FID; of the first seven channels of its `Mixed_6d` 1×1 branch, sFID (Nash et al. 2021). `name`: that of the
    measure, in what it says.

    Covariances are unbiased (over n − 1), as pytorch-fid's, torchmetrics' and torch-fidelity's; those add 1e-6 to the
    diagonals where their matrix square root fails, which is not needed here (see `trace_sqrt_product`).

    Warns where images are no more than features (such covariances are singular and the distance is biased upward), and
    where all images of a side have the same features. Raises InputError for NaN, for a matrix that is no covariance,
    and for statistics of different features."""
    if real.dim != fake.dim:
        raise InputError(f"{name}: {fake.dim} features an image in fake, expected {real.dim} as in real")
    check_same_features(real.metadata.get("features"), fake.metadata.get("features"), f"{name}: fake")
    for side, statistics in (("real", real), ("generated", fake)):
        if not (np.isfinite(statistics.mean).all() and np.isfinite(statistics.cov).all()):
            raise InputError(f"{name}: NaN or infinite values in the statistics of {side} images")
        if statistics.count is not None and statistics.count <= statistics.dim:
            caution(
                f"{name}: {statistics.count} {side} images for {statistics.dim} features bias it upward, "
                f"expected more than {statistics.dim}"
            )
        if not statistics.cov.diagonal().any():
            caution(f"{name}: all {side} images have the same features")
    shift = real.mean - fake.mean
    spread = np.trace(real.cov) + np.trace(fake.cov) - 2 * trace_sqrt_product(real.cov, fake.cov)
    # The spread is never negative; rounding may leave −1e-15 of the trace.
    return float(shift @ shift + max(spread, 0.0))


def frechet_standard_error(
    *, real: Statistics, fake: Float[np.ndarray, "n d"], name: str = "frechet_distance"
) -> float:
    """The standard error of the Fréchet distance over draws of the generated images, by the infinitesimal jackknife
    (Efron 1982, ch. 6): the standard deviation of the images' influence over √n. The reference is taken as it is.

    The distance's gradient is 2(μ_f − μ_r) in the mean and I − T in the covariance, where T C_f T = C_r: T is the
    optimal transport's matrix from the generated Gaussian to the real one. The image x so has the influence
    2(μ_f − μ_r)·z + zᵀ(I − T)z, up to a constant, with z = x − μ_f. That takes an eigenvalue solve (two where C_f is
    singular) and O(n d²).

    It is of first order: where the distance is mostly its own bias (equal distributions, few images for the features)
    it comes out too large, by some 20 to 50 %. There the bootstrap, which sees copies of images, is two to three times
    too large. Raises InputError for NaN, fewer than two images, features of another length than the reference's."""
    check_count(fake, 2, f"{name}: generated")
    if real.dim != fake.shape[1]:
        raise InputError(f"{name}: {fake.shape[1]} features an image in fake, expected {real.dim} as in real")
    statistics = Statistics.of(fake)
    transport = _transport(statistics.cov, real.cov)
    shift = 2 * (statistics.mean - real.mean)
    influence = np.empty(len(fake))
    for start in range(0, len(fake), ROWS):
        z = fake[start : start + ROWS] - statistics.mean
        influence[start : start + ROWS] = z @ shift + np.einsum("nd,nd->n", z - z @ transport, z)
    return float(influence.std() / np.sqrt(len(fake)))


def _transport(start: Float64[np.ndarray, "d d"], end: Float64[np.ndarray, "d d"]) -> Float64[np.ndarray, "d d"]:
    """T with T·start·T = end, on the span of `start` (and zero off it).

    With start = GGᵀ and P the inverse of G, or its pseudo-inverse where `start` is singular, T = Pᵀ(Gᵀ end G)^½P."""
    first, last = (torch.from_numpy(np.array(cov, dtype=np.float64)) for cov in (start, end))
    factor = _cholesky(first)
    if factor is not None:
        inverse = torch.linalg.solve_triangular(factor, torch.eye(len(first), dtype=first.dtype), upper=False)
    else:
        factor = _factor(first)
        inverse = (factor / factor.square().sum(dim=0)).T
    values, vectors = torch.linalg.eigh(factor.T @ last @ factor)
    root = (inverse.T @ vectors) * values.clamp(min=0) ** 0.25
    return (root @ root.T).numpy()


def trace_sqrt_product(a: Float64[np.ndarray, "d d"], b: Float64[np.ndarray, "d d"]) -> float:
    """Tr((ab)^½) of two covariances, without a matrix square root.

    With a = LLᵀ (Cholesky), ab has the eigenvalues of the symmetric LᵀbL; the trace is the sum of their square roots.

    A root turns an error of 1e-16 at an eigenvalue of zero into 1e-8, so where a covariance is singular, or nearly, the
    trace is taken as the sum of the singular values of FᵀG instead, a = FFᵀ and b = GGᵀ, which is the same number
    without roots. F and G come from pivoted Cholesky factorisations, which end at the rank. That is exact for singular
    covariances, and takes two to three times as long. Raises InputError for a matrix that is no covariance."""
    left, right = (torch.from_numpy(np.array(cov, dtype=np.float64)) for cov in (a, b))
    lower, failed = torch.linalg.cholesky_ex(left)
    if not failed:
        # Triangular products take half the time of full ones.
        half = blas.dtrmm(1.0, lower.numpy(), right.numpy().T, lower=1, trans_a=1)
        product = blas.dtrmm(1.0, lower.numpy(), half, side=1, lower=1, overwrite_b=1)
        values = torch.linalg.eigvalsh(torch.from_numpy(product))
        if values[0] > 0:  # else b is singular, or no covariance at all, which its factorisation says
            # Rounding moves each eigenvalue by some ε of the largest, and so its root by half of that over the root.
            roots = values.sqrt()
            error = torch.finfo(values.dtype).eps * values[-1] * (0.5 / roots).sum()
            if error < 1e-9 * roots.sum():
                return float(roots.sum())
    return float(torch.linalg.svdvals(_pivoted(left).T @ _pivoted(right)).sum())


def _cholesky(cov: Float[torch.Tensor, "d d"]) -> Float[torch.Tensor, "d d"] | None:
    """The lower factor, or None where a pivot is below 1e-6 of the largest variance."""
    lower, failed = torch.linalg.cholesky_ex(cov)
    if failed or lower.diagonal().min() ** 2 <= 1e-6 * cov.diagonal().max():
        return None
    return lower


def _pivoted(cov: Float[torch.Tensor, "d d"]) -> Float[torch.Tensor, "d r"]:
    """F with cov = FFᵀ, r the numerical rank. Raises InputError where there is none: an eigenvalue is negative beyond
    rounding."""
    packed, pivots, rank, _ = lapack.dpstrf(cov.numpy(), lower=1)
    factor = torch.zeros(len(cov), rank, dtype=cov.dtype)
    factor[torch.from_numpy(pivots).long() - 1] = torch.from_numpy(np.tril(packed)[:, :rank])
    if (cov - factor @ factor.T).abs().max() > 1e-5 * cov.diagonal().abs().max():
        return _factor(cov)  # which says what is wrong, if something is
    return factor


def _factor(cov: Float[torch.Tensor, "d d"]) -> Float[torch.Tensor, "d r"]:
    """F with cov = FFᵀ and orthogonal columns, r the numerical rank. Raises InputError where an eigenvalue is negative
    beyond rounding."""
    values, vectors = torch.linalg.eigh(cov)
    if values[0] < -1e-5 * values[-1].abs():
        raise InputError(f"frechet_distance: a covariance has the eigenvalue {values[0]:.3g}, expected none below 0")
    kept = values > len(values) * torch.finfo(values.dtype).eps * values[-1].abs()
    return vectors[:, kept] * values[kept].sqrt()
