"""The classes of the data: a classifier of them in passing, and what is missing of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from trilemma.data import MemorySet, open_data, write_png
from trilemma.errors import InputError
from trilemma.evaluations import Evaluation, measure
from trilemma.evaluations.judge import judge
from trilemma.evaluations.record import read

NAMES = ("dark", "middling", "light")
PIXELS = {"features": "pixels"}


def tones(count: int, seed: int, noise: float = 10.0, classes: tuple[int, ...] = (0, 1, 2)) -> MemorySet:
    """Grey images, 6×6, of three tones."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(classes, count)
    images = (60 + 60 * labels[:, None, None, None] + noise * rng.standard_normal((count, 6, 6, 1))).clip(0, 255)
    return MemorySet(images.astype(np.uint8), labels.astype(np.int64), name="tones", split="train", classes=NAMES)


@pytest.fixture(scope="module")
def reference() -> MemorySet:
    return tones(300, 0)


def missing(evaluation: Evaluation) -> list[str]:
    return [line for line in evaluation.warnings if "classes are missing" in line]


class TestClassifier:
    def test_gives_the_figures_of_classes(self, reference: MemorySet, tmp_path: Path) -> None:
        made = measure(tones(90, 1), reference, out=tmp_path / "e.json", **PIXELS)
        figures = made.metrics
        assert figures["recognised"] > 0.95 and figures["balance_kl"] < 0.1 and sum(figures["class_counts"]) == 90
        assert "inception_score" not in figures, "of the features' own classes alone"
        said = made.classifier
        assert said is not None and (said.data, said.split, said.count, said.classes) == ("tones", "train", 300, 3)
        assert said.sha256 == reference.fingerprint() and said.accuracy is not None and said.accuracy > 0.95
        assert read(tmp_path / "e.json").classifier == said

    def test_is_not_fitted_where_nobody_asks_or_the_features_know_the_classes(self, reference: MemorySet) -> None:
        assert measure(tones(90, 1), reference, ["precision"], **PIXELS).classifier is None
        digits = open_data("mnist5k", split="test")
        made = measure(digits, digits, ["recognised"], features="digits")
        assert made.classifier is None and made.metrics["recognised"] > 0.98

    def test_of_too_few_images_is_said(self) -> None:
        made = measure(tones(90, 1), tones(12, 0), **PIXELS)
        assert made.classifier is None
        assert any("12 images of 3 classes are too few to fit a classifier" in line for line in made.warnings)
        with pytest.raises(InputError, match="five images a class"):
            measure(tones(90, 1), tones(12, 0), ["recognised"], **PIXELS)

    def test_that_is_poor_is_cautioned(self) -> None:
        hard = tones(300, 0, noise=600.0)
        made = measure(tones(90, 1), hard, ["recognised"], **PIXELS)
        assert made.classifier is not None and made.classifier.accuracy < 0.9
        assert any("takes" in line and "'recognised'" in line and "no surer" in line for line in made.warnings)

    def test_figures_of_another_one_do_not_compare(self, reference: MemorySet) -> None:
        first = measure(tones(90, 1), reference, ["recognised", "precision"], **PIXELS)
        other = measure(tones(90, 2), tones(250, 5), ["recognised"], **PIXELS)
        again = measure(tones(90, 2), reference, ["recognised"], **PIXELS)
        assert "other classifier: fitted to tones:train, 300" in judge("recognised", first, other).reason
        assert judge("recognised", first, again).outcome == "level"


class TestMissing:
    def test_classes_are_named_by_the_labels(self, reference: MemorySet) -> None:
        made = measure(tones(90, 1, classes=(2,)), reference, ["precision"], **PIXELS)
        assert len(missing(made)) == 1 and "is of dark, middling: 2 of 3 classes" in missing(made)[0]

    def test_else_by_what_the_classifier_sees(self, reference: MemorySet) -> None:
        images = tones(90, 1, classes=(0, 1)).batch(range(90))[0]
        made = measure(images, reference, **PIXELS)
        assert len(missing(made)) == 1 and "as a classifier sees them, of light: 1 of" in missing(made)[0]

    def test_nothing_is_said_where_all_are_there_or_chance_leaves_none(self, reference: MemorySet) -> None:
        assert not missing(measure(tones(90, 1), reference, **PIXELS))
        assert not missing(measure(tones(6, 1, classes=(2,)), reference, ["precision"], **PIXELS))

    def test_sevens_against_ten_classes(self) -> None:
        digits = open_data("mnist5k", split="test")
        images, labels = digits.batch(np.flatnonzero(digits.labels == 7))
        made = measure(MemorySet(images, labels, name="sevens", classes=digits.classes), digits, ["recall"])
        assert "of 0, 1, 2, 3, 4, 5, 6, 8, 9: 9 of 10 classes are missing, 90% of what is expected" in missing(made)[0]


def test_labels_of_other_classes_are_not_compared(reference: MemorySet) -> None:
    images, labels = tones(90, 1).batch(range(90))
    made = measure((images, labels + 2), reference, **PIXELS)
    assert "recognised" not in made.metrics and any("labels up to 4" in line for line in made.warnings)


class TestNames:
    def test_tell_which_class_of_the_reference_a_label_is(self, reference: MemorySet) -> None:
        images, labels = tones(60, 1, classes=(1, 2)).batch(range(60))
        some = MemorySet(images, labels - 1, name="some", classes=NAMES[1:])
        made = measure(some, reference, **PIXELS)
        assert made.metrics["recognised"] > 0.95
        assert len(missing(made)) == 1 and "of dark: 1 of 3" in missing(made)[0]

    def test_that_the_reference_lacks_are_not_compared(self, reference: MemorySet) -> None:
        images, labels = tones(60, 1).batch(range(60))
        other = MemorySet(images, labels, name="other", classes=("dark", "middling", "blinding"))
        made = measure(other, reference, **PIXELS)
        assert "recognised" not in made.metrics
        assert any("blinding are none of the reference's (dark, middling, light)" in line for line in made.warnings)

    def test_of_folders(self, tmp_path: Path) -> None:
        for folder, names in (("all", NAMES), ("sub", NAMES[1:])):
            for name in names:
                images, _ = tones(20, len(name), classes=(NAMES.index(name),)).batch(range(20))
                for i, image in enumerate(images):
                    (tmp_path / folder / name).mkdir(parents=True, exist_ok=True)
                    write_png(tmp_path / folder / name / f"{i}.png", image)
        made = measure(tmp_path / "sub", str(tmp_path / "all"), **PIXELS)
        assert made.metrics["recognised"] > 0.95 and "of dark: 1 of 3" in missing(made)[0]


def test_a_class_asked_for_that_the_classifier_sees_in_no_image_is_missing(reference: MemorySet) -> None:
    images = tones(60, 1, classes=(1,)).batch(range(60))[0]
    (line,) = missing(measure((images, np.arange(60) % 3), reference, **PIXELS))
    assert "as a classifier sees them, of dark, light" in line
