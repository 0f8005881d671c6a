"""Training a recipe into a run directory: what is written, resumed, begun from, warned of and refused."""

from __future__ import annotations

import io
import json
import os
import re
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from trilemma.cli import main
from trilemma.data import open_data
from trilemma.errors import InputError
from trilemma.jobs import train
from trilemma.jobs.training import prior_warning, second_moment
from trilemma.machine.locks import locked
from trilemma.process import SCHEDULES, to_model
from trilemma.runs import Run
from trilemma.runs.logs import Log, Window
from trilemma.training import Outcome as StepOutcome
from trilemma.training import Report, checkpoint

Write = Callable[..., Path]
Outcome = Callable[[Path], dict[str, Any]]


def log_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (path / "log.jsonl").read_text().splitlines()]


class TestRunDirectory:
    def test_holds_what_it_should(self, run: Run) -> None:
        assert {entry.name for entry in run.path.iterdir()} == {
            *("recipe.yaml", "log.jsonl", "tensorboard", "checkpoints", "samples")
        }
        assert checkpoint.steps(run.path / "checkpoints") == [4, 6]
        assert (run.path / "checkpoints" / "latest").resolve() == run.checkpoint.resolve()
        assert run.step == 6

    def test_needs_its_data_no_more(self, run: Run, data: Path) -> None:
        images = run.recipe.images
        assert images is not None and images.shape == (1, 8, 8) and images.classes == ["0", "1", "2", "3"]
        hidden = data.with_suffix(".hidden")
        data.rename(hidden)
        try:
            assert Run(run.path).sample(2).images.shape == (2, 8, 8, 1)
        finally:
            hidden.rename(data)

    def test_log_says_how_it_went(self, run: Run) -> None:
        lines = log_of(run.path)
        steps = [line for line in lines if "loss" in line]
        assert [line["step"] for line in steps] == [1, 2, 3, 4, 5, 6]
        assert [line["images"] for line in steps] == [6, 12, 18, 24, 30, 36]
        assert [line["lr"] for line in steps] == pytest.approx([5e-4, *[1e-3] * 5])
        for line in steps:
            assert line["loss"] > 0 and line["grad_norm"] > 0 and line["images_per_s"] > 0 and line["skipped"] == 0
            quarters = [line[f"loss_t{q}"] for q in (1, 2, 3, 4) if f"loss_t{q}" in line]
            assert quarters and min(quarters) <= line["loss"] <= max(quarters)
        validated = [line for line in lines if "validation_loss" in line]
        assert [line["step"] for line in validated] == [3, 6]

    def test_tensorboard_has_the_log_s_figures(self, run: Run) -> None:
        events = EventAccumulator(str(run.path / "tensorboard"))
        events.Reload()
        written = {event.step: event.value for event in events.Scalars("loss")}
        assert written == pytest.approx({line["step"]: line["loss"] for line in log_of(run.path) if "loss" in line})

    def test_grids_are_of_the_same_noise(self, write_recipe: Write, tmp_path: Path) -> None:
        train(write_recipe(training={"steps": 2, "grid_every": 1, "learning_rate": 1e-12}), out=tmp_path / "run")
        grids = sorted((tmp_path / "run" / "samples").glob("grid-*.png"))
        assert [grid.name for grid in grids] == ["grid-00000001.png", "grid-00000002.png"]
        assert grids[0].read_bytes() == grids[1].read_bytes()
        events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
        events.Reload()
        for name, rows, columns in (("grid", 4, 10), ("strip", 4, 9)):
            shown = events.Images(name)
            assert [event.step for event in shown] == [1, 2]
            files = sorted((tmp_path / "run" / "samples").glob(f"{name}-*.png"))
            for event, file in zip(shown, files, strict=True):
                pixels = np.asarray(Image.open(file))
                assert np.array_equal(np.asarray(Image.open(io.BytesIO(event.encoded_image_string)))[..., 0], pixels)
                assert pixels.shape == (rows * 10 + 2, columns * 10 + 2)

    def test_trains_a_classifier_too(self, write_recipe: Write, data: Path, tmp_path: Path) -> None:
        values = {
            "learner": {"name": "classifier", "shift": 0.1},
            "network": {"name": "classifier", "widths": [[4], [8]]},
        }
        path = write_recipe()
        lines = path.read_text()
        import yaml

        path.write_text(yaml.safe_dump({**yaml.safe_load(lines), **values, "sampling": {"sampler": "ancestral"}}))
        run = train(path, out=tmp_path / "run")
        last = log_of(run.path)[-1]
        assert 0 <= last["validation_accuracy"] <= 1
        logits = run.classifier()(torch.zeros(2, 1, 8, 8))
        assert logits.shape == (2, 4)
        with pytest.raises(InputError, match="trains a classifier, which does not generate images"):
            run.sample(1)
        with pytest.raises(InputError, match="trains a classifier model, not a classifier of noised images"):
            run.posterior()


class TestResume:
    def test_a_shortened_warm_up_stays_so(
        self, write_recipe: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Said once, before; a longer run goes on at the rate that it had reached."""
        recipe = write_recipe(training={"steps": 20, "warmup": 30, "checkpoint_every": 20, "validate_every": 0})
        note = "note: warm-up 30 steps: more than the run's 20, shortened to a tenth, 2"
        train(recipe, out=tmp_path / "run")
        assert capsys.readouterr().out.splitlines().count(note) == 1
        train(recipe, out=tmp_path / "run", overrides=["training.steps=22"], resume=True)
        assert note not in capsys.readouterr().out
        rates = [line["lr"] for line in log_of(tmp_path / "run") if "lr" in line]
        assert rates == pytest.approx([5e-4, *[1e-3] * 21])

    def test_goes_on_bit_for_bit_with_accumulation(self, write_recipe: Write, outcome: Outcome, tmp_path: Path) -> None:
        recipe = write_recipe(training={"steps": 10, "checkpoint_every": 5, "micro_batch": 4, "validate_every": 5})
        train(recipe, out=tmp_path / "whole")
        train(recipe, out=tmp_path / "halves", overrides=["training.steps=5"])
        train(recipe, out=tmp_path / "halves", overrides=["training.steps=10"], resume=True)
        assert outcome(tmp_path / "halves") == outcome(tmp_path / "whole")

    def test_logs_what_an_unbroken_run_logs(
        self, write_recipe: Write, outcome: Outcome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Broken off between two lines of the log, whose means go over what came before."""
        recipe = write_recipe(training={"steps": 10, "checkpoint_every": 4, "log_every": 5, "validate_every": 0})
        train(recipe, out=tmp_path / "whole")
        written = Log.write
        with monkeypatch.context() as patch:
            # The line of step 5 is logged; then it breaks off, and goes on from step 4.
            patch.setattr(Log, "write", lambda log, figures: (written(log, figures), 1 / 0))
            with pytest.raises(ZeroDivisionError):
                train(recipe, out=tmp_path / "broken")
        assert checkpoint.steps(tmp_path / "broken" / "checkpoints") == [4]
        train(recipe, out=tmp_path / "broken", resume=True)
        assert outcome(tmp_path / "broken") == outcome(tmp_path / "whole")

    def test_in_a_directory_that_another_process_trains_in_is_refused(self, run: Run, outcome: Outcome) -> None:
        before = outcome(run.path)
        with (
            locked(run.path),
            pytest.raises(InputError, match=rf"is being written by another process \({os.getpid()} on "),
        ):
            train(run.path / "recipe.yaml", out=run.path, resume=True)
        assert outcome(run.path) == before
        train(run.path / "recipe.yaml", out=run.path, resume=True)
        assert not run.path.with_name(f"{run.path.name}.lock").exists()

    def test_of_a_finished_run_changes_nothing(self, run: Run, outcome: Outcome) -> None:
        before = outcome(run.path)
        train(run.path / "recipe.yaml", out=run.path, resume=True)
        assert outcome(run.path) == before

    def test_begins_where_there_is_nothing(self, write_recipe: Write, tmp_path: Path) -> None:
        assert train(write_recipe(), out=tmp_path / "new", resume=True).step == 6

    def test_must_be_asked_for(self, run: Run, outcome: Outcome) -> None:
        before = outcome(run.path)
        with pytest.raises(InputError, match="holds a run already: add --resume"):
            train(run.path / "recipe.yaml", out=run.path)
        assert outcome(run.path) == before

    @pytest.mark.parametrize(
        "change", ["training.batch=4", "network.base_channels=4", "schedule.steps=9", "training.seed=3"]
    )
    def test_keeps_what_the_run_is(self, run: Run, outcome: Outcome, change: str) -> None:
        before, key = outcome(run.path), change.partition("=")[0]
        with pytest.raises(InputError, match=key if key.startswith("training") else key.partition(".")[0]):
            train(run.path / "recipe.yaml", out=run.path, resume=True, overrides=[change])
        assert outcome(run.path) == before
        assert Run(run.path).recipe == run.recipe

    def test_by_another_recipe_is_refused(self, run: Run) -> None:
        with pytest.raises(InputError, match="holds a run of recipe 'tiny', not 'demo'"):
            train("demo", out=run.path, resume=True)

    def test_drops_what_was_logged_after_the_checkpoint(self, tmp_path: Path) -> None:
        log = tmp_path / "log.jsonl"
        log.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"st')
        with Log(tmp_path, 2, write=True) as opened:
            opened.write({"step": 3, "loss": float("nan")})
        assert log.read_text() == '{"step": 1}\n{"step": 2}\n{"step": 3, "loss": null}\n'


class TestInit:
    def test_begins_from_the_averaged_weights(self, run: Run, write_recipe: Write, tmp_path: Path) -> None:
        recipe = write_recipe(training={"steps": 1, "warmup": 0, "learning_rate": 1e-12})
        begun = train(recipe, out=tmp_path / "begun", init=run.path)
        source = load_file(run.weights_file("ema"))
        for name, value in load_file(begun.weights_file("raw")).items():
            torch.testing.assert_close(value, source[name], rtol=0, atol=1e-9)

    def test_from_another_network_is_refused(self, run: Run, write_recipe: Write, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"weight '.*' (has shape|is in)"):
            train(write_recipe(network={"base_channels": 4}), out=tmp_path / "begun", init=run.path)


@contextmanager
def full_beyond(limit: int) -> Iterator[None]:
    """A full disk, stood in for: no file of this process grows beyond so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ended = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ended)


@pytest.mark.parametrize(
    ("limit", "command", "says"),
    [
        (9000, ["train", "RUN/recipe.yaml", "--out", "RUN", "--resume", "--set", "training.steps=9"],
         "step-0000000[89] .*; the last good checkpoint is .*step-00000006"),
        (200, ["sample", "RUN", "-n", "4", "--out", "OUT.npz"], r"OUT\.npz.*; the parts that are finished are safe in"),
        (200, ["nll", "RUN", "DATA", "-n", "4", "--out", "OUT.json"], r"cannot write .*OUT\.json"),
        (9000, ["export", "RUN", "--out", "OUT"], "cannot write .*OUT"),
        (200, ["evaluate", "DATA", "--reference", "DATA", "--metrics", "frechet_distance", "--features", "pixels",
               "--out", "OUT.json"], r"cannot write .*OUT\.json.*; the samples are safe in .*ramps\.npz"),
    ],
    ids=["train", "sample", "nll", "export", "evaluate"],
)  # fmt: skip
def test_a_full_disk_is_one_line_and_loses_nothing(
    run: Run,
    write_recipe: Write,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],  # not to a file, which would be full as well
    limit: int,
    command: list[str],
    says: str,
) -> None:
    (tmp_path / "place").mkdir()
    if command[0] == "export":  # which diffusers has a counterpart of
        run = train(write_recipe(network={"groups": 2}), out=tmp_path / "exported")
    words = {"RUN": str(run.path), "OUT": str(tmp_path / "place" / "OUT"), "DATA": str(data)}
    command = [re.sub("RUN|OUT|DATA", lambda found: words[found[0]], word) for word in command]
    if command[0] == "nll":
        command[2:3] = ["--reference", f"{data}:train"]
    monkeypatch.setattr(sys, "argv", ["trilemma", *command])
    capsys.readouterr()
    with full_beyond(limit), pytest.raises(SystemExit) as ended:
        main()
    error = capsys.readouterr().err
    assert ended.value.code == 2 and re.fullmatch(rf"error: .*{says}.*\n", error), error
    left = [path.name for path in (tmp_path / "place").rglob("*") if path.is_file()]
    assert not [name for name in left if "partial" in name or name.endswith(".lock")]
    assert not list(run.path.rglob("*.partial")) and Run(run.path).step >= 6


class TestRefusal:
    def test_of_three_images_at_batch_8_leaves_no_run_in_the_way(self, write_recipe: Write, tmp_path: Path) -> None:
        np.savez(tmp_path / "three.npz", arr_0=np.zeros((3, 8, 8, 1), np.uint8), arr_1=np.arange(3))
        recipe = write_recipe(data={"name": str(tmp_path / "three.npz")}, training={"batch": 8})
        with pytest.raises(InputError, match=r"batch 8 is more than the 3 images"):
            train(recipe, out=tmp_path / "run")
        assert train(recipe, out=tmp_path / "run", overrides=["training.batch=3"]).step == 6

    def test_of_a_network_that_does_not_fit_leaves_no_run_in_the_way(self, write_recipe: Write, tmp_path: Path) -> None:
        recipe = write_recipe(network={"patch": 3})
        with pytest.raises(InputError, match=r"network\.patch 3 does not divide the image size 8×8"):
            train(recipe, out=tmp_path / "run")
        assert train(recipe, out=tmp_path / "run", overrides=["network.patch=2"]).step == 6

    def test_of_classes_that_are_not_there(self, write_recipe: Write, tmp_path: Path) -> None:
        np.savez(tmp_path / "plain.npz", arr_0=np.zeros((8, 8, 8, 1), np.uint8))
        recipe = write_recipe(data={"name": str(tmp_path / "plain.npz")})
        with pytest.raises(InputError, match=r"learner\.conditional true needs labelled data"):
            train(recipe, out=tmp_path / "run")
        run = train(recipe, out=tmp_path / "run", overrides=["learner.conditional=false"])
        assert run.classes == [] and run.sample(2).labels is None

    @pytest.mark.parametrize("section", ["grid_every", "evaluate"])
    @pytest.mark.parametrize("sampling", [{"guidance": 1.0}, {"times": [9.0, 3.0]}])
    def test_of_a_sampling_section_that_could_not_draw_its_grids(
        self, write_recipe: Write, tmp_path: Path, sampling: dict[str, Any], section: str
    ) -> None:
        recipe = write_recipe(sampling=sampling)
        how = {"grid_every": "training.grid_every=3", "evaluate": "evaluate={every: 3, n: 5, features: pixels}"}
        with pytest.raises(InputError, match=r"without label dropout|times"):
            train(recipe, out=tmp_path / "run", overrides=[how[section]])
        assert not (tmp_path / "run" / "recipe.yaml").exists()
        train(recipe, out=tmp_path / "run", overrides=["training.steps=1", "training.warmup=0"])

    def test_of_an_out_below_a_file(self, write_recipe: Write, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("x")
        with pytest.raises(InputError, match="out: cannot write"):
            train(write_recipe(), out=tmp_path / "file" / "run")

    def test_of_other_data_on_resuming(self, run: Run, tmp_path: Path, data: Path) -> None:
        original = data.read_bytes()
        try:
            np.savez(data, arr_0=np.zeros((9, 4, 4, 3), np.uint8), arr_1=np.zeros(9, np.int64))
            with pytest.raises(InputError, match=r"has images \(3, 4, 4\) .* recipe's images are \(1, 8, 8\)"):
                train(run.path / "recipe.yaml", out=run.path, resume=True)
        finally:
            data.write_bytes(original)


def test_precisions_may_follow_each_other_in_one_process(write_recipe: Write, tmp_path: Path) -> None:
    for i, precision in enumerate(["fp32", "bf16", "fp32"]):
        recipe = write_recipe(training={"steps": 1, "warmup": 0, "precision": precision})
        assert train(recipe, out=tmp_path / f"run{i}").step == 1
    weights = [load_file(tmp_path / f"run{i}" / "checkpoints" / "latest" / "model.safetensors") for i in range(3)]
    assert all(torch.equal(value, weights[2][name]) for name, value in weights[0].items())
    assert any(not torch.equal(value, weights[1][name]) for name, value in weights[0].items())


class TestWindow:
    def test_means_by_quarter_of_t(self) -> None:
        window = Window(batch=4)
        times = torch.tensor([0.05, 0.25, 0.26, 1.0], dtype=torch.float64)
        each = torch.tensor([1.0, 3.0, 5.0, 7.0])
        for step, factor in ((1, 1.0), (2, 3.0)):
            outcome = StepOutcome(each.mean() * factor, each * factor, times)
            window.add(Report(step, outcome, {"optimizer": 0.5}, 1e-3, 0))
        report = Report(3, None, {"optimizer": float("nan")}, 1e-3, 1)
        window.add(report)
        line = window.line(report, 1.23456)
        assert line["loss"] == pytest.approx(8.0)
        assert (line["loss_t1"], line["loss_t2"], line["loss_t4"]) == pytest.approx((4.0, 10.0, 14.0))
        assert "loss_t3" not in line, "no image fell into the third quarter"
        assert (line["step"], line["images"], line["skipped"], line["time_s"]) == (3, 12, 1, 1.235)

    def test_parts_have_their_quarters_too(self) -> None:
        times, part = torch.tensor([0.1, 0.2, 1.0], dtype=torch.float64), torch.tensor([1.0, 0.0, 1.0])
        report = Report(
            1, StepOutcome(torch.tensor(2.0), part + 1, times, {"accuracy": part}), {"optimizer": 0.5}, 1e-3, 0
        )
        window = Window(batch=3)
        window.add(report)
        found = {name: value for name, value in window.line(report, 0.0).items() if name.startswith("accuracy")}
        assert found == pytest.approx({"accuracy": 2 / 3, "accuracy_t1": 0.5, "accuracy_t4": 1.0})

    def test_goes_on_with_what_earlier_runs_kept(self) -> None:
        """Of a checkpoint that kept the loss alone by quarter, its smooth loss goes on and the means begin anew."""
        window = Window(
            1, {"smooth": 3.0, "loss": [3.0], "parts": {}, "sums": [3.0, 0.0, 0.0, 0.0], "counts": [1, 0, 0, 0]}
        )
        report = Report(
            2,
            StepOutcome(torch.tensor(1.0), torch.ones(1), torch.ones(1, dtype=torch.float64)),
            {"optimizer": 0.1},
            1e-3,
            0,
        )
        window.add(report)
        line = window.line(report, 0.0)
        assert (line["loss"], line["loss_t4"]) == (1.0, 1.0) and "loss_t1" not in line
        assert window.smooth == pytest.approx(0.95 * 3 + 0.05)

    def test_begins_anew_after_a_line(self) -> None:
        window = Window(batch=1)
        times = torch.tensor([0.5], dtype=torch.float64)
        for value in (1.0, 9.0):
            report = Report(
                1, StepOutcome(torch.tensor(value), torch.tensor([value]), times), {"optimizer": 0.1}, 1e-3, 0
            )
            window.add(report)
            assert window.line(report, 0.0)["loss_t2"] == value
        assert window.line(report, 0.0)["loss"] is None


class TestPriorWarning:
    def test_of_e_s_schedule_and_none_of_cosine_s(self) -> None:
        text = prior_warning(SCHEDULES["linear"](steps=200), 1.0)
        # ᾱ_200 = Π (1 − β_s) by hand: SNR = ᾱ/(1 − ᾱ)
        alpha_bar = np.prod(1 - np.linspace(1e-4, 0.02, 200))
        assert text is not None and "\n" not in text
        assert float(re.search(r"SNR ([\d.]+)", text)[1]) == pytest.approx(alpha_bar / (1 - alpha_bar), rel=1e-2)
        bits = -0.5 * np.log2(1 - alpha_bar)
        assert float(re.search(r"L_T = ([\d.]+)", text)[1]) == pytest.approx(bits, rel=1e-2)
        assert prior_warning(SCHEDULES["cosine"](steps=200), 1.0) is None
        assert prior_warning(SCHEDULES["linear"](steps=1000), 1.0) is None

    def test_is_said_by_training(self, write_recipe: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        train(write_recipe(training={"steps": 1, "warmup": 0}), out=tmp_path / "cosine")
        assert "warning" not in capsys.readouterr().out
        recipe = write_recipe(training={"steps": 1, "warmup": 0})
        recipe.write_text(recipe.read_text().replace("name: cosine\n  steps: 8", "name: linear\n  steps: 200"))
        train(recipe, out=tmp_path / "linear")
        assert "warning: the schedule ends at SNR 0.15" in capsys.readouterr().out

    def test_knows_the_data_s_second_moment(self, data: Path) -> None:
        images = open_data(str(data))
        expected = to_model(images.batch(range(24))[0], (0.0, 1.0)).double().square().mean()
        assert second_moment(images, (0.0, 1.0)) == pytest.approx(float(expected))
