"""Evaluations: what they say, that their figures can be computed again, and what is refused before any work."""

from __future__ import annotations

import hashlib
import importlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.conftest import Command
from trilemma.data import open_data, write_samples
from trilemma.errors import InputError
from trilemma.evaluations import Evaluation, evaluate, measure, write_statistics
from trilemma.evaluations.record import read
from trilemma.runs import Run
from trilemma.samplers import Sampler, Samples

PIXELS = {"features": "pixels"}


@pytest.fixture
def no_sampling(monkeypatch: pytest.MonkeyPatch) -> None:
    def generate(*_: object) -> None:
        raise AssertionError("something was sampled")

    monkeypatch.setattr(Sampler, "generate", generate)


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    """60 real digits as a set of samples, six of each class."""
    data = open_data("mnist5k", split="test")
    images, labels = data.batch(np.concatenate([np.arange(6) + 50 * k for k in range(10)]))
    return write_samples(tmp_path / "digits.npz", images, labels)


def distance(real: np.ndarray, fake: np.ndarray) -> float:
    """The Fréchet distance of flattened pixels, by the formula."""
    a, b = (images.reshape(len(images), -1).astype(np.float64) / 255 for images in (real, fake))
    root = scipy.linalg.sqrtm(np.cov(a.T) @ np.cov(b.T)).real
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(np.cov(a.T) + np.cov(b.T) - 2 * root))


class TestOfRun:
    @pytest.fixture
    def evaluation(self, run: Run, data: Path) -> Evaluation:
        made = evaluate(run, str(data), n=20, **PIXELS)
        assert made.path is not None
        assert read(made.path) == made, "file and return value differ"
        return made

    def test_says_what_its_figures_depended_on(self, run: Run, evaluation: Evaluation, data: Path) -> None:
        e = evaluation
        assert e.format == "trilemma-evaluation/1"
        assert e.created is not None and e.created.endswith("Z") and len(e.created) == 20
        assert e.label == "Ancestral, all 8 steps"
        content = e.content()
        subject = {"kind": "run", "path": str(run.path), "recipe": "tiny", "checkpoint_step": 6, "weights": "ema"}
        assert subject.items() <= content["subject"].items()
        assert e.subject.parameters == run.parameters
        weights = (run.checkpoint / "ema.safetensors").read_bytes()
        assert e.subject.weights_sha256 == hashlib.sha256(weights).hexdigest()
        file = run.path / str(e.samples.file)
        assert {"count": 20, "seeds": "0-19", "classes": "balanced"}.items() <= content["samples"].items()
        assert e.samples.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
        sampler = {"sampler": "ancestral", "steps": 8, "spacing": "even", "clip": "static", "network_evaluations": 8}
        assert {**sampler, "precision": "fp32"}.items() <= content["sampler"].items()
        assert {"name": "pixels", "dim": 64, "resize": "none"}.items() <= content["features"].items()
        assert len(content["features"]["sha256"]) == 64
        reference = open_data(str(data))
        assert content["reference"] == {
            **{"data": "ramps.npz", "split": "all", "count": 24, "size": [1, 8, 8]},
            "sha256": reference.fingerprint(),
        }
        assert content["environment"].keys() == {
            *("trilemma", "python", "torch", "device", "hardware", "threads", "processes")
        }
        assert e.environment.processes == 1 and e.wall_time_s is not None and e.wall_time_s > 0

    def test_figures_can_be_computed_again(self, run: Run, evaluation: Evaluation, data: Path) -> None:
        with np.load(run.path / evaluation.samples.file) as made, np.load(data) as real:
            expected = distance(real["arr_0"], made["arr_0"])
        metrics = evaluation.metrics
        assert metrics["frechet_distance"] == pytest.approx(expected, rel=1e-3, abs=1e-3)
        assert 0 <= metrics["precision"] <= 1 and 0 <= metrics["recall"] <= 1
        assert metrics["images_per_second"] * metrics["seconds_per_image"] == pytest.approx(1, rel=1e-6)
        assert metrics["network_evaluations"] == 8
        assert any("24 real images for 64 features" in warning for warning in evaluation.warnings)

    def test_takes_up_the_samples_that_are_there(self, run: Run, data: Path, evaluation: Evaluation) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Sampler, "generate", lambda *_: pytest.fail("sampled again"))
            again = evaluate(run, str(data), n=20, metrics=["frechet_distance", "recall"], **PIXELS)
        assert again.metrics["recall"] == evaluation.metrics["recall"]
        assert "precision" in again.metrics, "an earlier figure of the same samples is lost"
        assert again.metrics["frechet_distance"] == evaluation.metrics["frechet_distance"]

    def test_takes_every_flag_of_sampling(self, run: Run, tmp_path: Path) -> None:
        made = evaluate(
            run, seeds=[3, 4, 5, 9], cls=2, samples_out=tmp_path / "set.npz", out=tmp_path / "e.json", label="mine",
            sampler="ddim", steps=4, eta=0.5, weights="raw", clip="none", spacing="uniform", batch=2, **PIXELS,
        )  # fmt: skip
        assert made.label == "mine" and made.subject.weights == "raw"
        assert (made.samples.seeds, made.samples.classes) == ("3,4,5,9", "2")
        expected = {"sampler": "ddim", "steps": 4, "eta": 0.5, "spacing": "uniform", "clip": "none"}
        assert expected.items() <= made.content()["sampler"].items()
        assert (tmp_path / "e.json").is_file() and Path(str(made.samples.file)) == tmp_path / "set.npz"

    def test_tensorboard_has_it_at_the_checkpoint_s_step(self, run: Run, evaluation: Evaluation) -> None:
        events = EventAccumulator(str(run.path / "tensorboard" / "Ancestral-all-8-steps-vs-ramps-all-pixels"))
        events.Reload()
        for name in ("frechet_distance", "precision", "images_per_second"):
            (event,) = events.Scalars(f"evaluation/{name}")
            assert event.step == 6 and event.value == pytest.approx(evaluation.figure(name), rel=1e-6)
        (shown,) = events.Images("evaluation/samples")
        assert (shown.step, shown.height, shown.width) == (6, 2 * 10 + 2, 10 * 10 + 2)

    def test_defaults_to_its_training_data(self, run: Run) -> None:
        assert evaluate(run, n=5, **PIXELS).reference.data == "ramps.npz"


class TestOfSamples:
    def test_measures_a_file(self, digits: Path) -> None:
        made = evaluate(digits, "mnist5k:test")
        metrics = made.metrics
        assert made.content()["subject"] == {"kind": "samples", "path": str(digits)} and made.sampler is None
        assert made.samples.sha256 == hashlib.sha256(digits.read_bytes()).hexdigest()
        assert made.samples.count == 60 == sum(metrics["class_counts"])
        assert metrics["recognised"] > 0.9, "real digits, labelled rightly"
        assert np.mean(metrics["recognised_by_class"]) == pytest.approx(metrics["recognised"])  # six of each class
        assert metrics["balance_kl"] < 0.05 and metrics["precision"] > 0.9
        assert made.features.name == "digits" and made.reference.count == 500
        assert made.path == digits.with_name("digits.npz-vs-mnist5k-test-digits.json")
        assert "images_per_second" not in metrics, "nothing was sampled"

    def test_notices_labels_that_are_wrong(self, digits: Path, tmp_path: Path) -> None:
        with np.load(digits) as held:
            write_samples(tmp_path / "wrong.npz", held["arr_0"], (held["arr_1"] + 1) % 10)
        assert evaluate(tmp_path / "wrong.npz", "mnist5k:test", metrics=["recognised"]).metrics["recognised"] < 0.1

    def test_against_statistics_equals_against_the_data(self, digits: Path, tmp_path: Path) -> None:
        stats = write_statistics("mnist5k:test", tmp_path / "stats.npz")
        with np.load(stats) as held:
            assert held["mu"].shape == (128,) and held["sigma"].shape == (128, 128)
        ours = evaluate(digits, str(stats), out=tmp_path / "a.json")
        theirs = evaluate(digits, "mnist5k:test", out=tmp_path / "b.json")
        name = "frechet_distance"
        assert ours.metrics[name] == pytest.approx(theirs.metrics[name], rel=1e-6, abs=1e-6)
        assert ours.reference.model_copy(update={"statistics": None}) == theirs.reference
        assert ours.reference.statistics == str(stats)
        assert ours.metrics["recognised"] == theirs.metrics["recognised"]
        assert "recall" not in ours.metrics and any("recall" in warning for warning in ours.warnings)

    def test_of_a_folder_equals_that_of_a_file(self, digits: Path, tmp_path: Path) -> None:
        with np.load(digits) as held:
            write_samples(tmp_path / "folder", held["arr_0"], held["arr_1"])
        figures = [evaluate(path, "mnist5k:test").metrics for path in (digits, tmp_path / "folder")]
        assert figures[0] == figures[1]


class TestOfData:
    def test_of_the_reference_itself_is_perfect(self, tmp_path: Path) -> None:
        made = measure("mnist5k:test", "mnist5k:test", out=tmp_path / "held-out.json")
        metrics = made.metrics
        assert metrics["frechet_distance"] == pytest.approx(0, abs=1e-3)
        assert (metrics["precision"], metrics["recall"]) == (1.0, 1.0)
        assert metrics["balance_kl"] == pytest.approx(0, abs=1e-9) and metrics["recognised"] > 0.98
        assert made.label == "Real images (test)" and made.subject.kind == "data"
        assert read(tmp_path / "held-out.json").metrics == metrics


class TestRefusal:
    @pytest.mark.usefixtures("no_sampling")
    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            ({"metrics": ["frechet_distanse"]}, "metric 'frechet_distanse': did you mean 'frechet_distance'"),
            ({"metrics": ["inception_score"]}, "metric 'inception_score' needs"),
            ({"metrics": ["fid-50k"]}, "metric 'fid-50k': did you mean 'frechet_distance'"),
            ({"features": "digitz"}, "features 'digitz': did you mean 'digits'"),
            ({"features": "digits"}, r"1x8x8.*expected 1x28x28"),
            ({"reference": "mnist5k"}, r"reference: its images are \(1, 28, 28\), the run's \(1, 8, 8\)"),
            ({"reference": "shapes"}, r"\(3, 32, 32\).*\(1, 8, 8\)"),
            ({"reference": "mnist6k"}, "data 'mnist6k': did you mean 'mnist5k'"),
            ({"reference": "mnist5k:tset"}, "'tset': did you mean 'test'"),
            ({"steps": 9}, "steps 9"),
            ({"sampler": "dimm"}, "'dimm'"),
            ({"cls": 7}, "class '7'"),
            ({"out": "file/e.json"}, "out: cannot write"),
            ({"samples_out": "file/set.npz"}, "out: "),
        ],
    )
    def test_comes_before_anything_is_sampled(
        self, run: Run, data: Path, tmp_path: Path, arguments: dict[str, Any], says: str
    ) -> None:
        (tmp_path / "file").write_text("x")
        given = {"reference": str(data), "n": 8, **PIXELS, **arguments}
        for key in ("out", "samples_out"):
            if key in given:
                given[key] = tmp_path / given[key]
        with pytest.raises(InputError, match=says) as caught:
            evaluate(run, **given)
        assert "\n" not in str(caught.value)
        assert not list((run.path / "samples").iterdir()) and not (run.path / "evaluations").exists()

    def test_of_samples_of_another_size(self, digits: Path, data: Path) -> None:
        with pytest.raises(InputError, match=r"its images are \(1, 8, 8\), the samples \(1, 28, 28\)"):
            evaluate(digits, str(data), **PIXELS)

    def test_of_statistics_of_another_size(self, digits: Path, data: Path, tmp_path: Path) -> None:
        stats = write_statistics(str(data), tmp_path / "stats.npz", "pixels")
        with pytest.raises(InputError, match=r"\(1, 8, 8\).*\(1, 28, 28\)"):
            evaluate(digits, str(stats), **PIXELS)

    def test_of_sampling_what_is_sampled_already(self, digits: Path) -> None:
        with pytest.raises(InputError, match=r"steps: .* holds finished samples"):
            evaluate(digits, "mnist5k:test", steps=3)
        with pytest.raises(InputError, match="reference: samples need one"):
            evaluate(digits)

    def test_of_what_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="does not exist: expected a run directory, or samples"):
            evaluate(tmp_path / "nothing", "mnist5k")

    @pytest.mark.parametrize("name", ["stats.json", "file/stats.npz"])
    def test_of_statistics_that_cannot_be_written(self, data: Path, tmp_path: Path, name: str) -> None:
        (tmp_path / "file").write_text("x")
        with pytest.raises(InputError, match=r"should end in \.npz|cannot write"):
            write_statistics(str(data), tmp_path / name, "pixels")


class TestDemo:
    def test_trains_samples_three_ways_measures_and_reports(
        self,
        command: Command,
        half_the_digits: None,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        room = importlib.import_module("trilemma.jobs.demonstration")
        train: Callable[..., Run] = room.train
        small = ["training.steps=3", "training.warmup=0", "training.validation_images=8", "schedule.steps=32"]
        small += ["network.base_channels=8", "network.attention=[]", "network.patch=4", "sampling.steps=4"]
        small += ["training.precision=fp32", "sampling.precision=fp32", "training.batch=8"]
        monkeypatch.setattr(room, "train", lambda name, **given: train(name, overrides=small, **given))
        run, evaluations = room.demo(tmp_path / "demo", n=20)
        assert f"samples: {tmp_path}/demo/samples/grid-00000003.png" in capfd.readouterr().out.splitlines()
        assert run.recipe.name == "demo" and run.step == 3
        assert [e.subject.kind for e in evaluations] == ["run", "run", "run", "data"]
        ways = [(e.sampler.sampler, e.sampler.network_evaluations) for e in evaluations[:3]]  # guided: two a step
        assert ways == [("ancestral", 32), ("ancestral", 32), ("ddim", 8)]
        for e in evaluations:
            assert e.reference.count == 2250
            assert {"frechet_distance", "recognised", "recall", "balance_kl"} <= e.metrics.keys()
        assert all(e.metrics["images_per_second"] > 0 for e in evaluations[:3])
        assert evaluations[3].metrics["recognised"] > 0.98 and evaluations[3].samples.count == 20
        for name in ("forward-strip", "reverse-strip"):
            with np.load(run.path / "samples" / f"{name}.npz") as strip:
                assert strip["images"].dtype == np.uint8 and strip["images"].shape[1] == len(strip["times"])

        def generate(*_: object) -> None:
            raise AssertionError("sampled again")

        # The command, which takes up all that is there.
        monkeypatch.setattr(room, "_write_strip", lambda *_: None)
        monkeypatch.setattr(Sampler, "generate", generate)
        code, out, err = command("demo", "--out", tmp_path / "demo", "-n", 20)
        assert code == 0 and err == ""
        assert f"run directory: {tmp_path}/demo" in out.splitlines()
        assert re.match(rf"report: {tmp_path}/demo/report\.html  \(\d+ s in all\)", out.splitlines()[-1])
        page = (tmp_path / "demo" / "report.html").read_text()
        assert all(label in out and label in page for label in ("Ancestral", "DDIM", "Real images"))
        for e in evaluations:
            assert e.path is not None
            assert all(read(e.path).metrics[key] == e.metrics[key] for key in ("frechet_distance", "recall"))


class TestMeasure:
    """The same images, however they come."""

    NAMES = ("frechet_distance", "recall")

    def test_takes_arrays_tensors_samples_data_and_paths_alike(self, digits: Path) -> None:
        with np.load(digits) as held:
            images, labels = held["arr_0"], held["arr_1"]
        expected = measure(digits, "mnist5k:test", self.NAMES)
        floats = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
        held_out = open_data("mnist5k", split="test")
        for one in (images, torch.from_numpy(images), floats, Samples(images, labels, list(range(60)))):
            made = measure(one, held_out, self.NAMES)
            assert (made.metrics, made.reference) == (expected.metrics, expected.reference) and made.path is None
        assert "recognised" in measure(Samples(images, labels, list(range(60))), held_out).metrics, "it has labels"
        assert measure(images, held_out, self.NAMES).samples.sha256 is not None

    def test_real_images_are_a_yardstick_and_others_are_not(self, digits: Path) -> None:
        held_out = open_data("mnist5k", split="test")
        for one in (held_out, "mnist5k:test"):
            assert measure(one, held_out, ["recall"]).yardstick
        assert not measure(digits, held_out, ["recall"]).yardstick

    def test_refuses_what_are_no_images(self, tmp_path: Path) -> None:
        images = np.zeros((4, 8, 8, 1), np.uint8)
        for one, says in (
            (3, "images: a int, expected an array"),
            (images.transpose(0, 3, 1, 2), "looks like NCHW"),
            (images.astype(np.int64), "images are int64, expected uint8"),
            (torch.zeros(4, 3), "images have shape|images are float32"),
        ):
            with pytest.raises(InputError, match=says):
                measure(one, images, ["precision"])
        with pytest.raises(InputError, match=r"should end in \.json"):
            measure(images, images, ["precision"], out=tmp_path / "e.txt")
