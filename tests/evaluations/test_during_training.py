"""Figures of samples while a model trains: what is logged, that training is the same, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from trilemma.data import write_samples
from trilemma.errors import InputError
from trilemma.evaluations import evaluate
from trilemma.jobs import train
from trilemma.runs import Run
from trilemma.samplers import Sampler

Write = Callable[..., Path]
Outcome = Callable[[Path], dict[str, Any]]

SECTION = ["evaluate.every=4", "evaluate.n=10", "evaluate.features=pixels"]
NAMES = ["frechet_distance", "frechet_distance_se", "precision", "precision_se", "recall", "recall_se"]


def figures(path: Path) -> dict[int, dict[str, float]]:
    lines = [json.loads(line) for line in (path / "log.jsonl").read_text().splitlines()]
    return {line.pop("step"): line for line in lines if "precision" in line}


class TestLog:
    @pytest.fixture
    def trained(self, write_recipe: Write, tmp_path: Path) -> Run:
        return train(write_recipe(), out=tmp_path / "run", overrides=SECTION)

    def test_has_the_figures_so_often_and_at_the_end(self, trained: Run) -> None:
        found = figures(trained.path)
        assert list(found) == [4, 6]
        assert all(list(line) == NAMES for line in found.values())
        assert found[4]["frechet_distance"] != found[6]["frechet_distance"]

    def test_they_are_an_evaluation_s_of_the_averaged_weights(self, trained: Run) -> None:
        made = evaluate(trained, n=10, features="pixels", metrics=["frechet_distance", "precision", "recall"])
        assert figures(trained.path)[6] == pytest.approx({name: made.metrics[name] for name in NAMES}, rel=1e-6)

    def test_tensorboard_has_them(self, trained: Run) -> None:
        events = EventAccumulator(str(trained.path / "tensorboard"))
        events.Reload()
        for name in NAMES:
            written = {event.step: event.value for event in events.Scalars(name)}
            assert written == pytest.approx({step: line[name] for step, line in figures(trained.path).items()})

    def test_the_run_can_be_opened_again(self, trained: Run) -> None:
        settings = Run(trained.path).recipe.evaluate
        assert (settings.every, settings.n, settings.features) == (4, 10, "pixels")


def test_training_is_the_same_with_and_without(write_recipe: Write, outcome: Outcome, tmp_path: Path) -> None:
    recipe = write_recipe()
    train(recipe, out=tmp_path / "without")
    train(recipe, out=tmp_path / "with", overrides=SECTION)
    without, watched = outcome(tmp_path / "without"), outcome(tmp_path / "with")
    watched["log"] = [line for line in watched["log"] if "precision" not in line]
    assert watched == without


def test_resuming_gives_the_same_figures(write_recipe: Write, outcome: Outcome, tmp_path: Path) -> None:
    recipe = write_recipe(training={"steps": 8, "checkpoint_every": 4, "validate_every": 4})
    train(recipe, out=tmp_path / "whole", overrides=SECTION)
    train(recipe, out=tmp_path / "halves", overrides=[*SECTION, "training.steps=4"])
    train(recipe, out=tmp_path / "halves", overrides=["training.steps=8"], resume=True)
    assert outcome(tmp_path / "halves") == outcome(tmp_path / "whole")


def test_may_be_begun_when_a_run_is_resumed(write_recipe: Write, tmp_path: Path) -> None:
    train(write_recipe(), out=tmp_path / "run")
    train(write_recipe(), out=tmp_path / "run", overrides=["training.steps=8", *SECTION], resume=True)
    assert list(figures(tmp_path / "run")) == [8]


def test_what_cannot_be_measured_ends_no_training(
    write_recipe: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def generate(*_: object) -> None:
        raise InputError("seed 3: the image is not finite")

    monkeypatch.setattr(Sampler, "generate", generate)
    run = train(write_recipe(), out=tmp_path / "run", overrides=[*SECTION, "evaluate.every=3"])
    assert run.step == 6 and figures(run.path) == {}
    said = capsys.readouterr().out
    assert "warning: evaluate at step 3: seed 3: the image is not finite" in said


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["evaluate.metrics=[frechet_distanse]"], "did you mean 'frechet_distance'"),
        (["evaluate.metrics=[inception_score]"], "metric 'inception_score' needs features that classify"),
        (["evaluate.metrics=[images_per_second]"], "needs a sampler to time"),
        (["evaluate.metrics=[memorisation]"], "needs held-out images"),
        (["evaluate.metrics=[]"], "evaluate.metrics"),
        (["evaluate.features=digits"], r"1x8x8.*expected 1x28x28"),
        (["evaluate.features=pixls"], "did you mean 'pixels'"),
        (["evaluate.reference=mnist5k"], r"its images are \(1, 28, 28\)|of \d+, expected"),
        (["evaluate.reference=mnist6k"], "did you mean 'mnist5k'"),
        (["evaluate.n=1"], r"evaluate\.n"),
        (["evaluate.n=3"], r"evaluate\.n: precision: 3 generated image\(s\), expected at least 4"),
        (["evaluate.metrics=[frechet_infinity]"], r"evaluate\.n: frechet_infinity: 10 .* at least 260"),
        (["evaluate.evry=1"], "did you mean 'every'"),
    ],
)
def test_is_refused_before_anything_is_written(
    write_recipe: Write, tmp_path: Path, overrides: list[str], says: str
) -> None:
    with pytest.raises(InputError, match=says) as caught:
        train(write_recipe(), out=tmp_path / "run", overrides=[*SECTION, *overrides])
    assert "\n" not in str(caught.value) and not (tmp_path / "run").exists()


def test_a_classifier_has_nothing_to_sample(write_recipe: Write, tmp_path: Path) -> None:
    path = write_recipe()
    values = yaml.safe_load(path.read_text())
    values |= {"learner": {"name": "classifier"}, "network": {"name": "classifier", "widths": [[4], [8]]}}
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(InputError, match="a classifier generates no images to evaluate"):
        train(path, out=tmp_path / "run", overrides=SECTION)


def test_what_takes_more_real_images_is_left_out_and_the_others_logged(
    write_recipe: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = write_samples(tmp_path / "few.npz", np.random.default_rng(0).integers(0, 256, (5, 8, 8, 1), dtype=np.uint8))
    metrics = "evaluate.metrics=[precision,density]"
    run = train(write_recipe(), out=tmp_path / "run", overrides=[*SECTION, f"evaluate.reference={few}", metrics])
    assert [list(line) for line in figures(run.path).values()] == [["precision"], ["precision"]]
    assert capsys.readouterr().out.count("warning: left out: density; density: real: 5 image(s)") == 1
