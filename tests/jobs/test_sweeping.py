"""Sweeps: every point once, refused before anything is sampled, and taken up where they were."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trilemma.errors import InputError
from trilemma.evaluations import Evaluation, evaluate
from trilemma.jobs import sweep
from trilemma.jobs.sweeping import grid
from trilemma.runs import Run
from trilemma.samplers import Sampler

ONLY: dict[str, Any] = {"features": "pixels", "metrics": ["frechet_distance"], "n": 5}
POINTS: dict[str, Any] = {"sampler": ["ddim", "dpmpp"], "steps": [2, 4]}


@pytest.fixture
def sampled(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Every batch that is sampled: the sampler's label, and how many images."""
    calls: list[tuple[str, int]] = []
    generate = Sampler.generate

    def counted(self: Sampler, seeds: Any, labels: Any = None) -> Any:
        calls.append((self.label, len(seeds)))
        return generate(self, seeds, labels)

    monkeypatch.setattr(Sampler, "generate", counted)
    return calls


def figures(evaluations: list[Evaluation]) -> list[tuple[str, float | None]]:
    return [(one.label, one.figure("frechet_distance")) for one in evaluations]


def files(run: Run) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(run.path.rglob("*")) if path.is_file()}


class TestGrid:
    def test_is_every_combination_the_last_setting_first(self) -> None:
        points = grid({"steps": [10, 20], "eta": 0.5, "sampler": ["ddim", "dpmpp"], "skip": None})
        assert [point for point, _ in points] == [
            {"steps": steps, "eta": 0.5, "sampler": sampler} for steps in (10, 20) for sampler in ("ddim", "dpmpp")
        ]
        assert [words for _, words in points][:2] == ["10 steps, ddim", "10 steps, dpmpp"]

    def test_a_setting_that_is_a_list_is_one_value(self) -> None:
        assert [point for point, _ in grid({"times": [5.0, 2.0]})] == [{"times": [5.0, 2.0]}]
        assert [point for point, _ in grid({"times": [[5.0], [4.0, 1.0]]})] == [{"times": [5.0]}, {"times": [4.0, 1.0]}]
        assert [point for point, _ in grid({})] == [{}]

    @pytest.mark.parametrize(
        ("settings", "says"),
        [
            ({"steps": []}, "steps: no values"),
            ({"steps": [10, 20, 10]}, "steps: 10 is given twice"),
            ({"eta": [0, 0.0]}, "eta: 0.0 is given twice"),
            ({"steps": range(1, 200), "skip": range(200)}, "199 steps × 200 skip: 39800 points, expected at most"),
        ],
    )
    def test_refuses(self, settings: dict[str, Any], says: str) -> None:
        with pytest.raises(InputError, match=says):
            grid(settings)


class TestEveryPoint:
    def test_is_what_evaluate_makes_of_it(self, run: Run, tmp_path: Path) -> None:
        made = sweep(run, **ONLY, **POINTS)
        others = Run(shutil.copytree(run.path, tmp_path / "other", ignore=shutil.ignore_patterns("evaluations")))
        steps = [(sampler, count) for sampler in POINTS["sampler"] for count in POINTS["steps"]]
        alone = [evaluate(others, **ONLY, sampler=sampler, steps=count) for sampler, count in steps]
        assert figures(made) == figures(alone)
        assert [one.figure("network_evaluations") for one in made] == [2, 4, 2, 4]
        assert {one.path for one in made} == {*(run.path / "evaluations").glob("*.json")}

    def test_is_sampled_once(self, run: Run, sampled: list[tuple[str, int]]) -> None:
        first = sweep(run, **ONLY, **POINTS)
        calls, before = list(sampled), files(run)
        again = sweep(run, **ONLY, **POINTS)
        assert sampled == calls and files(run) == before
        assert again == first

    def test_measured_by_evaluate_is_taken_up(self, run: Run, sampled: list[tuple[str, int]]) -> None:
        one = evaluate(run, **ONLY, sampler="dpmpp", steps=4)
        sampled.clear()
        made = sweep(run, **ONLY, **POINTS)
        assert one == made[3]
        assert {label for label, _ in sampled} == {"DDIM, 2 steps", "DDIM, 4 steps", "DPM-Solver++, 2 steps"}

    def test_is_measured_again_for_another_metric_reference_or_number(
        self, run: Run, data: Path, sampled: list[tuple[str, int]], tmp_path: Path
    ) -> None:
        asked = {**ONLY, "steps": [2, 4]}
        first = sweep(run, **asked)
        made = sweep(run, **{**asked, "metrics": ["kid"]})
        assert all(one.figure("kid") is not None and one.figure("frechet_distance") is not None for one in made)
        assert sweep(run, **{**asked, "metrics": ["frechet_distance"]}) == made, "with more than is asked for"
        less = tmp_path / "less.npz"
        np.savez(less, arr_0=np.load(data)["arr_0"][:20])
        other = sweep(run, str(less), **asked)
        assert not {one.path for one in other} & {one.path for one in first}
        sampled.clear()
        sweep(run, **{**asked, "n": 6})
        assert len(sampled) > 0


class TestInterrupted:
    def test_goes_on_with_what_is_missing(
        self, run: Run, sampled: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        whole = Run(shutil.copytree(run.path, tmp_path / "whole"))
        expected = figures(sweep(whole, **ONLY, **POINTS))
        sampled.clear()
        counted, broken = Sampler.generate, [True]

        def killed(self: Sampler, seeds: Any, labels: Any = None) -> Any:
            if broken[0] and self.label == "DPM-Solver++, 2 steps" and len(seeds) == 1:
                raise KeyboardInterrupt
            return counted(self, seeds, labels)

        monkeypatch.setattr(Sampler, "generate", killed)
        with pytest.raises(KeyboardInterrupt):
            sweep(run, **ONLY, **POINTS)
        assert len(list((run.path / "evaluations").glob("*.json"))) == 2
        broken[0] = False
        sampled.clear()
        assert figures(sweep(run, **ONLY, **POINTS)) == expected
        # Of its first point the batch of 4 was safe.
        assert sampled == [("DPM-Solver++, 2 steps", 1), ("DPM-Solver++, 4 steps", 4), ("DPM-Solver++, 4 steps", 1)]

    def test_another_checkpoint_is_not_the_same(self, run: Run, sampled: list[tuple[str, int]]) -> None:
        steps = sorted(int(path.name[5:]) for path in (run.path / "checkpoints").glob("step-*"))
        early = sweep(Run(run.path, step=steps[0]), **ONLY, steps=[2, 4])
        sampled.clear()
        late = sweep(run, **ONLY, steps=[2, 4])
        assert len(sampled) == 4
        assert not {one.path for one in early} & {one.path for one in late}
        assert figures(early) != figures(late)
        assert sweep(Run(run.path, step=steps[0]), **ONLY, steps=[2, 4]) == early

    def test_other_weights_of_the_same_step_are_not_the_same(self, run: Run) -> None:
        """A file may be called what it likes: what it says decides."""
        first = sweep(run, **ONLY, steps=[2, 4])
        for one in first:
            assert one.path is not None
            said = json.loads(one.path.read_text())
            said["subject"]["weights_sha256"] = "0" * 64
            one.path.write_text(json.dumps(said))
        again = sweep(run, **ONLY, steps=[2, 4])
        assert figures(again) == figures(first)
        assert [one.subject.weights_sha256 for one in again] == [one.subject.weights_sha256 for one in first]

    def test_what_lies_among_the_evaluations_does_not_matter(self, run: Run, sampled: list[tuple[str, int]]) -> None:
        first = sweep(run, **ONLY, steps=[2, 4])
        assert first[0].path is not None and first[1].path is not None
        (run.path / "evaluations" / "broken.json").write_text("{")
        first[0].path.rename(first[0].path.with_name("renamed.json"))
        said = json.loads(first[1].path.read_text())
        del said["sampler"]["clip"]  # from before it was a setting
        first[1].path.write_text(json.dumps(said))
        sampled.clear()
        assert figures(sweep(run, **ONLY, steps=[2, 4])) == figures(first)
        assert not sampled
        said["sampler"]["clip"] = "none"
        first[1].path.write_text(json.dumps(said))
        sweep(run, **ONLY, steps=[2, 4])
        assert json.loads(first[1].path.read_text())["sampler"]["clip"] == "static"


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"sampler": ["ddim", "dpmpp"], "eta": [0, 1]}, r"^dpmpp, eta 0: sampling: dpmpp takes no eta \(ddim do"),
        ({"sampler": ["ddim", "dimm"]}, "^dimm: .*did you mean 'ddim'"),
        ({"steps": [4, 9]}, "^9 steps: "),
        ({"steps": [4, 0]}, "^0 steps: "),
        ({"steps": [2, 4], "cls": "9"}, "class '9'"),
        ({"batch": [2, 4]}, "^batch 4: the same images as batch 2"),
        ({"steps": [2, 4], "metrics": ["kdi"]}, "did you mean 'kid'"),
        ({"steps": [2, 4], "t_mid": 3.0}, "^2 steps: t_mid"),
    ],
)
def test_refused_before_anything_is_sampled(
    run: Run, sampled: list[tuple[str, int]], settings: dict[str, Any], says: str
) -> None:
    before = files(run)
    with pytest.raises(InputError, match=says):
        sweep(run, **{**ONLY, **settings})
    assert not sampled and files(run) == before
