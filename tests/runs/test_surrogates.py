"""Runs as the surrogates of runs: sampled, taken up, recorded, costed and refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.runs.test_cascades import UP, awaken, trained
from tests.runs.test_sampling import close
from trilemma.data import read_samples
from trilemma.errors import InputError
from trilemma.evaluations import evaluate
from trilemma.evaluations.files import is_of_set
from trilemma.jobs import sweep
from trilemma.machine.files import sha256
from trilemma.metrics import multiply_adds
from trilemma.process import Condition, to_model
from trilemma.recipes import sampling_words
from trilemma.report.sweep import Sweep
from trilemma.runs import Run, open_run
from trilemma.runs.sample_sets import FORMAT
from trilemma.samplers import HandOver, Sampler, resized

Command = Callable[..., Any]
T = 8


@pytest.fixture(scope="module")
def made(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Runs of 8×8 pixels with classes and without, by other settings; of 4×4, without and with, and 4×4 to 6×6."""
    folder = tmp_path_factory.mktemp("runs")
    small: dict[str, Any] = {"size": 4, "resize": "area"}
    return {
        "cond": trained(folder, "cond", data),
        "plain": trained(
            folder, "plain", data, learner={"conditional": False}, sampling={"sampler": "ddim", "steps": 4}
        ),
        "small": trained(folder, "small", data, data=small, learner={"conditional": False}),
        "low": trained(folder, "low", data, data=small),
        "up": trained(folder, "up", data, data={"size": 6, "resize": "area"}, learner={"low": 4}, network=UP),
    }


@pytest.fixture
def places(made: dict[str, Path], tmp_path: Path) -> dict[str, Path]:
    """The test's own copies."""
    return {name: Path(shutil.copytree(place, tmp_path / name, symlinks=True)) for name, place in made.items()}


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any]]:
    """What samplers were asked for: the size of their images, the labels."""
    generate, calls = Sampler.generate, []

    def listen(self: Sampler, seeds: Any, labels: Any = None) -> np.ndarray:
        calls.append((self.shape[1], None if labels is None else labels.tolist()))
        return generate(self, seeds, labels)

    monkeypatch.setattr(Sampler, "generate", listen)
    return calls


class TestSampling:
    def test_it_begins_from_what_the_other_run_makes_by_its_own_settings(self, made: dict[str, Path]) -> None:
        run, begin = Run(made["cond"]), {"surrogate": str(made["plain"])}
        alone = Run(made["plain"]).sample(seeds=[3, 1, 6])
        close(run.sample(seeds=[3, 1, 6], t_mid=0, sampler="ancestral", steps=2, **begin).images, alone.images)
        sampler = run.sampler(t_mid=4, steps=8, batch=2, precision="bf16", weights="raw", **begin)
        first: Any = sampler.surrogate.stage
        assert (first.kernel.label, first.intervals, first.precision, first.batch) == ("DDIM", 4, "fp32", 2)
        assert sampler.evaluations == 4 + 4 and sampler.grid.tolist() == [4, 3, 2, 1, 0]
        assert "surrogate plain at 4" in sampler.label

    def test_a_lower_resolution_hands_over_its_mean_where_snr_is_the_same(self, made: dict[str, Path]) -> None:
        run, begin = Run(made["plain"]), {"surrogate": str(made["small"]), "t_mid": 4.0}
        stage: Any = run.sampler(**begin).surrogate.stage
        assert isinstance(stage, HandOver) and stage.t == 4.0 and stage.size == (8, 8)
        assert stage.evaluations == 4 + 1
        found = stage.generate([5, 2])
        whole = run.sampler(handover="sample", **begin)
        sampled = whole.surrogate.stage.generate([5, 2])
        close(sampled, resized(Run(made["small"]).sample(seeds=[5, 2]).images, (8, 8)))
        assert not np.array_equal(found, sampled) and whole.evaluations == T + run.sampler(**begin).intervals
        assert np.array_equal(run.sampler(**{**begin, "t_mid": 0}).generate([5, 2]), sampled)

    def test_the_start_is_its_image_noised(self, made: dict[str, Path]) -> None:
        run = Run(made["plain"])
        sampler = run.sampler(surrogate=made["small"], t_mid=8)
        x = next(sampler.walk([5, 2])).x
        alpha, sigma = (
            float(f(torch.tensor(8.0).double())) for f in (run.denoiser().schedule.alpha, run.denoiser().schedule.sigma)
        )
        noise = (x - alpha * to_model(sampler.surrogate.stage.generate([5, 2]))) / sigma  # type: ignore[union-attr]
        assert 0.8 < float(noise.std()) < 1.2

    def test_a_cascade_is_one_and_has_one_at_its_base(self, made: dict[str, Path]) -> None:
        spec = f"{made['low']}+{made['up']}"
        stage: Any = Run(made["cond"]).sampler(surrogate=spec, t_mid=4).surrogate.stage
        assert stage.shape == (1, 8, 8) and stage.sampler.shape == (1, 6, 6) and stage.evaluations == T + 4 + 1
        cascade = open_run(spec)
        sampler = cascade.way(surrogate=str(made["small"]), t_mid=4).sampler
        assert sampler.surrogate is None and sampler.low.surrogate.t_mid == 4
        assert sampler.stages == 3 and sampler.evaluations == T + 4 + T

    def test_a_run_may_begin_from_itself(self, made: dict[str, Path]) -> None:
        run = Run(made["cond"])
        for name in (str(made["cond"]), f"{made['cond']}@2", "@2"):
            sampler = run.sampler(surrogate=name, t_mid=8)
            assert np.array_equal(
                sampler.surrogate.images([3], np.array([1])), run.sampler().generate([3], np.array([1]))
            )
            assert not torch.isclose(next(sampler.walk([3])).x, next(run.sampler().walk([3])).x).any()


class TestClasses:
    @pytest.mark.parametrize(
        ("run", "surrogate", "asked", "expected"),
        [
            ("cond", "low", None, [1, 2, 3]),
            ("cond", "low", "2", [2, 2, 2]),
            ("cond", "small", "2", None),
            ("plain", "low", None, [1, 2, 3]),
            ("plain", "small", None, None),
        ],
    )
    def test_are_handed_on_where_both_have_them(
        self, run: str, surrogate: str, asked: Any, expected: Any, made: dict[str, Path], heard: list[Any]
    ) -> None:
        Run(made[run]).sample(seeds=[1, 2, 3], cls=asked, surrogate=str(made[surrogate]), t_mid=4)
        assert (4, expected) in heard and {size for size, _ in heard} == {4, 8}

    def test_of_other_names_are_refused(self, made: dict[str, Path]) -> None:
        run = Run(made["cond"])
        run.recipe.images.classes[:] = ["a", "b", "c", "d"]
        with pytest.raises(
            InputError, match=r"surrogate .*low: its 4 classes are 0, 1, 2, 3, the run's 4 are a, b, c, d"
        ):
            run.sampler(surrogate=str(made["low"]), t_mid=4)
        run.sampler(surrogate=str(made["small"]), t_mid=4)


class TestRecord:
    def test_says_all_that_images_depend_on(self, places: dict[str, Path]) -> None:
        run, begin = Run(places["plain"]), {"surrogate": str(places["small"]), "t_mid": 4.0}
        found = run.sample_to(n=3, **begin)
        record = found.record["sampler"]["surrogate"]
        assert record["name"] == str(places["small"]) and (record["t_mid"], record["handover"]) == (4.0, "mean")
        assert record["checkpoint_step"] == 2 and record["recipe"] == "small"
        assert record["weights_sha256"] == sha256(Run(places["small"]).weights_file("ema"))
        assert record["sampler"]["sampler"] == "ancestral" and record["sampler"]["network_evaluations"] == 5
        assert found.path.stem.startswith("ddim-3-surrogatesmallat4-handovermean")
        finished = run.sample_to(n=3, **begin, handover="sample").record["sampler"]["surrogate"]
        assert finished["handover"] == "sample" and finished["sampler"]["network_evaluations"] == T
        assert finished["sampler"]["times_sha256"] != record["sampler"]["times_sha256"]
        same = run.sample_to(n=3, surrogate=str(places["cond"]), t_mid=4.0).record["sampler"]["surrogate"]
        assert "handover" not in same

    def test_other_weights_are_other_samples(self, places: dict[str, Path], tmp_path: Path) -> None:
        begin = {"surrogate": str(places["small"]), "t_mid": 4.0}
        out = tmp_path / "s.npz"
        first = Run(places["plain"]).sample_to(out, n=3, **begin)
        assert Run(places["plain"]).sample_to(out, n=3, **begin).record == first.record, "it is taken up"
        moved = places["small"].rename(places["small"].parent / "small-again")
        awaken(moved)
        moved.rename(places["small"])
        with pytest.raises(InputError, match="holds samples made otherwise"):
            Run(places["plain"]).sample_to(out, n=3, **begin)

    def test_the_words_that_give_the_same_again(
        self, places: dict[str, Path], command: Command, tmp_path: Path
    ) -> None:
        begin: dict[str, Any] = {"surrogate": f"{places['small']}@2", "t_mid": 4.0}
        for i, way in enumerate([begin, {**begin, "handover": "sample"}, {**begin, "surrogate": str(places["cond"])}]):
            first = Run(places["plain"]).sample_to(n=3, **way)
            words = sampling_words({"weights": "ema", **first.record["sampler"]}, "0-2", None)
            assert command("sample", places["plain"], *words, "--out", tmp_path / f"{i}.npz").code == 0
            assert np.array_equal(read_samples(tmp_path / f"{i}.npz")[0], first.images)
            assert json.loads((tmp_path / f"{i}.npz.record.json").read_text())["sampler"] == first.record["sampler"]


class TestEvaluation:
    def test_counts_what_the_surrogate_takes(self, places: dict[str, Path]) -> None:
        metrics = ["frechet_distance", "images_per_second", "network_evaluations", "multiply_adds"]
        run, small = Run(places["cond"]), Run(places["small"])
        found = evaluate(run, n=9, features="pixels", metrics=metrics, surrogate=str(places["small"]), t_mid=4)
        assert found.figure("network_evaluations") == 5 + 4
        label, t = torch.zeros(1, dtype=torch.int64), torch.tensor(8.0, dtype=torch.float64)
        with torch.inference_mode():
            first = multiply_adds(lambda: small.denoiser()(torch.zeros(1, 1, 4, 4), t))
            second = multiply_adds(lambda: run.denoiser()(torch.zeros(1, 1, 8, 8), t, Condition(label)))
        assert found.figure("multiply_adds") == pytest.approx(5 * first + 4 * second)
        assert found.label == "Ancestral, 4 steps, surrogate small at 4, handover mean"

    def test_a_sweep_over_t_mid(self, places: dict[str, Path], heard: list[Any]) -> None:
        ask: dict[str, Any] = {
            **{"features": "pixels", "metrics": ["frechet_distance"], "n": 4, "surrogate": str(places["low"])},
            **{"t_mid": [0.0, 4.0, 8.0], "handover": ["mean", "sample"]},
        }
        found = sweep(Run(places["cond"]), **ask | {"handover": "mean"})
        assert len(heard) == 3 * 2, "no network is asked before it begins"
        assert Sweep.of(found).axes == {"t_mid": [0.0, 4.0, 8.0]}
        assert [one.figure("network_evaluations") for one in found] == [8, 5 + 4, 1 + 8]
        assert sweep(Run(places["cond"]), **ask | {"handover": "mean"}) == found and len(heard) == 3 * 2
        axes = Sweep.of(sweep(Run(places["cond"]), **ask)).axes
        assert axes == {"t_mid": [0.0, 4.0, 8.0], "handover": ["mean", "sample"]}


@pytest.mark.parametrize(
    ("run", "surrogate", "settings", "message"),
    [
        ("small", "plain", {}, r"surrogate .*plain: its images are \(1, 8, 8\) .* the run's .* a lower one"),
        ("plain", "up", {}, r"up is an upsampler: it needs what makes its 4×4 images"),
        ("plain", "small", {"t_mid": None}, r"surrogate: needs --t-mid"),
        ("plain", "small", {"t_mid": 9}, r"t_mid 9: expected 0 to 8"),
        ("plain", "small", {"handover": "median"}, r"handover 'median': expected 'mean' or 'sample'"),
        ("plain", None, {"t_mid": None, "handover": "mean"}, r"handover: .* no surrogate is named"),
        ("plain", None, {}, r"t_mid: .* no surrogate is named"),
        ("plain", "nowhere", {}, r"surrogate '.*nowhere' does not exist: expected RUN, module:function, or samples"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(
    run: str, surrogate: str | None, settings: dict[str, Any], message: str, made: dict[str, Path]
) -> None:
    asked = {"surrogate": str(made.get(surrogate, surrogate)) if surrogate else None, "t_mid": 4.0, **settings}
    with pytest.raises(InputError, match=message) as caught:
        Run(made[run]).sampler(**asked)
    assert "\n" not in str(caught.value)


def test_samples_have_no_walk_to_be_left(made: dict[str, Path], tmp_path: Path) -> None:
    Run(made["small"]).sample(4, out=tmp_path / "four.npz")
    with pytest.raises(InputError, match=r"handover mean: surrogate .*four\.npz is no run"):
        Run(made["small"]).sampler(surrogate=str(tmp_path / "four.npz"), t_mid=4, handover="mean")
    with pytest.raises(InputError, match=r"its images are \(1, 4, 4\), the run's \(1, 8, 8\)"):
        Run(made["plain"]).sampler(surrogate=str(tmp_path / "four.npz"), t_mid=4)


def test_one_that_walks_one_step_is_nowhere_on_its_way(places: dict[str, Path]) -> None:
    text = (places["small"] / "recipe.yaml").read_text()
    (places["small"] / "recipe.yaml").write_text(text.replace("  steps: null\n", "  steps: 1\n", 1))
    assert Run(places["small"]).sampler().intervals == 1
    begin: dict[str, Any] = {"surrogate": str(places["small"]), "t_mid": 4.0}
    stage: Any = Run(places["plain"]).sampler(**begin).surrogate
    assert stage.record["handover"] == "sample" and stage.stage.evaluations == 1
    with pytest.raises(InputError, match=r"handover mean: surrogate .*small walks one step"):
        Run(places["plain"]).sampler(handover="mean", **begin)


class TestPairs:
    def test_each_image_stands_beside_what_it_began_from(
        self, places: dict[str, Path], command: Command, tmp_path: Path
    ) -> None:
        begin = ("--surrogate", places["small"], "--t-mid", 4)
        found = command(
            "sample", places["plain"], "-n", 6, *begin, "--out", tmp_path / "s.npz", "--pairs", tmp_path / "p.png"
        )
        assert found.code == 0 and f"picture: {tmp_path / 'p.png'}" in found.err + found.out
        picture = np.asarray(Image.open(tmp_path / "p.png"))
        images, _ = read_samples(tmp_path / "s.npz")
        run = Run(places["plain"])
        first = run.sampler(surrogate=str(places["small"]), t_mid=4).surrogate.images(range(6))  # type: ignore[union-attr]
        gap, between = 4, 1
        for i in range(6):
            top, left = gap + (i // 4) * (8 + gap), gap + (i % 4) * (16 + between + gap)
            close(picture[top : top + 8, left : left + 8], first[i, ..., 0])
            close(picture[top : top + 8, left + 8 + between : left + 16 + between], images[i, ..., 0])

    def test_they_need_a_surrogate(self, places: dict[str, Path], command: Command, tmp_path: Path) -> None:
        found = command("sample", places["plain"], "-n", 2, "--pairs", tmp_path / "p.png")
        assert found.code == 2 and "--pairs: " in found.err and "no --surrogate is named" in found.err
        assert not list((places["plain"] / "samples").glob("*.npz"))

    def test_of_a_cascade_they_are_its_base_s(self, places: dict[str, Path]) -> None:
        cascade = open_run(f"{places['low']}+{places['up']}")
        begin: dict[str, Any] = {"surrogate": str(places["small"]), "t_mid": 4}
        samples = cascade.sample(3, **begin)
        assert cascade.surrogate_pairs(samples, **begin).shape == (4 + 6 + 4, 4 + 3 * (13 + 4), 1)


class TestIdentity:
    def test_a_run_is_the_same_surrogate_however_its_path_is_spelled(
        self, places: dict[str, Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run, folder = Run(places["cond"]), places["plain"].parent
        monkeypatch.chdir(folder)
        first = run.sample_to(n=2, surrogate="plain", t_mid=4.0)
        again = run.sample_to(n=2, surrogate="./plain", t_mid=4.0)
        assert again.path == first.path and np.array_equal(again.images, first.images)
        found = evaluate(run, n=8, features="pixels", metrics=["precision"], surrogate="plain", t_mid=4.0)
        record = run.record(run.way(surrogate="./plain", t_mid=4.0), list(range(8)), None)
        assert is_of_set(found, json.loads(json.dumps(record)))

    def test_another_one_of_the_name_is_refused_by_what_differs(self, places: dict[str, Path]) -> None:
        run = Run(places["cond"])
        out = run.path / "few.npz"
        run.sample_to(out, n=2, surrogate=str(places["plain"]), t_mid=4.0)
        with pytest.raises(InputError, match=r"made otherwise \(sampler\.network_evaluations: 8, now 12\)"):
            run.sample_to(out, n=2, surrogate=str(places["cond"]), t_mid=4.0)

    def test_files_are_named_by_the_surrogate_s_step_too(self, places: dict[str, Path]) -> None:
        run, plain = Run(places["cond"]), Run(places["plain"])
        made = run.sample_to(n=2, surrogate=str(plain.path), t_mid=4.0)
        assert made.path is not None and f"-from{plain.step}-step{run.step}-" in made.path.name

    def test_samples_that_began_from_samples_draw_from_further_streams(self, places: dict[str, Path]) -> None:
        """Or the noise of a second walk would be what the first one's images are made of."""
        run, one, two = Run(places["cond"]), places["cond"] / "one.npz", places["cond"] / "two.npz"
        run.sample_to(one, n=2, surrogate=str(places["plain"]), t_mid=4.0)
        run.sample_to(two, n=2, surrogate=str(one), t_mid=4.0)
        again = run.sampler(surrogate=str(one), t_mid=4.0)
        assert again._role("step") == "step 3", "of a walk from a walk from a walk"
        assert run.sampler(surrogate=str(two), t_mid=4.0)._role("step") == "step 4"
        assert again.surrogate is not None and again.surrogate.record["stages"] == 2, "which its images depend on"
        with np.load(one) as held:
            np.savez(places["cond"] / "bare.npz", **held)
        bare = run.sampler(surrogate=str(places["cond"] / "bare.npz"), t_mid=4.0)
        assert bare._role("step") == "step 2", "nobody says how these were made"
        for broken in ({"format": FORMAT}, {"format": FORMAT, "sampler": {"surrogate": 3, "low": {"stages": "x"}}}):
            (places["cond"] / "bare.npz.record.json").write_text(json.dumps(broken))
            assert run.sampler(surrogate=str(places["cond"] / "bare.npz"), t_mid=4.0).stages in (2, 3)
