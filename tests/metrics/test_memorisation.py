from __future__ import annotations

import warnings

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.stats import mannwhitneyu, ortho_group

from trilemma.errors import InputError
from trilemma.metrics import MetricWarning, TooFewError, memorisation
from trilemma.metrics.neighbours import nearest_distances


def sets(seed: int = 0, n: int = 500, m: int = 300, h: int = 200, dim: int = 5) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((size, dim)) for size in (n, m, h)]


def figures(real, fake, holdout, **arguments) -> tuple[float, float, float]:
    found = memorisation(real=real, fake=fake, holdout=holdout, **arguments)
    return found.share, found.ratio, found.z


@pytest.mark.parametrize("memory", [2**12, 2**28])
def test_nearest_distances_agree_with_brute_force(memory):
    real, fake, _ = sets()
    expected = cdist(fake, real).min(axis=1)
    np.testing.assert_allclose(nearest_distances(fake, real, memory=memory), expected, rtol=1e-9)
    assert not nearest_distances(real[:7] + 100, real + 100).any()


def test_agrees_with_the_definition_and_with_scipy():
    real, fake, holdout = sets(1)
    far, held = (cdist(x, real).min(axis=1) for x in (fake, holdout))
    share, ratio, z = figures(real, fake, holdout)
    assert share == np.mean(far < np.quantile(held, 0.01))
    assert ratio == pytest.approx(np.median(far) / np.median(held), rel=1e-9)
    test = mannwhitneyu(far, held, use_continuity=False, method="asymptotic")
    assert z == pytest.approx((test.statistic - 300 * 100) / np.sqrt(300 * 200 * 501 / 12), rel=1e-12)


def test_fresh_images_are_not_memorised():
    found = np.array([figures(*sets(seed)) for seed in range(60)])
    share, ratio, z = found.mean(axis=0)
    assert share == pytest.approx(0.01, abs=0.006)
    assert ratio == pytest.approx(1, abs=0.02)
    assert abs(z) < 0.6
    assert found[:, 2].std() == pytest.approx(1, abs=0.35)  # a standard score


def test_the_share_s_error_is_its_spread_over_fresh_draws_of_the_generated_images():
    real, _, holdout = sets(4)
    drawn = []
    for seed in range(400):
        rng = np.random.default_rng(100 + seed)
        fresh = rng.standard_normal((100, 5))
        copied = rng.random(100) < 0.2
        drawn.append(memorisation(real=real, fake=np.where(copied[:, None], real[:100], fresh), holdout=holdout))
    shares, errors = (np.array([getattr(one, name) for one in drawn]) for name in ("share", "share_se"))
    assert errors.mean() == pytest.approx(shares.std(), rel=0.12) and 0.15 < shares.mean() < 0.25
    far = memorisation(real=real, fake=real[:100] + 100, holdout=holdout)
    assert (far.share, far.share_se) == (0, 1 / 100)


def test_copies_show_in_every_figure():
    real, _, holdout = sets(2)
    assert figures(real, real[:300], holdout)[:2] == (1, 0)
    assert figures(real, real[:300], holdout)[2] < -15


def test_a_share_of_copies_among_poor_images_shows_in_the_share():
    real, fake, holdout = sets(3)
    mixed = np.concatenate([real[:60], 5 * fake[:240]])
    share, ratio, z = figures(real, mixed, holdout)
    assert share == pytest.approx(0.2, abs=0.01)
    assert ratio > 1
    assert z > 3


def test_training_and_held_out_images_are_not_exchangeable():
    real, fake, holdout = sets(4)
    assert figures(real, fake, holdout) != figures(holdout, fake, real)


def test_order_orthogonal_maps_shift_and_scale_do_not_matter():
    real, fake, holdout = sets(5)
    expected = figures(real, fake, holdout)
    turn = 7 * ortho_group.rvs(5, random_state=0)
    assert figures(real[::-1], np.roll(fake, 5, axis=0), holdout[::-1]) == pytest.approx(expected, rel=1e-9)
    assert figures(*(x @ turn + 3 for x in (real, fake, holdout))) == pytest.approx(expected, rel=1e-9)


def test_few_or_copied_held_out_images_warn():
    real, fake, holdout = sets(6)
    with pytest.warns(MetricWarning, match="99 held-out images, expected 100"):
        figures(real, fake, holdout[:99])
    with pytest.warns(MetricWarning, match="10 of 200 held-out images are copies .* left out of the share"):
        share, ratio, _ = figures(real, fake, np.concatenate([real[:10], holdout[10:]]))
    assert (share, ratio) == figures(real, fake, holdout[10:])[:2]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figures(real, fake, holdout)


def test_constant_features_have_no_ratio():
    ones = np.ones((100, 2))
    with pytest.warns(MetricWarning, match="copies"):
        share, ratio, z = figures(ones, ones, ones)
    assert z == 0
    assert np.isnan([share, ratio]).all()


def test_copies_show_though_some_held_out_images_are_copies_too():
    real, _, holdout = sets(8)
    with pytest.warns(MetricWarning, match="copies"):
        assert figures(real, real[:300], np.concatenate([real[:10], holdout[10:]]))[:2] == (1, 0)


def test_one_image_is_measured():
    real, fake, holdout = sets(7)
    assert figures(real, real[:1], holdout)[0] == 1
    assert figures(real, 9 + fake[:1], holdout)[0] == 0


def test_bad_input_is_refused():
    real, fake, holdout = sets()
    with pytest.raises(TypeError):
        memorisation(real, fake, holdout)
    with pytest.raises(TooFewError, match=r"holdout: 0 image\(s\), expected at least 1"):
        memorisation(real=real, fake=fake, holdout=holdout[:0])
    with pytest.raises(InputError, match="holdout images have 4 features, expected 5"):
        memorisation(real=real, fake=fake, holdout=holdout[:, :4])
    holdout[1, 1] = np.nan
    with pytest.raises(InputError, match="1 of 200 images have NaN"):
        memorisation(real=real, fake=fake, holdout=holdout)
