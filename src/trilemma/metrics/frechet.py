"""Fréchet distance between Gaussians fitted to features of real and of generated images."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Float64

from trilemma.errors import InputError
from trilemma.metrics.cautions import caution
from trilemma.metrics.statistics import Statistics, check_same_features


def frechet_distance(*, real: Statistics, fake: Statistics) -> float:
    """|μ_r − μ_f|² + Tr(C_r + C_f − 2(C_r C_f)^½) (Heusel et al. 2017, eq. 6), in squared units of the features; lower
    is better. It is symmetric; the names only keep records straight.

    Warns where images are no more than features (such covariances are singular and the distance is biased upward), and
    where all images of a side have the same features. Raises InputError for NaN, for a matrix that is no covariance,
    and for statistics of different features.
    """
    if real.dim != fake.dim:
        raise InputError(f"frechet_distance: {fake.dim} features an image in fake, expected {real.dim} as in real")
    check_same_features(real.metadata.get("features"), fake.metadata.get("features"), "frechet_distance: fake")
    for side, statistics in (("real", real), ("generated", fake)):
        if not (np.isfinite(statistics.mean).all() and np.isfinite(statistics.cov).all()):
            raise InputError(f"frechet_distance: NaN or infinite values in the statistics of {side} images")
        if statistics.count is not None and statistics.count <= statistics.dim:
            caution(
                f"frechet_distance: {statistics.count} {side} images for {statistics.dim} features bias it upward, "
                f"expected more than {statistics.dim}"
            )
        if not statistics.cov.diagonal().any():
            caution(f"frechet_distance: all {side} images have the same features")
    shift = real.mean - fake.mean
    spread = np.trace(real.cov) + np.trace(fake.cov) - 2 * trace_sqrt_product(real.cov, fake.cov)
    # The spread is never negative; rounding may leave −1e-15 of the trace.
    return float(shift @ shift + max(spread, 0.0))


def frechet_standard_error(
    *, real: Statistics, fake: Float[np.ndarray, "n d"], resamples: int = 20, seed: int = 0
) -> float:
    """The standard error of the Fréchet distance over draws of the generated images, by the bootstrap: the standard
    deviation over `resamples` sets drawn from `fake` with replacement (Efron 1979). The reference is taken as it is."""
    draw = np.random.default_rng(seed)
    features = fake.astype(np.float64)
    distances = []
    for _ in range(resamples):
        # Weights instead of copies: how often each image was drawn.
        count = np.bincount(draw.integers(len(features), size=len(features)), minlength=len(features))
        mean = count @ features / len(features)
        centred = features - mean
        cov = (centred * count[:, None]).T @ centred / (len(features) - 1)
        shift = real.mean - mean
        spread = np.trace(real.cov) + np.trace(cov) - 2 * trace_sqrt_product(real.cov, cov)
        distances.append(shift @ shift + max(spread, 0.0))
    return float(np.std(distances, ddof=1))


def trace_sqrt_product(a: Float64[np.ndarray, "d d"], b: Float64[np.ndarray, "d d"]) -> float:
    """Tr((ab)^½) of two covariances, without a matrix square root.

    With a = LLᵀ (Cholesky), ab has the eigenvalues of the symmetric LᵀbL; the trace is the sum of their square roots.

    A root turns an error of 1e-16 at an eigenvalue of zero into 1e-8, so where a covariance is singular, or nearly, the
    trace is taken as the sum of the singular values of FᵀG instead, a = FFᵀ and b = GGᵀ, which is the same number
    without roots. F and G come from symmetric eigenvalue solves and leave out the null space. That is exact for
    singular covariances, and slower.
    """
    left, right = (torch.from_numpy(np.array(cov, dtype=np.float64)) for cov in (a, b))
    lower = _cholesky(left)
    if lower is not None and _cholesky(right) is not None:
        return float(torch.linalg.eigvalsh(lower.T @ right @ lower).clamp(min=0).sqrt().sum())
    return float(torch.linalg.svdvals(_factor(left).T @ _factor(right)).sum())


def _cholesky(cov: Float[torch.Tensor, "d d"]) -> Float[torch.Tensor, "d d"] | None:
    """The lower factor, or None where a pivot is below 1e-6 of the largest variance."""
    lower, failed = torch.linalg.cholesky_ex(cov)
    if failed or lower.diagonal().min() ** 2 <= 1e-6 * cov.diagonal().max():
        return None
    return lower


def _factor(cov: Float[torch.Tensor, "d d"]) -> Float[torch.Tensor, "d r"]:
    """F with cov = FFᵀ, r the numerical rank. Raises InputError where an eigenvalue is negative beyond rounding."""
    values, vectors = torch.linalg.eigh(cov)
    if values[0] < -1e-5 * values[-1].abs():
        raise InputError(f"frechet_distance: a covariance has the eigenvalue {values[0]:.3g}, expected none below 0")
    kept = values > len(values) * torch.finfo(values.dtype).eps * values[-1].abs()
    return vectors[:, kept] * values[kept].sqrt()
