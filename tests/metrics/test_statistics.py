from __future__ import annotations

import json
import pickle

import numpy as np
import pytest

from trilemma.errors import InputError
from trilemma.metrics import Moments, PixelExtractor, Statistics, load_statistics, save_statistics


@pytest.fixture
def features() -> np.ndarray:
    rng = np.random.default_rng(0)
    return (rng.standard_normal((500, 7)) @ rng.standard_normal((7, 7)) + 3).astype(np.float32)


def moments(batches) -> Moments:
    seen = Moments()
    for batch in batches:
        seen.update(batch)
    return seen


@pytest.mark.parametrize("cuts", [[], [1], [1, 2, 3], [250], [0, 499], [100, 100, 400]])
def test_batches_of_any_sizes_give_numpys_moments(features, cuts):
    found = moments(np.split(features, cuts)).statistics()
    exact = features.astype(np.float64)
    np.testing.assert_allclose(found.mean, exact.mean(axis=0), rtol=1e-13)
    np.testing.assert_allclose(found.cov, np.cov(exact, rowvar=False), rtol=1e-11)
    assert found.count == 500
    assert (found.cov == found.cov.T).all()


def test_merged_moments_are_those_of_all(features):
    left, right = moments([features[:123]]), moments([features[123:]])
    left.merge(right)
    whole = moments([features]).statistics()
    np.testing.assert_allclose(left.statistics().cov, whole.cov, rtol=1e-11)
    np.testing.assert_allclose(left.statistics().mean, whole.mean, rtol=1e-13)
    assert right.count == 377  # what is merged in stays as it was


def test_a_far_mean_costs_no_digits():
    spread = np.random.default_rng(1).standard_normal((1000, 3))
    found = moments(np.split(spread + 1e7, 10)).statistics()
    # Σx² − n·mean² would leave nothing of a variance of 1 beside 1e14.
    np.testing.assert_allclose(found.cov, np.cov(spread, rowvar=False), atol=1e-6)


def test_more_rows_than_one_part(monkeypatch):
    many = np.random.default_rng(2).standard_normal((9000, 2))
    np.testing.assert_allclose(Statistics.of(many).cov, np.cov(many, rowvar=False), rtol=1e-11)


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_images_are_refused(features, count):
    with pytest.raises(InputError, match=f"{count} image"):
        Statistics.of(features[:count])


def test_bad_features_are_refused(features):
    features[[3, 77], 2] = np.nan, np.inf
    with pytest.raises(InputError, match="2 of 500 images"):
        Statistics.of(features)
    with pytest.raises(InputError, match="expected 7 as before"):
        moments([features[:3], features[:3, :5]])
    with pytest.raises(InputError, match="has 7 an image, expected 5 as before"):
        moments([features[:3, :5], features[:3]])
    with pytest.raises(InputError, match=r"expected \[n, d\]"):
        Statistics.of(np.zeros(4))


def test_a_file_gives_back_what_was_saved(features, tmp_path):
    metadata = {"features": PixelExtractor().record(7), "reference": {"data": "shapes", "split": "test", "count": 500}}
    saved = Statistics.of(features, metadata)
    path = save_statistics(saved, tmp_path / "new" / "stats.npz")
    found = load_statistics(path, extractor=PixelExtractor())
    assert (found.mean == saved.mean).all()
    assert (found.cov == saved.cov).all()
    assert found.count == 500
    assert found.metadata == metadata
    assert [p.name for p in path.parent.iterdir()] == ["stats.npz"]


def test_files_of_others_are_read(tmp_path):
    np.savez(tmp_path / "adm.npz", mu=np.zeros(2), sigma=np.eye(2), arr_0=np.zeros((1, 2, 2, 3), np.uint8))
    found = load_statistics(tmp_path / "adm.npz")
    assert found.dim == 2
    assert found.count is None
    assert found.metadata == {}


class Bomb:
    def __reduce__(self):
        return pytest.fail, ("a pickle was opened",)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"mu": np.zeros(2)}, "no sigma in it .it holds mu."),
        ({"arr_0": np.zeros(2)}, "no mu and no sigma"),
        ({"mu": np.zeros(2), "sigma": np.eye(3)}, r"sigma \[3, 3\]"),
        ({"mu": np.zeros((2, 2)), "sigma": np.eye(2)}, r"mu is \[2, 2\]"),
        ({"mu": np.array([0, np.nan]), "sigma": np.eye(2)}, "NaN"),
        ({"mu": np.zeros(2), "sigma": np.array([[1, 0.5], [0, 1]])}, "not symmetric"),
        ({"mu": np.array(["a", "b"]), "sigma": np.eye(2)}, "cannot be read"),
        ({"mu": np.array([Bomb(), 1], dtype=object), "sigma": np.eye(2)}, "cannot be read"),
        ({"mu": np.zeros(2), "sigma": np.eye(2), "metadata": np.array("{")}, "cannot be read"),
        ({"mu": np.zeros(2), "sigma": np.eye(2), "metadata": np.array("[1]")}, "metadata is a list"),
    ],
)
def test_files_that_hold_no_statistics_are_refused(tmp_path, arrays, message):
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(InputError, match=message) as refused:
        load_statistics(tmp_path / "bad.npz")
    assert "\n" not in str(refused.value)


def test_what_is_no_npz_is_refused(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        load_statistics(tmp_path / "absent.npz")
    (tmp_path / "pickle.npz").write_bytes(pickle.dumps(Bomb()))
    np.save(tmp_path / "array.npy", np.zeros(3))
    for name in ("pickle.npz", "array.npy"):
        with pytest.raises(InputError, match=r"not an \.npz"):
            load_statistics(tmp_path / name)
    with pytest.raises(InputError, match=r"expected an \.npz with mu_s and sigma_s"):
        load_statistics(tmp_path / "absent.npz", spatial=True)


def test_a_damaged_file_is_refused(tmp_path):
    path = tmp_path / "stats.npz"
    np.savez_compressed(path, mu=np.random.default_rng(0).standard_normal(3000), sigma=np.eye(3))
    content = bytearray(path.read_bytes())
    content[5000:5400] = bytes(400)
    path.write_bytes(content)
    with pytest.raises(InputError, match="cannot be read"):
        load_statistics(path)
    path.write_bytes(content[:2000])
    with pytest.raises(InputError, match=r"not an \.npz"):
        load_statistics(path)


def test_statistics_of_other_features_are_refused(tmp_path):
    extractor = PixelExtractor()
    for key, value in (("name", "digits"), ("sha256", "00"), ("resize", "bicubic to 299x299")):
        metadata = {"features": {**extractor.record(2), key: value}}
        path = save_statistics(Statistics(np.zeros(2), np.eye(2), 9, metadata), tmp_path / f"{key}.npz")
        with pytest.raises(InputError, match=f"{key} '{value}'"):
            load_statistics(path, extractor=extractor)
    extractor.dim = 3
    np.savez(tmp_path / "foreign.npz", mu=np.zeros(2), sigma=np.eye(2))
    with pytest.raises(InputError, match="2 features, expected 3 of 'pixels'"):
        load_statistics(tmp_path / "foreign.npz", extractor=extractor)


def test_an_unwritable_place_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        save_statistics(Statistics(np.zeros(2), np.eye(2), 9), tmp_path / "file" / "stats.npz")


def test_metadata_is_json_text(features, tmp_path):
    path = save_statistics(Statistics.of(features, {"note": "é"}), tmp_path / "stats.npz")
    with np.load(path, allow_pickle=False) as file:
        assert sorted(file.files) == ["metadata", "mu", "sigma"]
        assert json.loads(str(file["metadata"])) == {"count": 500, "note": "é"}


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"count": "x"}, "metadata has the count 'x', expected a number"),
        ({"count": True}, "count True"),
        ({"features": [1]}, r"features \[1\], expected a JSON object"),
        ({"reference": "z"}, "reference 'z', expected a JSON object"),
        ({"reference": {"size": 3}}, "reference.size 3, expected three whole numbers"),
        ({"reference": {"size": [1, 8]}}, "reference.size"),
    ],
)
def test_metadata_of_another_kind_is_refused(tmp_path, metadata, message):
    path = tmp_path / "stats.npz"
    np.savez(path, mu=np.zeros(2), sigma=np.eye(2), metadata=np.array(json.dumps(metadata)))
    with pytest.raises(InputError, match=message) as caught:
        load_statistics(path)
    assert str(path) in str(caught.value)
