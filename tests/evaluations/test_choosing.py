"""The features that are chosen where none are named, and what is said of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from trilemma.data import MemorySet, open_data
from trilemma.evaluations import choosing, measure, write_statistics
from trilemma.evaluations.choosing import features_for
from trilemma.metrics import MetricWarning


@pytest.fixture(autouse=True)
def no_inception(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choosing, "published_file", lambda: None)


def labelled(images: np.ndarray, labels: np.ndarray) -> MemorySet:
    return MemorySet(images, labels, name="mine", classes=tuple(map(str, range(10))))


class TestDigits:
    def test_are_looked_at_by_their_classifier(self, capsys: pytest.CaptureFixture[str]) -> None:
        for size in (None, 32):
            data = open_data("mnist5k", size=size)
            assert features_for(data.shape, data.classes, lambda data=data: data) == "digits"
        assert capsys.readouterr().out.count("features: digits, the packaged classifier of these classes") == 2

    def test_are_known_by_what_they_show(self, tmp_path: Path) -> None:
        """Whatever their file is called; neither their size nor ten numbers as labels make them digits."""
        images, labels = open_data("mnist5k", split="test").batch(range(0, 500, 2))
        noise = np.random.default_rng(0).integers(0, 256, images.shape, dtype=np.uint8)
        assert features_for((1, 28, 28), None, lambda: labelled(images, labels)) == "digits"
        for others in (
            labelled(noise, labels),
            labelled(images, (labels + 1) % 10),
            MemorySet(images, name="mine"),
            MemorySet(images, labels, name="mine", classes=tuple("abcdefghij")),
        ):
            assert features_for((1, 28, 28), None, lambda others=others: others) == "imagenet"

    def test_data_of_another_size_or_other_classes_are_not_opened(self) -> None:
        def opened() -> MemorySet:
            raise AssertionError("opened")

        assert features_for((1, 48, 48), None, opened) == "imagenet"
        assert features_for((1, 28, 28), ("cat", "dog"), opened) == "imagenet"


def test_colour_is_seen_by_fid_s_network_where_its_file_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert features_for((3, 32, 32)) == "imagenet"
    assert "FID's are 'inception'" in capsys.readouterr().out
    monkeypatch.setattr(choosing, "published_file", lambda: Path("there"))
    assert features_for((3, 32, 32)) == "inception" and features_for((1, 64, 64)) == "imagenet"


def test_pixels_are_the_last_resort_and_a_caution(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choosing, "packaged_file", lambda: None)
    images = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3), dtype=np.uint8)
    made = measure(images, images[:10], ["precision"])
    assert made.features.name == "pixels"
    assert "features 'pixels', as none are named" in made.warnings[0] and "trilemma[imagenet]" in made.warnings[0]
    with pytest.warns(MetricWarning, match="'pixels'"):
        features_for((1, 8, 8))


def test_statistics_say_their_own(data: Path, tmp_path: Path) -> None:
    stats = write_statistics(str(data), tmp_path / "stats.npz", "pixels")
    assert features_for((1, 8, 8), reference=str(stats)) == "pixels"
    np.savez(tmp_path / "foreign.npz", mu=np.zeros(3), sigma=np.eye(3))
    assert features_for((1, 8, 8), reference=str(tmp_path / "foreign.npz")) == "imagenet"
    assert measure(data, stats, ["frechet_distance"]).features.name == "pixels"
