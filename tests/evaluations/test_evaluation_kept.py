"""What an evaluation keeps of an earlier one in the same file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trilemma.data import write_samples
from trilemma.errors import InputError
from trilemma.evaluations import Evaluation, evaluate
from trilemma.evaluations.files import samples_sha256, with_kept
from trilemma.evaluations.record import FORMAT

SPEED = {
    **{"images_per_second": 9.0, "images_per_second_range": [8.0, 10.0], "seconds_per_image": 0.1},
    **{"speed_batch": 4, "peak_memory_bytes": 5, "peak_memory_kind": "resident"},
}
HELD = {"split": "test", "count": 500, "sha256": "h"}
OLD = Evaluation.model_validate({
    **{"format": FORMAT, "label": "old", "subject": {"kind": "samples"}},
    "samples": {"count": 10, "sha256": "s"},
    "features": {"name": "inception", "sha256": "f", "dim": 2048, "resize": "bilinear"},
    "reference": {"data": "mnist5k", "split": "train", "sha256": "r", "size": [1, 28, 28], "holdout": HELD},
    "neighbours": 3,
    "metrics": {"kid": 0.1, "recall": 0.5, "memorisation": 0.01, "memorisation_z": 1.0, **SPEED},
    "warnings": ["few images", "old"],
    "environment": {"device": "cpu", "hardware": "one", "threads": 1, "processes": 1, "torch": "2.6"},
})  # fmt: skip


def later(**changes: Any) -> Evaluation:
    """An evaluation of the same, of another metric, with no held-out images."""
    made = OLD.content() | {"metrics": {"kid": 0.2, "frechet_distance": 3.0}, "warnings": ["new", "few images"]}
    del made["reference"]["holdout"]
    for section, items in changes.items():
        made[section] = made.get(section, {}) | items if isinstance(items, dict) else items
    return Evaluation.model_validate(made)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    path = tmp_path / "e.json"
    OLD.write(path)
    return path


def test_figures_are_kept_with_their_warnings_and_held_out_images(place: Path) -> None:
    whole = with_kept(place, later())
    assert whole.metrics == OLD.metrics | {"kid": 0.2, "frechet_distance": 3.0}
    assert whole.warnings == ("new", "few images", "old")
    assert whole.reference.holdout == OLD.reference.holdout


@pytest.mark.parametrize(("other", "kept"), [(None, True), ({"count": 9, "sha256": "o"}, False)])
def test_a_classifier_s_figures_are_kept_with_it_but_not_beside_another(
    tmp_path: Path, other: dict[str, Any] | None, kept: bool
) -> None:
    made = {"recognised": 0.7, "precision": 0.9}
    old = Evaluation.model_validate(OLD.content() | {"classifier": {"count": 9, "sha256": "c"}, "metrics": made})
    old.write(tmp_path / "e.json")
    whole = with_kept(tmp_path / "e.json", later(**({"classifier": other} if other else {})))
    assert ("recognised" in whole.metrics) == kept and whole.metrics["precision"] == 0.9
    assert whole.classifier is not None and whole.classifier.sha256 == ("c" if kept else "o")


@pytest.mark.parametrize(
    ("section", "items"),
    [
        ("samples", {"sha256": "other"}),
        ("features", {"name": "inception-clean"}),
        ("features", {"resize": "bicubic"}),
        ("features", {"dim": 64}),
        ("reference", {"sha256": "other"}),
        ("reference", {"split": "test"}),
        ("reference", {"images": {"count": 10, "sha256": "i"}}),
    ],
)
def test_nothing_is_kept_of_another(place: Path, section: str, items: dict[str, Any]) -> None:
    made = later(**{section: items})
    assert with_kept(place, made) == made


@pytest.mark.parametrize("section", ["samples", "features", "reference"])
def test_nothing_is_kept_where_a_hash_is_not_known(place: Path, section: str) -> None:
    made = later(**{section: {"sha256": None}})
    made.model_copy(update={"metrics": OLD.metrics}).write(place)
    assert with_kept(place, made) == made


@pytest.mark.parametrize("items", [{"device": "cuda"}, {"hardware": "two"}, {"threads": 2}, {"processes": 2}])
def test_speed_is_not_kept_from_another_machine(place: Path, items: dict[str, Any]) -> None:
    found = with_kept(place, later(environment=items)).metrics
    assert not SPEED.keys() & found.keys() and found["recall"] == 0.5


def test_speed_is_kept_over_versions(place: Path) -> None:
    assert with_kept(place, later(environment={"torch": "3.0"})).metrics.keys() >= SPEED.keys()


def test_recall_is_not_kept_of_another_k(place: Path) -> None:
    found = with_kept(place, later(neighbours=5)).metrics
    assert "recall" not in found and "memorisation" in found


def test_a_figure_of_a_metric_that_is_not_there_now_is_kept(place: Path) -> None:
    OLD.model_copy(update={"metrics": {"of_a_plugin": 2.0}}).write(place)
    assert with_kept(place, later()).metrics["of_a_plugin"] == 2.0


def test_memorisation_is_not_kept_beside_other_held_out_images(place: Path) -> None:
    other = HELD | {"sha256": "other"}
    whole = with_kept(place, later(reference={"holdout": other}))
    assert whole.reference.holdout is not None and whole.reference.holdout.sha256 == "other"
    assert not [key for key in whole.metrics if key.startswith("memorisation")] and "recall" in whole.metrics


def test_no_warning_comes_without_a_figure(place: Path) -> None:
    made = later(metrics=OLD.metrics)
    assert with_kept(place, made) == made


def test_of_a_folder_with_other_images_nothing_is_kept(data: Path, tmp_path: Path) -> None:
    with np.load(data) as held:
        images, labels = held["arr_0"], held["arr_1"]
    folder = write_samples(tmp_path / "set", images, labels)

    def measured(metric: str) -> Evaluation:
        return evaluate(folder, str(data), features="pixels", metrics=[metric], out=tmp_path / "e.json")

    first, second = measured("frechet_distance"), measured("recall")
    assert second.metrics.keys() >= {"frechet_distance", "recall"}
    assert first.samples.sha256 == second.samples.sha256 is not None
    names = sorted(folder.rglob("*.png"))
    names[0].write_bytes(names[-1].read_bytes())
    third = measured("precision").metrics.keys()
    assert "precision" in third and not {"frechet_distance", "recall"} & third


def test_a_folder_is_its_names_and_bytes(data: Path, tmp_path: Path) -> None:
    with np.load(data) as held:
        images = held["arr_0"]
    one, two = (write_samples(tmp_path / name, images) for name in ("one", "two"))
    before = samples_sha256(one)
    assert before == samples_sha256(two)
    (two / "evaluation.json").write_text("{}")
    assert before == samples_sha256(two), "an evaluation beside the images is none of them"
    first = sorted(two.rglob("*.png"))[0]
    first.rename(first.with_name("zzz.png"))
    assert before != samples_sha256(two)


def test_an_empty_list_of_metrics_is_refused(data: Path) -> None:
    with pytest.raises(InputError, match="metrics: none are named"):
        evaluate(data, str(data), features="pixels", metrics=[])
