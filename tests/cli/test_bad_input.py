"""Bad input ends in one clear line and exit code 2, with nothing lost."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

Command = Callable[..., Any]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture
def refused(command: Command) -> Callable[..., str]:
    """Run a command that must be refused; gives its one line."""

    def check(*arguments: object) -> str:
        code, out, err = command(*arguments)
        assert code == 2, f"exit code {code}\n{out}\n{err}"
        assert err.startswith("error: ") and err.count("\n") == 1 and err.endswith("\n"), err
        assert len(err) < 700
        return err

    return check


Refused = Callable[..., str]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["list", "recipies"], "did you mean 'recipes'"),
        (["train", "dmeo"], "unknown recipe 'dmeo': did you mean 'demo'"),
        (["train", "nowhere.yaml"], "unknown recipe 'nowhere.yaml'"),
        (["train", "demo", "--set", "training.stpes=3"], "did you mean 'steps'"),
        (["train", "demo", "--set", "trianing.steps=3"], "did you mean 'training'"),
        (["train", "demo", "--set", "sampling.sampler=dimm"], "did you mean 'ddim'"),
        (["train", "demo", "--set", "data.name=mnist6k"], "did you mean 'mnist5k'"),
        (["train", "demo", "--set", "nonsense"], "expected KEY=VALUE"),
        (["train", "demo", "--set", "training.betas=[2, 3]"], "betas"),
        (["train", "demo", "--set", "data.size=0"], "size"),
        (["train", "demo", "--dry-run", "--set", "network.patch=3"], "network.patch 3 does not divide"),
        (["train", "demo", "--init", "nowhere"], "nowhere is not a run directory"),
        (["sample", "nowhere"], "nowhere is not a run directory"),
        (["evaluate", "nowhere", "--reference", "mnist5k"], "nowhere does not exist"),
        (["stats", "mnist6k", "--out", "s.npz"], "did you mean 'mnist5k'"),
        (["stats", "mnist5k:tset", "--out", "s.npz"], "did you mean 'test'"),
        (["stats", "mnist5k", "--out", "s.txt"], "should end in .npz"),
        (["stats", "mnist5k", "--out", "s.npz", "--features", "digitz"], "did you mean 'digits'"),
        (["data", "check", "nowhere"], "nowhere"),
        (["data", "check", "mnist5k:tset"], "did you mean 'test'"),
        (["report", "nowhere"], "nowhere"),
    ],
)
def test_names_that_do_not_exist(
    refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert says in refused(*arguments)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()], "something was left behind"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--sampler", "dimm"], "did you mean 'ddim'"),
        (["--steps", "0"], "(got 0)"),
        (["--steps", "-3"], "(got -3)"),
        (["--steps", "7"], "steps 7: this model's schedule has T = 6, so expected 1 to 6 (nearest: 6)"),
        (["--class", "4"], "class '4': expected 0 to 3"),
        (["--class", "cat"], "class 'cat': expected 0 to 3"),
        (["--eta", "0.5"], "eta"),
        (["--sampler", "ddim", "--eta", "-1"], "sampling.eta"),
        (["--spacing", "evn"], "sampling.spacing"),
        (["--weights", "mean"], "weights"),
        (["--precision", "fp8"], "precision"),
        (["--batch", "0"], "batch"),
        (["--seeds", "9-3"], "--seeds '9-3'"),
        (["--seeds", "1,1"], "twice"),
        (["--seeds", "abc"], "--seeds 'abc'"),
        (["--out", "file/set.npz"], "out"),
        (["--out", "file/folder"], "out"),
        (["--picture", "file/grid.png"], "picture: cannot write"),
        (["--picture", "grid.jpg"], "should end in .png"),
        (["--grid", "grid.png"], "did you mean --picture"),
        (["--strip", "file/strip.png"], "strip: cannot write"),
    ],
)
def test_sampling_what_cannot_be_sampled(
    refused: Refused, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("x")
    before = contents(tmp_path)
    assert says in refused("sample", run, "-n", 2, *arguments)
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--metrics", "frechet_distanse"], "did you mean 'frechet_distance'"),
        (["--metrics", "memorisation"], "needs"),
        (["--features", "pixles"], "did you mean 'pixels'"),
        (["--reference", "mnist6k"], "did you mean 'mnist5k'"),
        (["--reference", "mnist5k"], "(1, 28, 28)"),
        (["--reference", "shapes"], "(3, 32, 32)"),
        (["--out", "file/e.json"], "out: cannot write"),
        (["--samples", "file/s.npz"], "out"),
        (["--steps", "7"], "T = 6"),
        (["--class", "4"], "class '4'"),
    ],
)
def test_evaluating_what_cannot_be_evaluated(
    refused: Refused, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("x")
    before = contents(tmp_path)
    if "--features" not in arguments:
        arguments = ["--features", "pixels", *arguments]
    assert says in refused("evaluate", run, "-n", 4, *arguments)
    assert contents(tmp_path) == before, "work was done for an evaluation that cannot be made"


def test_a_class_of_an_unconditional_model(refused: Refused, command: Command, recipe: Path, tmp_path: Path) -> None:
    assert command("train", recipe, "--set", "learner.conditional=false", "--out", tmp_path / "plain").code == 0
    said = refused("sample", tmp_path / "plain", "--class", "1")
    assert "class '1': this model is unconditional" in said


class TestRunDirectory:
    def test_without_a_finished_checkpoint(self, refused: Refused, run: Path) -> None:
        shutil.rmtree(run / "checkpoints")
        (run / "checkpoints" / ".step-00000002.partial").mkdir(parents=True)
        for command in (["sample", run], ["evaluate", run, "--reference", "mnist5k"]):
            assert "no finished checkpoint" in refused(*command)

    @pytest.mark.parametrize("name", ["model", "ema", "optimizer"])
    def test_with_a_truncated_file(self, refused: Refused, run: Path, recipe: Path, name: str) -> None:
        path = run / "checkpoints" / "step-00000003" / f"{name}.safetensors"
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        before = contents(run / "checkpoints")
        if name != "optimizer":
            weights = ("--weights", {"model": "raw", "ema": "ema"}[name])
            assert f"{name}.safetensors is not as it was written" in refused("sample", run, *weights)
            said = refused("sample", run, *weights, "--no-verify")
            assert f"{name}.safetensors is not a whole safetensors file" in said
        assert f"{name}.safetensors" in refused("train", recipe, "--out", run, "--resume", "--set", "training.steps=4")
        assert contents(run / "checkpoints") == before

    @pytest.mark.parametrize("kind", ["torch", "pickle"])
    def test_with_a_pickle_for_a_checkpoint(self, refused: Refused, run: Path, recipe: Path, kind: str) -> None:
        class Trap:
            def __reduce__(self) -> tuple[Callable[..., None], tuple[Path]]:
                return Path.touch, (run / "ran",)

        path = run / "checkpoints" / "step-00000003" / "ema.safetensors"
        if kind == "torch":
            torch.save({"weight": Trap()}, path)
        else:
            path.write_bytes(pickle.dumps(Trap()))
        assert "is not as it was written" in refused("sample", run)
        assert "is a pickle, which could run code: refused" in refused("sample", run, "--no-verify")
        again = ("--no-verify", "--set", "training.steps=4")
        assert "is a pickle" in refused("train", recipe, "--out", run.parent / "new", "--init", run, *again)
        assert "is a pickle" in refused("train", recipe, "--out", run, "--resume", *again)
        assert not (run / "ran").exists()

    def test_with_a_recipe_that_was_damaged(self, refused: Refused, run: Path) -> None:
        text = (run / "recipe.yaml").read_text()
        (run / "recipe.yaml").write_text(text.replace("base_channels: 8", "base_channels: 4"))
        assert "ema.safetensors: weight '" in refused("sample", run)
        (run / "recipe.yaml").write_text("learner: [")
        assert "not YAML" in refused("sample", run)

    def test_that_holds_a_run_already(self, refused: Refused, run: Path, recipe: Path) -> None:
        before = contents(run)
        assert "add --resume" in refused("train", recipe, "--out", run)
        assert "training.batch" in refused("train", recipe, "--out", run, "--resume", "--set", "training.batch=4")
        assert contents(run) == before


class TestData:
    def test_a_folder_with_a_text_file_named_png(
        self, refused: Refused, command: Command, recipe: Path, tmp_path: Path
    ) -> None:
        from PIL import Image

        folder = tmp_path / "pictures"
        folder.mkdir()
        for i in range(8):
            Image.fromarray(np.full((8, 8), i, np.uint8)).save(folder / f"{i}.png")
        (folder / "3.png").write_text("not a picture")
        override = ["--set", f"data.name={folder}", "--set", "learner.conditional=false"]
        assert "3.png" in refused("train", recipe, "--out", tmp_path / "new", *override)
        checked = command("data", "check", folder)
        assert checked.code == 1 and "3.png" in checked.out and "Traceback" not in checked.err

    def test_three_images_at_batch_8(self, refused: Refused, recipe: Path, tmp_path: Path) -> None:
        np.savez(tmp_path / "three.npz", arr_0=np.zeros((3, 8, 8, 1), np.uint8), arr_1=np.arange(3))
        override = ["--set", f"data.name={tmp_path}/three.npz", "--set", "training.batch=8"]
        assert "training.batch 8 is more than the 3 images" in refused(
            "train", recipe, *override, "--out", tmp_path / "r"
        )

    def test_unlabelled_for_a_conditional_model(self, refused: Refused, recipe: Path, tmp_path: Path) -> None:
        np.savez(tmp_path / "plain.npz", arr_0=np.zeros((9, 8, 8, 1), np.uint8))
        said = refused("train", recipe, "--set", f"data.name={tmp_path}/plain.npz", "--out", tmp_path / "r")
        assert "needs labelled data" in said


LONG = "x" * 300


@pytest.mark.usefixtures("at_once")
class TestHostile:
    """Nothing that is given hangs, fills the memory or ends in a traceback."""

    @pytest.mark.parametrize(
        ("override", "says"),
        [
            ("network.name=[1]", "names no network"),
            ("learner.name={}", "names no learner"),
            (f"data.name={LONG}", "File name too long"),
            (f"data.root={LONG}", "data.root"),
            ("training.learning_rate=1e300", "training.learning_rate"),
            ("training.learning_rate=.nan", "training.learning_rate"),
            ("training.steps=1000000000000", "training.steps"),
            ("training.batch=1000000000", "training.batch 1000000000 is more than the 24 images"),
            ("data.size=1000000", "data.size"),
            ("network.base_channels=100000", "GiB of memory, and there are"),
            ("network.blocks=1000000", "weight tensors"),
            ("network.multipliers=[1, 1e300]", "2⁶³ bytes"),
            ("schedule.steps=1000000000000", "schedule.steps"),
            ("a=" + "[" * 500, "nested deeper"),
            ("a=&a [*a]", "nested deeper"),
            (f"{LONG * 100}=1", "unknown key"),
        ],
    )
    def test_settings(self, refused: Refused, recipe: Path, tmp_path: Path, override: str, says: str) -> None:
        assert says in refused("train", recipe, "--out", tmp_path / "new", "--set", override)
        assert not (tmp_path / "new").exists()

    def test_networks_of_a_dry_run(self, refused: Refused, recipe: Path) -> None:
        assert "GiB" in refused("train", recipe, "--dry-run", "--set", "network.base_channels=100000")

    def test_paths(self, refused: Refused, run: Path, data: Path, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe.npz")
        (tmp_path / "circle").symlink_to("circle")
        (tmp_path / "pictures").mkdir()
        for path in (LONG, f"{LONG}.npz", tmp_path / "circle", tmp_path / "pipe.npz", "/dev/zero"):
            for command in (
                ["train", path],
                ["sample", path],
                ["sample", run, "-n", 1, "--out", path],
                ["sample", run, "-n", 1, "--surrogate", path, "--t-mid", 3],
                ["evaluate", path, "--reference", data, "--features", "pixels"],
                ["evaluate", data, "--reference", path, "--features", "pixels"],
                ["stats", path, "--features", "pixels", "--out", tmp_path / "s.npz"],
                ["data", "check", path],
                ["data", "check", "cifar10", "--root", path],
                ["network", path],
                ["report", path, "--out", tmp_path / "r.html"],
                ["compare", path, path],
            ):
                refused(*command)

    def test_numbers(self, refused: Refused, run: Path) -> None:
        assert "--seeds" in refused("sample", run, "--seeds", "9" * 30)
        assert "--seeds" in refused("sample", run, "--seeds", "0-99999999999")
        assert "class" in refused("sample", run, "--class", "9" * 5000)
        assert "out" in refused("sample", run, "--out", "")

    def test_nested_json_in_place_of_an_evaluation(self, refused: Refused, run: Path, tmp_path: Path) -> None:
        for depth in (200, 100_000):
            (tmp_path / "e.json").write_text("[" * depth + "]" * depth)
            assert "nested deeper" in refused("report", tmp_path / "e.json")
            assert "nested deeper" in refused("compare", tmp_path / "e.json", tmp_path / "e.json")
        (run / "checkpoints" / "step-00000003" / "state.json").write_text("[" * 100_000)
        assert "nested deeper" in refused("sample", run)

    def test_a_log_that_others_wrote_into(self, refused: Refused, command: Command, run: Path, recipe: Path) -> None:
        log, go_on = run / "log.jsonl", ["train", recipe, "--out", run, "--resume", "--set", "training.steps=4"]
        before = log.read_text()
        log.write_bytes(b"\xff")
        assert "log.jsonl cannot be read as text" in refused(*go_on)
        log.write_text(before + "[" * 100_000 + '\n{"step": "x"}\n{"step": [1]}\n')
        assert command(*go_on).code == 0
        assert log.read_text().startswith(before) and "[" not in log.read_text()

    def test_names_that_are_markup_or_steer_the_terminal(
        self, refused: Refused, command: Command, tmp_path: Path
    ) -> None:
        with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
            archive.writestr("a[/b].png", b"not a picture")
            archive.writestr("\x1b[31mred\n.png", b"not a picture")
        checked = command("data", "check", tmp_path / "set.zip")
        assert checked.code == 1 and "a[/b].png" in checked.out and "\x1b" not in checked.out
        assert "\x1b" not in refused("train", tmp_path / "\x1b[31m.yaml")


class TestOut:
    @pytest.mark.parametrize("name", ["train", "stats", "report"])
    def test_below_a_file(
        self, refused: Refused, run: Path, recipe: Path, data: Path, tmp_path: Path, name: str
    ) -> None:
        (tmp_path / "file").write_text("x")
        below = tmp_path / "file"
        commands = {
            "train": ["train", recipe, "--out", below / "run"],
            "stats": ["stats", data, "--features", "pixels", "--out", below / "s.npz"],
            "report": ["report", run, "--out", below / "r.html"],
        }
        assert "out" in refused(*commands[name]) or name == "stats"
        assert below.read_text() == "x"


def test_as_a_command_of_its_own(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "trilemma", "train", "dmeo"], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert result.returncode == 2 and result.stdout == ""
    assert (
        result.stderr.startswith("error: unknown recipe 'dmeo': did you mean 'demo'? ")
        and result.stderr.count("\n") == 1
    )


def test_a_diverging_run_ends_in_one_line_and_code_1(command: Command, recipe: Path, tmp_path: Path) -> None:
    override = ["--set", "training.learning_rate=1e30", "--set", "training.steps=40", "--set", "training.skip_limit=3"]
    code, _, err = command("train", recipe, "--out", tmp_path / "r", *override, "--set", "training.ema=0")
    assert code == 1 and err.startswith("error: 3 steps in a row") and err.count("\n") == 1
