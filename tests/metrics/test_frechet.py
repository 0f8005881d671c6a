from __future__ import annotations

import warnings

import numpy as np
import pytest
import scipy.linalg
import torch
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


def test_agrees_with_torchmetrics():
    theirs = pytest.importorskip("torchmetrics.image.fid")
    a, b = gaussian(5, 32), gaussian(6, 32)
    expected = theirs._compute_fid(*(torch.from_numpy(x) for x in (a.mean, a.cov, b.mean, b.cov)))
    assert frechet_distance(real=a, fake=b) == pytest.approx(float(expected), rel=1e-9)


def test_singular_agrees_with_its_regular_limit():
    a, b = gaussian(7, 30, 10), gaussian(8, 30, 12)
    ridge = 1e-8 * np.eye(30)
    limit = scipy.linalg.sqrtm((a.cov + ridge) @ (b.cov + ridge)).real.trace()
    assert trace_sqrt_product(a.cov, b.cov) == pytest.approx(limit, abs=0.02)
    assert trace_sqrt_product(a.cov, b.cov) < limit


def test_both_ways_to_the_trace_agree():
    """A null direction beside the others adds nothing to the trace, and sends it the other way."""
    a, b = gaussian(9, 50), gaussian(10, 50)
    beside = [np.pad(x.cov, (0, 1)) for x in (a, b)]
    assert trace_sqrt_product(*beside) == pytest.approx(trace_sqrt_product(a.cov, b.cov), rel=1e-12)
    assert trace_sqrt_product(beside[0], np.pad(b.cov, (1, 0))) > 0


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


@pytest.mark.parametrize(("dim", "count", "shift", "scale"), [(3, 400, 0.3, 1), (12, 300, 0.3, 0.8), (20, 30, 1, 1)])
def test_standard_error_is_the_spread_over_fresh_samples(dim, count, shift, scale):
    draw = np.random.default_rng(3)
    real = Statistics.of(draw.normal(size=(4000, dim)))
    samples = [draw.normal(shift, scale, (count, dim)) for _ in range(150)]
    spread = np.std([frechet_distance(real=real, fake=Statistics.of(x)) for x in samples], ddof=1)
    errors = [frechet_standard_error(real=real, fake=x) for x in samples[:20]]
    assert np.mean(errors) == pytest.approx(spread, rel=0.3)


def test_standard_error_agrees_with_the_bootstrap():
    draw = np.random.default_rng(4)
    real, fake = Statistics.of(draw.normal(size=(2000, 4))), draw.normal(0.3, 0.8, (1500, 4))
    resampled = [fake[draw.integers(1500, size=1500)] for _ in range(400)]
    spread = np.std([frechet_distance(real=real, fake=Statistics.of(x)) for x in resampled])
    assert frechet_standard_error(real=real, fake=fake) == pytest.approx(spread, rel=0.12)


def test_standard_error_is_not_too_small_where_the_distributions_are_equal():
    draw = np.random.default_rng(5)
    real = Statistics.of(draw.normal(size=(4000, 20)))
    samples = [draw.normal(size=(200, 20)) for _ in range(60)]
    spread = np.std([frechet_distance(real=real, fake=Statistics.of(x)) for x in samples], ddof=1)
    assert spread < frechet_standard_error(real=real, fake=samples[0]) < 2 * spread


def test_influence_is_the_derivative():
    # Weight moved to one image, by the definition of influence, against the jackknife's own sum of squares.
    draw = np.random.default_rng(6)
    real, fake = gaussian(17, 3), draw.normal(0.5, 1.2, (40, 3))
    step = 1e-5

    def moved(chosen: int) -> float:
        weights = np.full(40, (1 - step) / 40)
        weights[chosen] += step
        mean = weights @ fake
        cov = (fake - mean).T @ ((fake - mean) * weights[:, None]) * 40 / 39
        return frechet_distance(real=real, fake=Statistics(mean, cov))

    at_rest = frechet_distance(real=real, fake=Statistics.of(fake))
    influence = np.array([(moved(i) - at_rest) / step for i in range(40)])
    expected = np.sqrt(np.mean(influence**2) / 40)
    assert frechet_standard_error(real=real, fake=fake) == pytest.approx(expected, rel=0.02)


def test_standard_error_of_a_mere_shift_has_the_closed_form():
    # T = I for equal covariances: what is left is 2|shift·(x − μ)|.
    fake = np.random.default_rng(7).normal(size=(500, 4))
    shift = np.array([1.0, -2, 0, 3])
    held = Statistics.of(fake)
    found = frechet_standard_error(real=Statistics(held.mean + shift, held.cov), fake=fake)
    assert found == pytest.approx(2 * np.std(fake @ shift) / np.sqrt(500), rel=1e-9)


def test_both_ways_to_the_standard_error_agree(monkeypatch):
    real, fake = gaussian(19, 30), np.random.default_rng(20).normal(0.5, 1.2, (200, 30))
    by_cholesky = frechet_standard_error(real=real, fake=fake)
    monkeypatch.setattr("trilemma.metrics.frechet._cholesky", lambda cov: None)
    assert frechet_standard_error(real=real, fake=fake) == pytest.approx(by_cholesky, rel=1e-9)


def test_standard_error_of_singular_covariances():
    # A feature that is a sum of others adds a direction without spread, and the same error in what is left.
    draw = np.random.default_rng(8)
    real, fake = draw.normal(size=(300, 3)), draw.normal(0.5, 1.5, (200, 3))
    turn = ortho_group.rvs(4, random_state=1)[:3]  # three features into four, lengths kept
    flat = frechet_standard_error(real=Statistics.of(real), fake=fake)
    assert frechet_standard_error(real=Statistics.of(real @ turn), fake=fake @ turn) == pytest.approx(flat, rel=1e-6)
    assert frechet_standard_error(real=Statistics.of(real), fake=np.ones((20, 3))) == 0


def test_standard_error_refuses_bad_input():
    real, fake = gaussian(18, 3), np.random.default_rng(9).normal(size=(9, 3))
    with pytest.raises(TypeError):
        frechet_standard_error(real, fake)
    with pytest.raises(InputError, match=r"1 image\(s\), expected at least 2"):
        frechet_standard_error(real=real, fake=fake[:1])
    with pytest.raises(InputError, match="2 features an image in fake, expected 3"):
        frechet_standard_error(real=real, fake=fake[:, :2])
    with pytest.raises(InputError, match="NaN"):
        frechet_standard_error(real=real, fake=fake * np.nan)


def test_a_matrix_without_positive_eigenvalues_is_refused_on_either_side():
    mean = np.zeros(3)
    for wrong in (-np.eye(3), np.diag([1.0, 1.0, -0.1])):
        right, bad = Statistics(mean, np.eye(3)), Statistics(mean, wrong)
        for real, fake in ((right, bad), (bad, right)):
            with pytest.raises(InputError, match="eigenvalue"):
                frechet_distance(real=real, fake=fake)
