"""References and samples in files that others write: pytorch-fid's, clean-fid's, ADM's."""

from __future__ import annotations

import hashlib
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trilemma.data import open_data, write_samples
from trilemma.errors import InputError
from trilemma.evaluations import evaluate, statistics_files, write_statistics
from trilemma.metrics import Extractor, Features, MetricWarning
from trilemma.registry import register


class Quarters(Extractor):
    """Means of 2×2 blocks as features, of columns as spatial ones, and a class by brightness."""

    name, dim, sha256 = "quarters", 16, "a" * 64

    def __call__(self, images: np.ndarray) -> Features:
        x = images[..., 0].astype(np.float32) / 255
        pooled = x.reshape(-1, 4, 2, 4, 2).mean((2, 4)).reshape(-1, 16)
        level = x.mean((1, 2))
        return Features(pooled, np.stack([level, 1 - level], 1) * 9, x.mean(1))


@pytest.fixture(autouse=True)
def _quarters(forget: Callable[[], None]) -> None:
    register("features", "quarters")(Quarters)


def pictures(seed: int, n: int = 60) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, 8, 8, 1), dtype=np.uint8)


@pytest.fixture
def real(tmp_path: Path) -> Path:
    return write_samples(tmp_path / "real.npz", pictures(0))


@pytest.fixture
def fake(tmp_path: Path) -> Path:
    return write_samples(tmp_path / "fake.npz", pictures(1) // 2)


@pytest.fixture
def against(fake: Path, tmp_path: Path) -> Iterator[Any]:
    """Figures of the fake images against a reference."""
    count = 0

    def measure(reference: Path, features: str = "quarters", **given: Any) -> dict[str, Any]:
        nonlocal count
        count += 1
        return evaluate(fake, str(reference), features=features, out=tmp_path / f"e{count}.json", **given)

    return measure


def foreign(path: Path, **arrays: np.ndarray) -> Path:
    np.savez(path, **arrays)
    return path


def moments(features: np.ndarray, end: str = "") -> dict[str, np.ndarray]:
    return {f"mu{end}": features.mean(0), f"sigma{end}": np.cov(features.T.astype(np.float64))}


class TestOurs:
    def test_a_reference_batch_gives_what_the_data_gives(self, real: Path, against: Any, tmp_path: Path) -> None:
        stats = write_statistics(str(real), tmp_path / "adm.npz", "quarters", spatial=True, images=True)
        with np.load(stats, allow_pickle=False) as held:
            assert sorted(held.files) == ["arr_0", "metadata", "mu", "mu_s", "sigma", "sigma_s"]
            assert (held["arr_0"] == pictures(0)).all() and held["arr_0"].dtype == np.uint8
            seen = Quarters()(pictures(0))
            np.testing.assert_allclose(held["mu_s"], seen.spatial.mean(0), rtol=1e-6)
            np.testing.assert_allclose(held["sigma_s"], np.cov(seen.spatial.T.astype(np.float64)), rtol=1e-6)
        ours, direct = against(stats), against(real)
        assert ours.metrics.keys() == direct.metrics.keys()
        assert {"frechet_distance", "sfid", "kid", "precision", "coverage", "balance_kl"} <= ours.metrics.keys()
        for name, value in direct.metrics.items():
            found = ours.metrics[name]
            assert found == (value if isinstance(value, list) else pytest.approx(value, rel=1e-6, abs=1e-7)), name
        assert ours.reference.sha256 == direct.reference.sha256 == open_data(str(real)).fingerprint()
        assert not any("don't say" in warning for warning in ours.warnings)

    def test_spatial_statistics_need_spatial_features(self, real: Path, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="features 'pixels' have no spatial part"):
            write_statistics(str(real), tmp_path / "adm.npz", "pixels", spatial=True)
        assert not (tmp_path / "adm.npz").exists()


class TestForeign:
    def test_statistics_of_pytorch_fid(self, real: Path, against: Any, tmp_path: Path) -> None:
        stats = foreign(tmp_path / "fid_stats.npz", **moments(Quarters()(pictures(0)).pooled))
        ours, direct = against(stats), against(real)
        assert ours.metrics["frechet_distance"] == pytest.approx(direct.metrics["frechet_distance"], rel=1e-6)
        assert "precision" not in ours.metrics and "sfid" not in ours.metrics
        record = ours.content()["reference"]
        assert record["sha256"] == hashlib.sha256(stats.read_bytes()).hexdigest()
        assert "does not say" in record["sha256_of"] and record["count"] is None and record["size"] is None
        said = [text for text in ours.warnings if "don't say of which features" in text]
        assert len(said) == 1 and "taken for those of 'quarters', resize none" in said[0]

    def test_of_other_lengths_name_both(self, against: Any, tmp_path: Path) -> None:
        stats = foreign(tmp_path / "fid_stats.npz", mu=np.zeros(2048), sigma=np.eye(2048))
        with pytest.raises(InputError, match=r"2048 features, expected 16 of 'quarters'.*'inception'"):
            against(stats)
        with pytest.raises(InputError, match="2048 features, expected 128 of 'digits'"):
            against(stats, features="digits")

    def test_of_the_images_own_length_are_refused_before_sampling(self, run: Any, tmp_path: Path) -> None:
        stats = foreign(tmp_path / "fid_stats.npz", mu=np.zeros(9), sigma=np.eye(9))
        with pytest.raises(InputError, match="9 features, expected 64 of 'pixels'"):
            evaluate(run, str(stats), features="pixels", n=4)
        stats = foreign(tmp_path / "adm.npz", mu=np.zeros(16), sigma=np.eye(16), mu_s=np.zeros(3), sigma_s=np.eye(3))
        with pytest.raises(InputError, match="3 spatial features, expected 8 of 'quarters'"):
            evaluate(run, str(stats), features="quarters", n=4)
        assert not list((run.path / "samples").iterdir())

    def test_adm_s_batch_has_more_in_its_statistics_than_images(self, real: Path, against: Any, tmp_path: Path) -> None:
        seen = Quarters()(pictures(0))
        arrays = {**moments(seen.pooled), **moments(seen.spatial, "_s"), "arr_0": pictures(0)[:20]}
        ours, direct = against(foreign(tmp_path / "adm.npz", **arrays)), against(real)
        part = against(write_samples(tmp_path / "part.npz", pictures(0)[:20]))
        for name in ("frechet_distance", "sfid"):
            assert ours.metrics[name] == pytest.approx(direct.metrics[name], rel=1e-6)
            assert ours.metrics[name] != pytest.approx(part.metrics[name], rel=1e-3)
        assert ours.metrics["recall"] == part.metrics["recall"]
        assert ours.reference.images["count"] == 20

    def test_its_images_are_left_alone_where_statistics_do(
        self, against: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        stats = foreign(tmp_path / "adm.npz", **moments(Quarters()(pictures(0)).pooled), arr_0=pictures(0))
        monkeypatch.setattr(statistics_files, "features_of_set", lambda *_: pytest.fail("looked at"))
        assert against(stats, metrics=["frechet_distance"]).metrics["frechet_distance"] > 0

    def test_its_images_must_be_of_the_samples_size(self, against: Any, tmp_path: Path) -> None:
        stats = foreign(tmp_path / "a.npz", mu=np.zeros(16), sigma=np.eye(16), arr_0=np.zeros((3, 16, 16, 1), np.uint8))
        with pytest.raises(InputError, match=r"its images are \(1, 16, 16\), the samples \(1, 8, 8\)"):
            against(stats)

    @pytest.mark.parametrize("name", ["faces_clean_custom_na_kid.npz", "feats.npy"])
    def test_features_of_clean_fid(self, real: Path, against: Any, tmp_path: Path, name: str) -> None:
        pooled = Quarters()(pictures(0)).pooled
        path = tmp_path / name
        np.save(path, pooled) if path.suffix == ".npy" else np.savez(path, feats=pooled)
        ours, direct = against(path), against(real)
        for figure in ("kid", "frechet_distance", "precision", "coverage"):
            assert ours.metrics[figure] == pytest.approx(direct.metrics[figure], rel=1e-6), figure
        assert ours.reference.count == 60

    @pytest.mark.parametrize(
        ("name", "says"),
        [
            ("faces_clean_custom_na.npz", "clean-fid's resize 'clean', which 'inception-clean' has, not 'quarters'"),
            ("cifar10_legacy_pytorch_train_32.npz", "'legacy_pytorch', which 'inception' has"),
            ("ffhq_legacy_tensorflow_trainval_1024.npz", "'legacy_tensorflow', which no features here have"),
            ("clean.npz", None),
        ],
    )
    def test_clean_fid_s_names_say_the_resize(
        self, against: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, says: str | None
    ) -> None:
        stats = foreign(tmp_path / name, **moments(Quarters()(pictures(0)).pooled))
        warnings = against(stats).warnings
        assert any(says in text for text in warnings) if says else not any("clean-fid" in text for text in warnings)
        monkeypatch.setitem(statistics_files.MODES, "clean", "quarters")
        if "_clean_" in name:
            fitting = against(stats).warnings
            assert not any("clean-fid" in text or "resize" in text for text in fitting)

    def test_two_files_are_not_one_reference(self, fake: Path, tmp_path: Path) -> None:
        place = tmp_path / "e.json"
        for seed, metrics in ((0, ["frechet_distance"]), (5, ["confidence"])):
            stats = foreign(tmp_path / f"{seed}.npz", **moments(Quarters()(pictures(seed)).pooled))
            made = evaluate(fake, str(stats), features="quarters", metrics=metrics, out=place)
        assert "frechet_distance" not in made.metrics, "a figure against another file was kept"


class TestSamples:
    def test_one_damaged_among_many_is_named(self, real: Path, tmp_path: Path) -> None:
        folder = write_samples(tmp_path / "many", pictures(2, 300))
        bad = folder / "000217.png"
        bad.write_bytes(bad.read_bytes()[:-40])
        with pytest.raises(InputError, match=r"000217\.png: cannot be read as an image"):
            evaluate(folder, str(real), features="quarters")
        with zipfile.ZipFile(tmp_path / "many.zip", "w") as archive:
            for path in sorted(folder.iterdir()):
                archive.write(path, path.name)
        with pytest.raises(InputError, match=r"many\.zip:000217\.png: cannot be read as an image"):
            evaluate(tmp_path / "many.zip", str(real), features="quarters")

    def test_of_two_sizes_are_refused(self, real: Path, tmp_path: Path) -> None:
        folder = write_samples(tmp_path / "mixed", pictures(2, 3))
        larger = write_samples(tmp_path / "larger", np.zeros((1, 9, 8, 1), np.uint8))
        (larger / "000000.png").rename(folder / "more.png")
        with pytest.raises(InputError, match=r"images differ in size: .*000000\.png is 8x8, .*more\.png is 9x8"):
            evaluate(folder, str(real), features="quarters")

    @pytest.mark.parametrize(
        ("arrays", "says"),
        [
            ({"arr_0": np.zeros((4, 8, 8, 1), np.float32)}, "images are float32, expected uint8"),
            ({"arr_0": np.zeros((4, 3, 8, 8), np.uint8)}, "looks like NCHW"),
            ({"arr_0": np.zeros((4, 8, 8, 1), np.uint8), "arr_1": np.zeros(3, np.int64)}, r"arr_1 is int64 \(3,\)"),
            ({"arr_0": np.zeros((4, 8, 8, 1), np.uint8), "arr_1": np.zeros(4)}, "arr_1 is float64"),
            ({"arr_0": np.zeros((4, 8, 8, 1), np.uint8), "arr_1": np.arange(4) - 1}, "the label -1"),
            ({"images": np.zeros((4, 8, 8, 1), np.uint8)}, "has no arr_0"),
        ],
    )
    def test_of_another_kind_are_refused(self, real: Path, tmp_path: Path, arrays: dict[str, Any], says: str) -> None:
        with pytest.raises(InputError, match=says):
            evaluate(foreign(tmp_path / "samples.npz", **arrays), str(real), features="quarters")


def test_statistics_of_few_images_say_so_as_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = write_samples(tmp_path / "few.npz", pictures(2, 16))
    with warnings.catch_warnings():
        warnings.simplefilter("error", MetricWarning)
        write_statistics(str(few), tmp_path / "stats.npz", "quarters")
    assert "warning: statistics: 16 images for 16 features make a singular covariance" in capsys.readouterr().out
    write_statistics(
        str(write_samples(tmp_path / "more.npz", pictures(2, 17))), tmp_path / "more-stats.npz", "quarters"
    )
    assert "warning" not in capsys.readouterr().out
