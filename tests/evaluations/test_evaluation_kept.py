"""What an evaluation keeps of an earlier one in the same file."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trilemma.data import write_samples
from trilemma.errors import InputError
from trilemma.evaluations import evaluate
from trilemma.evaluations.files import samples_sha256, with_kept

SPEED = {
    **{"images_per_second": 9.0, "images_per_second_range": [8.0, 10.0], "seconds_per_image": 0.1},
    **{"speed_batch": 4, "peak_memory_bytes": 5, "peak_memory_kind": "resident"},
}
HELD = {"split": "test", "count": 500, "sha256": "h"}
OLD: dict[str, Any] = {
    "format": "trilemma-evaluation/1",
    "samples": {"sha256": "s"},
    "features": {"name": "inception", "sha256": "f", "dim": 2048, "resize": "bilinear"},
    "reference": {"data": "mnist5k", "split": "train", "sha256": "r", "size": [1, 28, 28], "holdout": HELD},
    "neighbours": 3,
    "metrics": {"kid": 0.1, "recall": 0.5, "memorisation": 0.01, "memorisation_z": 1.0, **SPEED},
    "warnings": ["few images", "old"],
    "environment": {"device": "cpu", "hardware": "one", "threads": 1, "processes": 1, "torch": "2.6"},
}


def later(**changes: dict[str, Any]) -> dict[str, Any]:
    """An evaluation of the same, of another metric, with no held-out images."""
    made = deepcopy(OLD) | {"metrics": {"kid": 0.2, "frechet_distance": 3.0}, "warnings": ["new", "few images"]}
    made["reference"] = {key: value for key, value in OLD["reference"].items() if key != "holdout"}
    # Fresh from the measures, before any JSON, a size is a tuple.
    made["reference"]["size"] = (1, 28, 28)
    for section, items in changes.items():
        made[section] = made[section] | items
    return made


@pytest.fixture
def place(tmp_path: Path) -> Path:
    path = tmp_path / "e.json"
    path.write_text(json.dumps(OLD))
    return path


def test_figures_are_kept_with_their_warnings_and_held_out_images(place: Path) -> None:
    made = later()
    whole = with_kept(place, made)
    assert whole["metrics"] == OLD["metrics"] | {"kid": 0.2, "frechet_distance": 3.0}
    assert whole["warnings"] == ["new", "few images", "old"]
    assert whole["reference"]["holdout"] == HELD
    assert made == later(), "the evaluation given is left as it was"


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
    old = deepcopy(OLD)
    old[section]["sha256"] = None
    place.write_text(json.dumps(old))
    made = later(**{section: {"sha256": None}})
    assert with_kept(place, made) == made


@pytest.mark.parametrize("items", [{"device": "cuda"}, {"hardware": "two"}, {"threads": 2}, {"processes": 2}])
def test_speed_is_not_kept_from_another_machine(place: Path, items: dict[str, Any]) -> None:
    found = with_kept(place, later(environment=items))["metrics"]
    assert not SPEED.keys() & found.keys() and found["recall"] == 0.5


def test_speed_is_kept_over_versions(place: Path) -> None:
    assert with_kept(place, later(environment={"torch": "3.0"}))["metrics"].keys() >= SPEED.keys()


def test_memorisation_is_not_kept_beside_other_held_out_images(place: Path) -> None:
    other = HELD | {"sha256": "other"}
    whole = with_kept(place, later(reference={"holdout": other}))
    assert whole["reference"]["holdout"] == other
    assert not [key for key in whole["metrics"] if key.startswith("memorisation")] and "recall" in whole["metrics"]


def test_no_warning_comes_without_a_figure(place: Path) -> None:
    made = later(metrics=OLD["metrics"])
    assert with_kept(place, made) == made


def test_of_a_folder_with_other_images_nothing_is_kept(data: Path, tmp_path: Path) -> None:
    with np.load(data) as held:
        images, labels = held["arr_0"], held["arr_1"]
    folder = write_samples(tmp_path / "set", images, labels)

    def measured(metric: str) -> dict[str, Any]:
        return evaluate(folder, str(data), features="pixels", metrics=[metric], out=tmp_path / "e.json")

    first, second = measured("frechet_distance"), measured("recall")
    assert second["metrics"].keys() >= {"frechet_distance", "recall"}
    assert first["samples"]["sha256"] == second["samples"]["sha256"] is not None
    names = sorted(folder.rglob("*.png"))
    names[0].write_bytes(names[-1].read_bytes())
    third = measured("precision")["metrics"].keys()
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
