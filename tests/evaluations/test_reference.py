"""References: features kept on disk and in the process, never stale; held-out images beside training ones."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from trilemma.data import Opening, open_data, write_samples
from trilemma.evaluations import cache as feature_cache
from trilemma.evaluations import evaluating, reference
from trilemma.evaluations.cache import features_of_set, place_of
from trilemma.evaluations.extractors import extractor_of
from trilemma.evaluations.reference import features_of, open_reference
from trilemma.metrics import PixelExtractor, extract
from trilemma.runs import Run


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything takes long enough to be kept."""
    monkeypatch.setattr(feature_cache, "SLOW", 0.0)


@pytest.fixture
def no_extraction(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("extracted again")

    monkeypatch.setattr(feature_cache, "extract", refuse)


def left(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "cache").rglob("*") if path.is_file())


class TestOnDisk:
    @pytest.mark.usefixtures("slow")
    def test_kept_features_are_those_computed(self, tmp_path: Path, request: pytest.FixtureRequest) -> None:
        data, look = open_data("mnist5k", split="test"), extractor_of("digits")
        first = features_of_set(data, look)
        assert left(tmp_path) == [place_of(data, look).name] and place_of(data, look).exists()
        request.getfixturevalue("no_extraction")
        again = features_of_set(open_data("mnist5k", split="test"), look)
        assert again.logits is not None and first.logits is not None and again.spatial is None
        assert again.pooled.dtype == np.float32 and (again.pooled == first.pooled).all()
        assert (again.logits == first.logits).all()

    @pytest.mark.usefixtures("slow")
    def test_other_images_or_weights_are_other_files(self, data: Path) -> None:
        whole, pixels = open_data(str(data)), PixelExtractor()
        other = open_data(str(data), size=7)
        weights = PixelExtractor()
        weights.sha256 = "0" * 64
        places = {place_of(whole, pixels), place_of(other, pixels), place_of(whole, weights)}
        assert len(places) == 3

    def test_what_is_quick_leaves_nothing(self, data: Path, tmp_path: Path) -> None:
        features_of_set(open_data(str(data)), PixelExtractor())
        assert left(tmp_path) == []

    @pytest.mark.usefixtures("slow")
    @pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "pickle", "fewer", "other", "nan"])
    def test_a_damaged_file_is_computed_again_with_a_warning(
        self, data: Path, damage: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        held, look = open_data(str(data)), PixelExtractor()
        right = features_of_set(held, look)
        place = place_of(held, look)
        content = bytearray(place.read_bytes())
        with np.load(place) as file:
            arrays = dict(file)
        match damage:
            case "cut":
                place.write_bytes(content[:-300])
            case "flipped":
                content[2000] ^= 255
                place.write_bytes(content)
            case "empty":
                place.write_bytes(b"")
            case "pickle":
                place.write_bytes(pickle.dumps([1]))
            case "fewer":
                np.savez(place, **{**arrays, "pooled": arrays["pooled"][:-1]})
            case "other":
                np.savez(place, **{**arrays, "key": np.array("{}")})
            case "nan":
                np.savez(place, **{**arrays, "pooled": arrays["pooled"] * np.nan})
        capsys.readouterr()
        found = features_of_set(held, look)
        assert (found.pooled == right.pooled).all()
        assert "is damaged" in capsys.readouterr().out
        assert (features_of_set(held, look).pooled == right.pooled).all()
        assert "damaged" not in capsys.readouterr().out, "it was not written anew"

    @pytest.mark.usefixtures("slow")
    def test_a_folder_that_cannot_be_written_costs_nothing(
        self, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("TRILEMMA_CACHE", str(tmp_path / "file"))
        assert len(features_of_set(open_data(str(data)), PixelExtractor())) == 24
        assert "cannot be kept" in capsys.readouterr().out


class TestInTheProcess:
    def test_a_changed_file_is_read_again(self, tmp_path: Path) -> None:
        path = tmp_path / "set.npz"
        for i, value in enumerate((10, 200)):
            np.savez(path, arr_0=np.full((5, 4, 4, 1), value, np.uint8))
            os.utime(path, ns=(i, i))
            features, record = features_of(str(path), "train", "pixels")
            assert np.allclose(features.pooled, value / 255)
            assert record["sha256"] == open_data(str(path)).fingerprint()

    def test_an_unchanged_one_is_not(self, data: Path) -> None:
        first = features_of(str(data), "train", "pixels")[0]
        assert features_of(str(data), "train", "pixels")[0] is first
        assert features_of(str(data), "train", "pixels", Opening(size=7))[0].dim == 49


class TestHoldout:
    def test_is_the_test_split_of_a_source(self) -> None:
        found = open_reference("mnist5k", "pixels", classes=False)
        held = found.features.holdout
        test = open_data("mnist5k", split="test")
        assert held is not None
        images, _ = test.batch(range(500))
        assert (held.pooled == extract([images], PixelExtractor()).pooled).all()
        assert found.record["holdout"] == {"split": "test", "count": 500, "sha256": test.fingerprint()}

    @pytest.mark.parametrize(("spec", "asked"), [("mnist5k:test", None), ("mnist5k:all", True), ("mnist5k", False)])
    def test_is_of_a_training_split_only_and_of_none_when_unwanted(self, spec: str, asked: bool | None) -> None:
        found = open_reference(spec, "pixels", classes=False, holdout=asked)
        assert found.features.holdout is None and "holdout" not in found.record

    def test_that_takes_long_is_computed_when_asked_for_or_kept(
        self, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
    ) -> None:
        monkeypatch.setattr(reference, "FEW", 4500)
        assert open_reference("mnist5k", "pixels", classes=False).features.holdout is None
        assert open_reference("mnist5k", "pixels", classes=False, holdout=True).features.holdout is not None
        request.getfixturevalue("slow")
        features_of_set(open_data("mnist5k", split="test"), PixelExtractor())
        assert open_reference("mnist5k", "pixels", classes=False).features.holdout is not None

    def test_of_a_path_is_its_test_folder_or_what_is_held_out(self, tmp_path: Path) -> None:
        images = np.random.default_rng(0).integers(0, 256, (8, 4, 4, 1), dtype=np.uint8)
        write_samples(tmp_path / "set" / "train", images[:5])
        write_samples(tmp_path / "set" / "test", images[5:])
        spec = str(tmp_path / "set")
        held = open_reference(spec, "pixels").features.holdout
        assert held is not None and len(held) == 3
        assert open_reference(spec, "pixels", holdout=False).features.holdout is None
        write_samples(tmp_path / "plain.npz", images)
        assert open_reference(str(tmp_path / "plain.npz"), "pixels", holdout=True).features.holdout is None


def test_so_many_spread_over_the_data_stand_for_all(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = open_reference(str(data), "pixels", most=6)
    images, _ = open_data(str(data)).batch(np.linspace(0, 23, 6).astype(int))
    assert few.record["count"] == 6 and few.record["sha256"] != open_reference(str(data), "pixels").record["sha256"]
    assert np.array_equal(few.features.features.pooled, extract([images], extractor_of("pixels")).pooled)
    assert "6 of" in capsys.readouterr().out
    assert open_reference(str(data), "pixels", most=24).record["count"] == 24
    assert open_reference(str(data), "pixels", most=6, holdout=True).features.holdout is None, "copies of which images?"


def test_slow_features_look_at_so_many_unless_a_reference_is_named(
    run: Run, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluating, "SLOW", "pixels")
    monkeypatch.setattr(evaluating, "FEW", 20)
    asked = {"n": 4, "features": "pixels", "metrics": ["precision"]}
    assert evaluating.evaluate(run, **asked).reference.count == 20
    assert evaluating.evaluate(run, str(data), **asked).reference.count == 24
