from __future__ import annotations

import warnings

import numpy as np
import pytest
import scipy.linalg
from scipy.stats import ortho_group

from trilemma.errors import InputError
from trilemma.metrics import MetricWarning, Statistics, frechet_distance
from trilemma.metrics.frechet import frechet_standard_error, trace_sqrt_product


def covariance(rng: np.random.Generator, dim: int, rank: int | None = None) -> np.ndarray:
    factor = rng.standard_normal((dim, rank or 2 * dim))
    return factor @ factor.T / factor.shape[1]


def gaussian(seed: int, dim: int = 12, rank: int | None = None) -> Statistics:
    rng = np.random.default_rng(seed)
    return Statistics(rng.standard_normal(dim), covariance(rng, dim, rank))


def distance_by_sqrtm(a: Statistics, b: Statistics) -> float:
    root = scipy.linalg.sqrtm(a.cov @ b.cov).real
    return float(((a.mean - b.mean) ** 2).sum() + np.trace(a.cov + b.cov - 2 * root))


@pytest.mark.parametrize("rank", [None, 5, 1])
def test_a_set_is_at_distance_zero_of_itself(rank):
    x = gaussian(0, 200, rank)
    assert abs(frechet_distance(real=x, fake=x)) < 1e-6


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_a_shift_of_the_mean_gives_its_square(scale):
    rng = np.random.default_rng(1)
    features = rng.standard_normal((400, 20))
    shift = scale * rng.standard_normal(20)
    real, fake = Statistics.of(features), Statistics.of(features + shift)
    assert frechet_distance(real=real, fake=fake) == pytest.approx(shift @ shift, rel=1e-6)


def test_scaled_gaussians_have_the_closed_form():
    a = gaussian(2)
    b = Statistics(a.mean, 9 * a.cov)
    # (C · 9C)^½ = 3C, so what is left is Tr(C + 9C − 6C).
    assert frechet_distance(real=a, fake=b) == pytest.approx(4 * np.trace(a.cov), rel=1e-12)


def test_gaussians_with_common_axes_have_the_closed_form():
    rng = np.random.default_rng(3)
    axes = ortho_group.rvs(15, random_state=rng)
    v, w = rng.uniform(0.5, 2, (2, 15))
    a = Statistics(np.zeros(15), axes @ np.diag(v) @ axes.T)
    b = Statistics(np.zeros(15), axes @ np.diag(w) @ axes.T)
    assert frechet_distance(real=a, fake=b) == pytest.approx(((v**0.5 - w**0.5) ** 2).sum(), rel=1e-10)


def test_singular_gaussians_with_common_axes_have_the_closed_form():
    v = np.array([4.0, 1.0, 0.0, 0.0, 1e-9])
    w = np.array([1.0, 0.0, 9.0, 0.0, 4e-9])
    a, b = (Statistics(np.zeros(5), np.diag(x)) for x in (v, w))
    assert frechet_distance(real=a, fake=b) == pytest.approx(((v**0.5 - w**0.5) ** 2).sum(), rel=1e-12)


def test_a_point_is_at_the_trace_of_the_other():
    b = gaussian(4)
    point = Statistics(b.mean, np.zeros_like(b.cov))
    with pytest.warns(MetricWarning, match="same features"):
        assert frechet_distance(real=point, fake=b) == pytest.approx(np.trace(b.cov), rel=1e-12)


@pytest.mark.parametrize("dim", [1, 3, 40])
def test_agrees_with_the_matrix_square_root(dim):
    a, b = gaussian(5, dim), gaussian(6, dim)
    assert frechet_distance(real=a, fake=b) == pytest.approx(distance_by_sqrtm(a, b), rel=1e-9)


def test_singular_agrees_with_its_regular_limit():
    a, b = gaussian(7, 30, 10), gaussian(8, 30, 12)
    ridge = 1e-8 * np.eye(30)
    limit = scipy.linalg.sqrtm((a.cov + ridge) @ (b.cov + ridge)).real.trace()
    assert trace_sqrt_product(a.cov, b.cov) == pytest.approx(limit, abs=0.02)
    assert trace_sqrt_product(a.cov, b.cov) < limit


def test_both_ways_to_the_trace_agree(monkeypatch):
    a, b = gaussian(9, 50), gaussian(10, 50)
    by_eigenvalues = trace_sqrt_product(a.cov, b.cov)
    monkeypatch.setattr("trilemma.metrics.frechet._cholesky", lambda cov: None)
    assert trace_sqrt_product(a.cov, b.cov) == pytest.approx(by_eigenvalues, rel=1e-12)


@pytest.mark.parametrize("rank", [None, 4])
def test_symmetry_and_orthogonal_invariance(rank):
    a, b = gaussian(11, 12, rank), gaussian(12, 12)
    turn = ortho_group.rvs(12, random_state=0)
    distance = frechet_distance(real=a, fake=b)
    turned = [Statistics(turn @ x.mean, turn @ x.cov @ turn.T) for x in (a, b)]
    assert frechet_distance(real=b, fake=a) == pytest.approx(distance, rel=1e-10)
    assert frechet_distance(real=turned[0], fake=turned[1]) == pytest.approx(distance, rel=1e-10)


def test_order_of_images_does_not_matter():
    features = np.random.default_rng(13).standard_normal((300, 8)).astype(np.float32)
    other = gaussian(14, 8)
    a = frechet_distance(real=other, fake=Statistics.of(features))
    assert frechet_distance(real=other, fake=Statistics.of(features[::-1])) == pytest.approx(a, rel=1e-12)


def test_positional_arguments_are_refused():
    with pytest.raises(TypeError):
        frechet_distance(gaussian(0), gaussian(1))


def test_few_images_warn_on_their_side():
    rng = np.random.default_rng(15)
    few, many = Statistics.of(rng.standard_normal((10, 10))), Statistics.of(rng.standard_normal((11, 10)))
    with pytest.warns(MetricWarning, match="10 generated images for 10 features"):
        frechet_distance(real=many, fake=few)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        frechet_distance(real=many, fake=many)


def test_constant_features_give_their_squared_distance():
    real, fake = Statistics.of(np.full((20, 3), 2.0)), Statistics.of(np.full((20, 3), 5.0))
    with pytest.warns(MetricWarning, match="same features"):
        assert frechet_distance(real=real, fake=fake) == 27


def test_bad_statistics_are_refused():
    a = gaussian(16, 4)
    with pytest.raises(InputError, match="expected 4"):
        frechet_distance(real=a, fake=gaussian(16, 5))
    with pytest.raises(InputError, match="NaN"):
        frechet_distance(real=a, fake=Statistics(a.mean * np.nan, a.cov))
    with pytest.raises(InputError, match="eigenvalue -1"):
        frechet_distance(real=a, fake=Statistics(a.mean, np.diag([3.0, 1, 1, -1])))
    named = [Statistics(a.mean, a.cov, metadata={"features": {"name": n, "sha256": n}}) for n in ("digits", "pixels")]
    with pytest.raises(InputError, match="'pixels', expected 'digits'"):
        frechet_distance(real=named[0], fake=named[1])


def test_standard_error_is_the_spread_over_fresh_samples():
    draw = np.random.default_rng(3)
    real = Statistics.of(draw.normal(size=(4000, 3)))
    fresh = [frechet_distance(real=real, fake=Statistics.of(draw.normal(0.3, 1, (400, 3)))) for _ in range(200)]
    errors = [frechet_standard_error(real=real, fake=draw.normal(0.3, 1, (400, 3)), resamples=100) for _ in range(5)]
    assert np.mean(errors) == pytest.approx(np.std(fresh), rel=0.25)
