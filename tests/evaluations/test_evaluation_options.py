"""Evaluations: counts, k, memorisation, sFID's kin by flags; names of files; classifiers trained anew."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from trilemma.data import open_data, write_samples
from trilemma.errors import InputError
from trilemma.evaluations import Evaluation, evaluate, measure
from trilemma.evaluations.files import default_out
from trilemma.evaluations.record import FORMAT
from trilemma.evaluations.reference import extractor_of
from trilemma.jobs import train
from trilemma.runs import Run

PIXELS = {"features": "pixels"}


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    """120 held-out digits as samples."""
    images, labels = open_data("mnist5k", split="test").batch(range(0, 480, 4))
    return write_samples(tmp_path / "digits.npz", images, labels)


class TestCounts:
    def test_give_the_distance_from_each(self, digits: Path) -> None:
        made = evaluate(digits, "mnist5k:test", metrics=["frechet_distance"], counts=[120, 40, 80])
        found = made.metrics["frechet_by_count"]
        assert [count for count, _ in found] == [40, 80, 120]
        assert found[0][1] > found[1][1] > found[2][1], "fewer images bias it upward"
        assert found[2][1] == pytest.approx(made.metrics["frechet_distance"], rel=1e-6)

    @pytest.mark.parametrize(
        ("counts", "says"), [([9], "counts: 9 is more than the 8"), ([1], "from 2"), ([], "from 2")]
    )
    def test_are_refused_before_sampling(self, run: Run, counts: list[int], says: str) -> None:
        with pytest.raises(InputError, match=says):
            evaluate(run, n=8, counts=counts, **PIXELS)
        with pytest.raises(InputError, match="needs the counts of images to measure at"):
            evaluate(run, n=8, metrics=["frechet_by_count"], **PIXELS)
        assert not list((run.path / "samples").iterdir())


class TestNeighbours:
    def test_are_used_and_recorded(self, digits: Path, tmp_path: Path) -> None:
        asked = {"metrics": ["precision", "recall"]}
        few = evaluate(digits, "mnist5k:test", neighbours=1, out=tmp_path / "1.json", **asked)
        many = evaluate(digits, "mnist5k:test", neighbours=9, out=tmp_path / "9.json", **asked)
        assert (few.neighbours, many.neighbours) == (1, 9)
        assert few.metrics["recall"] < many.metrics["recall"]
        assert evaluate(digits, "mnist5k:test", out=tmp_path / "3.json", **asked).neighbours == 3

    def test_of_another_number_keep_no_earlier_figure(self, digits: Path) -> None:
        first = evaluate(digits, "mnist5k:test", metrics=["precision", "coverage"], neighbours=1)
        second = evaluate(digits, "mnist5k:test", metrics=["recall"], neighbours=2)
        assert first.path == second.path
        assert second.metrics.keys() == {"recall", "recall_se", "coverage", "coverage_se"}

    def test_below_one_are_refused(self, run: Run) -> None:
        with pytest.raises(InputError, match="neighbours: 0, expected 1 or more"):
            evaluate(run, n=8, neighbours=0, **PIXELS)


class TestMemorisation:
    def test_tells_copies_from_new_digits(self, digits: Path, tmp_path: Path) -> None:
        train_images, _ = open_data("mnist5k").batch(range(0, 4500, 45))
        copies = write_samples(tmp_path / "copies.npz", train_images)
        found = [evaluate(path, "mnist5k", metrics=["memorisation"]) for path in (copies, digits)]
        assert found[0].metrics["memorisation"] == 1.0 and found[0].metrics["memorisation_ratio"] == 0
        assert found[1].metrics["memorisation"] < 0.1
        assert found[0].fact("reference.holdout.split") == "test" and found[0].reference.count == 4500

    def test_is_part_of_the_yardstick(self) -> None:
        assert measure("mnist5k:test", "mnist5k:train").metrics["memorisation"] < 0.05

    def test_against_what_has_no_test_split_is_refused(self, run: Run) -> None:
        with pytest.raises(InputError, match="'memorisation' needs held-out images"):
            evaluate(run, n=8, metrics=["memorisation"], **PIXELS)


class TestNames:
    @pytest.mark.parametrize(
        ("asked", "name", "ends"),
        [
            ("digits", "digits", "-vs-mnist5k-test-digits.json"),
            ("timm:resnet18.a1_in1k", "timm:resnet18.a1_in1k", "-vs-mnist5k-test-timm-resnet18.a1_in1k-abcdef01.json"),
            ("timm:hf-hub:timm/vit", "timm:hf-hub:timm/vit", "-vs-mnist5k-test-timm-hf-hub-timm-vit-abcdef01.json"),
            ("classifier:runs/a", "classifier:cifar10-classifier", "-test-classifier-cifar10-classifier-abcdef01.json"),
            ("inception:/w/x.pth", "inception", "-vs-mnist5k-test-inception-abcdef01.json"),
        ],
    )
    def test_hold_no_colon_and_no_slash(self, asked: str, name: str, ends: str, tmp_path: Path) -> None:
        evaluation = Evaluation.model_validate({
            **{"format": FORMAT, "label": "a", "subject": {"kind": "samples"}, "metrics": {}},
            "samples": {"count": 1, "file": str(tmp_path / "set.npz")},
            "reference": {"data": "mnist5k", "split": "test"},
            "features": {"name": name, "sha256": "abcdef0123"},
        })  # fmt: skip
        place = default_out(None, evaluation, asked)
        assert place.parent == tmp_path and place.name.startswith("set.npz-vs-mnist5k-test") and ":" not in place.name
        assert place.name.endswith(ends)


def test_a_classifier_trained_anew_is_looked_through_anew(
    write_recipe: Callable[..., Path], run: Run, tmp_path: Path
) -> None:
    path = write_recipe("looker", training={"steps": 2})
    values: dict[str, Any] = yaml.safe_load(path.read_text())
    values |= {"learner": {"name": "classifier"}, "network": {"name": "classifier", "widths": [[4], [8]]}}
    path.write_text(yaml.safe_dump(values))
    place = tmp_path / "looker"
    name, made, seen = f"classifier:{place}", [], []
    for seed in (0, 1):
        shutil.rmtree(place, ignore_errors=True)
        train(path, out=place, overrides=[f"training.seed={seed}"])
        seen.append(extractor_of(name)(np.zeros((1, 8, 8, 1), np.uint8)).pooled)
        made.append(evaluate(run, n=8, features=name, steps=2, metrics=["frechet_distance"]))
    assert (seen[0] != seen[1]).any()
    assert made[0].features.sha256 != made[1].features.sha256
    assert made[0].metrics != made[1].metrics and made[0].path != made[1].path
    assert made[0].path and ":" not in made[0].path.name and made[0].path.parent == run.path / "evaluations"
    assert extractor_of(name) is extractor_of(name), "opened again without a reason"
