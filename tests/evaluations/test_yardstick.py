"""Held-out images beside a run's evaluations: its yardstick."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trilemma.data import ImageSet, Opening, open_data, write_png
from trilemma.errors import InputError
from trilemma.evaluations import evaluate, yardstick
from trilemma.evaluations.files import written_in
from trilemma.evaluations.judge import judge
from trilemma.jobs import train
from trilemma.report.html import build_report
from trilemma.runs import Run

PIXELS: dict[str, Any] = {"features": "pixels", "steps": 2}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """80 smooth grey images, 8×8, in four classes."""
    x, y, k = np.arange(8)[None, None], np.arange(8)[None, :, None], np.arange(80)[:, None, None]
    images = (x * (k % 4) * 6 + y * (k % 3) * 3 + k).astype(np.uint8)[..., None]
    np.savez(tmp_path / "ramps.npz", arr_0=images, arr_1=np.arange(80) % 4)
    return tmp_path / "ramps.npz"


@pytest.fixture
def run(write_recipe: Callable[..., Path], data: Path, tmp_path: Path) -> Run:
    given = {"data": {"name": str(data), "holdout": 0.2}, "training": {"steps": 1, "warmup": 0, "validate_every": 0}}
    return train(write_recipe(**given), out=tmp_path / "run")


def left(run: Run) -> list[Any]:
    return [one for one in written_in(run.path / "evaluations") if one.yardstick]


def test_is_what_evaluating_leaves(run: Run, data: Path) -> None:
    held = open_data(str(data), split="test", holdout=0.2)
    made = evaluate(run, n=40, **PIXELS)
    (found,) = left(run)
    assert found.samples.count == len(held) and found.samples.sha256 == held.fingerprint()
    assert found.reference == made.reference and found.reference.count == 80 - len(held)
    assert found.features == made.features and found.subject.split == "test"
    assert found.path is not None and found.path.name.startswith(f"held-out-{len(held)}-vs-ramps-train-pixels")
    assert "memorisation" in made.metrics, "so few images can be learnt by heart"
    assert {"frechet_distance", "recognised", "precision"} <= found.metrics.keys()
    assert "images_per_second" not in found.metrics


def test_compares_with_as_many_of_the_samples(run: Run) -> None:
    made = evaluate(run, n=40, **PIXELS)
    (held,) = left(run)
    count = held.samples.count
    (cut,) = (one for one in written_in(run.path / "evaluations") if one.samples.cut_from)
    assert (cut.samples.count, cut.samples.cut_from, cut.samples.seeds) == (count, 40, f"0-{count - 1}")
    assert cut.label == f"{made.label}, first {count}" and cut.samples.sha256 == made.samples.sha256
    assert "N" in judge("recall", made, held).reason
    for name in ("frechet_distance", "precision", "recall", "density", "coverage", "balance_kl"):
        assert judge(name, cut, held).outcome != "not comparable", name
    assert "recognised" not in cut.metrics and "images_per_second" not in cut.metrics
    page = build_report([run.path]).read_text(encoding="utf-8")
    assert "1 way of sampling" in page, "the same samples, looked at again"
    assert re.findall(r"<figure><figcaption>(Ancestral.*?)</figcaption>", page) == [made.label]
    alone = evaluate(run, n=count, metrics=["recall", "frechet_distance"], **PIXELS)
    assert alone.metrics["recall"] == cut.metrics["recall"]
    assert alone.metrics["frechet_distance"] == pytest.approx(cut.metrics["frechet_distance"])
    images, _ = cut.images() or (None, None)
    assert len(images) == count


def test_is_measured_once_and_again_for_other_figures(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluate(run, n=12, metrics=["precision"], **PIXELS)
    assert left(run)[0].metrics.keys() == {"precision", "precision_se"}
    evaluate(run, n=12, metrics=["recall"], **PIXELS)
    assert {"precision", "recall"} <= left(run)[0].metrics.keys() and len(left(run)) == 1
    monkeypatch.setattr(yardstick, "measured", lambda *_, **__: pytest.fail("measured again"))
    evaluate(run, n=12, metrics=["precision"], seeds=None, **{**PIXELS, "steps": 3})


def test_has_no_more_images_than_the_samples(run: Run) -> None:
    evaluate(run, n=4, metrics=["frechet_distance"], **PIXELS)
    (found,) = left(run)
    assert found.samples.count == 4 and found.label == "Real images (test, 4)"


def test_there_is_none_without_held_out_images_or_against_other_data(
    run: Run, write_recipe: Callable[..., Path], data: Path, tmp_path: Path
) -> None:
    np.savez(tmp_path / "other.npz", arr_0=np.zeros((9, 8, 8, 1), np.uint8))
    evaluate(run, str(tmp_path / "other.npz"), n=4, metrics=["frechet_distance"], **PIXELS)
    assert not left(run)
    whole = train(write_recipe(training={"steps": 1, "warmup": 0, "validate_every": 0}), out=tmp_path / "whole")
    evaluate(whole, n=4, metrics=["frechet_distance"], **PIXELS)
    assert not left(whole)


def test_is_the_split_that_validates(write_recipe: Callable[..., Path], data: Path, tmp_path: Path) -> None:
    images = np.load(data)["arr_0"]
    for split, some in (("train", images[:60]), ("val", images[60:])):
        for i, image in enumerate(some):
            write_png(tmp_path / "tree" / split / f"{i % 4}" / f"{i}.png", image)
    given = {"data": {"name": str(tmp_path / "tree"), "validation_split": "val"}}
    trained = train(write_recipe(**given, training={"steps": 1, "warmup": 0}), out=tmp_path / "run")
    made = evaluate(trained, n=30, **PIXELS)
    (found,) = left(trained)
    assert found.subject.split == "val" and found.samples.count == 20
    assert "memorisation" in made.metrics and made.reference.holdout.split == "val"


def test_that_cannot_be_read_is_refused(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Opening, name: str, split: str = "train") -> ImageSet:
        if split == "test":
            raise InputError("ramps: damaged")
        return open_data(name, split=split, **vars(self))

    monkeypatch.setattr(Opening, "__call__", broken)
    with pytest.raises(InputError, match="damaged"):
        evaluate(run, n=8, **PIXELS)
