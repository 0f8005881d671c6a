"""Density and coverage (Naeem et al. 2020): precision that counts how many neighbourhoods an image lies in, and recall
by neighbourhoods of real images alone, which outliers among the generated ones cannot widen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from trilemma.metrics.neighbours import MEMORY
from trilemma.metrics.overlap import Overlap, overlap

DENSITY_NEIGHBOURS = 5
"""The paper's k."""


@dataclass(frozen=True)
class DensityCoverage:
    """`density`: 0 or more, about 1 where the two distributions are equal, above 1 where generated images gather where
    the real ones are densest. `coverage`: share of real images with a generated one in their neighbourhood, in [0, 1].
    Higher is better in both. `density_se`, `coverage_se`: standard errors over draws of both sets, NaN for fewer than
    2(k + 1) images in one."""

    density: float
    coverage: float
    density_se: float
    coverage_se: float

    @staticmethod
    def of(found: Overlap, k: int) -> DensityCoverage:
        """Read from an overlap that has `k` on the real side."""
        balls, reached = found.fake_in_real[k].balls, found.fake_in_real[k].reached
        return DensityCoverage(balls.value / k, reached.value, balls.standard_error / k, reached.standard_error)


def density_coverage(
    *,
    real: Float[np.ndarray, "n d"],
    fake: Float[np.ndarray, "m d"],
    k: int = DENSITY_NEIGHBOURS,
    memory: int = MEMORY,
) -> DensityCoverage:
    """Density, (1/km) Σ_j Σ_i [y_j in B(x_i)], and coverage, (1/n) Σ_i [some y_j in B(x_i)], as the paper's section 3
    defines them: x real, y generated, B(x_i) the ball to the k-th nearest other real image.

    For equal distributions the expected density is 1, the expected coverage 1 − Π_{i=1..k} (n − i)/(n + m − i), some
    1 − 2^−k at equal counts: 0.97 for k = 5. As for precision and recall, figures compare at equal counts and equal k
    only, and the balls include their borders (those of the `prdc` package don't, which shows in copies alone).
    Warnings, errors and memory: see `overlap`.
    """
    found = overlap(real=real, fake=fake, real_ks=[k], name="density_coverage", memory=memory)
    return DensityCoverage.of(found, k)
