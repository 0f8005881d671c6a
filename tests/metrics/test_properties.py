"""What holds for every measure of features, whatever they are: tried on drawn sets of drawn sizes."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ortho_group

from trilemma.metrics import (
    MetricWarning,
    Statistics,
    density_coverage,
    frechet_distance,
    frechet_standard_error,
    kid,
    memorisation,
    precision_recall,
)

Figures = Callable[[np.ndarray, np.ndarray], tuple[float, ...]]


def frechet(real: np.ndarray, fake: np.ndarray) -> tuple[float, ...]:
    a, b = Statistics.of(real), Statistics.of(fake)
    return frechet_distance(real=a, fake=b), frechet_standard_error(real=a, fake=fake)


def kernel(real: np.ndarray, fake: np.ndarray) -> tuple[float, ...]:
    return (kid(real=real, fake=fake, subsets=1).full,)


def manifolds(real: np.ndarray, fake: np.ndarray) -> tuple[float, ...]:
    found = precision_recall(real=real, fake=fake)
    return found.precision, found.recall


def densities(real: np.ndarray, fake: np.ndarray) -> tuple[float, ...]:
    found = density_coverage(real=real, fake=fake)
    return found.density, found.coverage


def copies(real: np.ndarray, fake: np.ndarray) -> tuple[float, ...]:
    """The first half of the generated images is held out, so that it takes part in every map and permutation."""
    half = len(fake) // 2
    found = memorisation(real=real, fake=fake[half:], holdout=fake[:half])
    return found.share, found.ratio, found.z


MEASURES = {"frechet": frechet, "kid": kernel, "manifolds": manifolds, "densities": densities, "copies": copies}
every = pytest.mark.parametrize("measure", list(MEASURES.values()), ids=list(MEASURES))


@st.composite
def pairs(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Real and generated features: correlated, shifted, of unlike spread, sometimes fewer than they are long."""
    dim, n, m = draw(st.integers(1, 12)), draw(st.integers(8, 60)), draw(st.integers(8, 60))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    shift, spread = draw(st.floats(-2, 2)), draw(st.floats(0.1, 3))
    mixed = rng.standard_normal((dim, dim))
    return rng.standard_normal((n, dim)) @ mixed, shift + spread * rng.standard_normal((m, dim)) @ mixed


def figures(measure: Figures, real: np.ndarray, fake: np.ndarray) -> tuple[float, ...]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MetricWarning)  # few images are meant here
        return measure(real, fake)


@every
@given(pair=pairs(), seed=st.integers(0, 1000))
def test_the_order_of_images_does_not_matter(measure, pair, seed):
    rng = np.random.default_rng(seed)
    real, fake = pair
    half = len(fake) // 2  # each half for itself: `copies` takes one as held out
    turned = figures(
        measure, rng.permutation(real), np.concatenate([rng.permutation(x) for x in (fake[:half], fake[half:])])
    )
    assert turned == pytest.approx(figures(measure, *pair), rel=1e-7, abs=1e-7)


@every
@given(pair=pairs(), seed=st.integers(0, 1000))
def test_orthogonal_maps_do_not_matter(measure, pair, seed):
    dim = pair[0].shape[1]
    turn = ortho_group.rvs(dim, random_state=seed) if dim > 1 else -np.eye(1)
    assert figures(measure, *(x @ turn for x in pair)) == pytest.approx(figures(measure, *pair), rel=1e-6, abs=1e-6)


@pytest.mark.parametrize(
    "measure", [frechet, manifolds, densities, copies], ids=["frechet", "manifolds", "densities", "copies"]
)
@given(pair=pairs(), shift=st.floats(-100, 100))
def test_a_common_shift_does_not_matter(measure, pair, shift):
    expected = figures(measure, *pair)
    assert figures(measure, *(x + shift for x in pair)) == pytest.approx(expected, rel=1e-6, abs=1e-6)


@given(pair=pairs())
def test_distances_are_symmetric(pair):
    there, back = (figures(frechet, *x)[0] for x in (pair, pair[::-1]))
    assert there == pytest.approx(back, rel=1e-7, abs=1e-7)
    assert figures(kernel, *pair) == pytest.approx(figures(kernel, *pair[::-1]), rel=1e-9)


@given(pair=pairs())
def test_precision_is_the_recall_of_swapped_sides(pair):
    assert figures(manifolds, *pair) == figures(manifolds, *pair[::-1])[::-1]


@given(pair=pairs())
def test_figures_stay_within_their_ranges(pair):
    distance, error = figures(frechet, *pair)
    assert distance >= 0
    assert error >= 0
    density, coverage = figures(densities, *pair)
    assert density >= 0
    assert all(0 <= figure <= 1 for figure in (*figures(manifolds, *pair), coverage))
    assert (density == 0) == (coverage == 0)


@given(pair=pairs())
def test_a_set_is_no_distance_from_itself_and_covers_itself(pair):
    real, _ = pair
    assert figures(frechet, real, real)[0] < 1e-6 * max(1, real.var())
    assert figures(manifolds, real, real.copy()) == (1, 1)
    assert figures(densities, real, real.copy())[1] == 1
    found = memorisation(
        real=real, fake=real.copy(), holdout=np.random.default_rng(0).standard_normal((100, real.shape[1]))
    )
    assert (found.share, found.ratio) == (1, 0)


@given(pair=pairs(), times=st.integers(2, 3))
def test_generated_copies_change_no_share_of_the_reference(pair, times):
    real, fake = pair
    repeated = np.repeat(fake, times, axis=0)
    assert figures(densities, real, repeated) == pytest.approx(figures(densities, real, fake), rel=1e-12)
    assert figures(manifolds, real, repeated)[0] == pytest.approx(figures(manifolds, real, fake)[0], rel=1e-12)
