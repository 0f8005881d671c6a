"""What the commands do: they parse, call and print."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from trilemma.cli.options import parse_seeds
from trilemma.errors import InputError
from trilemma.inventory import needed

Command = Callable[..., Any]


class TestList:
    def test_of_everything(self, command: Command) -> None:
        code, out, err = command("list")
        assert code == 0 and err == ""
        for word in ("recipes", "mnist-conditional", "data", "mnist5k", "samplers", "ddim", "metrics", "recall"):
            assert re.search(rf"^\s*{word}\b", out, re.MULTILINE), word

    @pytest.mark.parametrize(
        ("kind", "there", "not_there"),
        [
            ("recipes", "demo", "ddim"),
            ("data", "shapes", "demo"),
            ("samplers", "ancestral", "recall"),
            ("metrics", "recall", "demo"),
        ],
    )
    def test_of_one_kind(self, command: Command, kind: str, there: str, not_there: str) -> None:
        _, out, _ = command("list", kind)
        names = re.findall(r"^\s*([\w-]+)", out, re.MULTILINE)
        assert names[0] == kind and there in names and not_there not in names

    def test_says_what_is_downloaded(self, command: Command) -> None:
        """Of a recipe by itself, of one whose data are its base's, and of one whose images are at hand."""
        assert needed("mnist-conditional") == "downloads mnist, 11 MB"
        assert needed("cifar10-additional-link") == "downloads cifar10, 162 MB"
        assert needed("imagenet64-adm") == "needs images in ./imagenet" and needed("demo") is None
        assert "(downloads mnist, 11 MB)" in " ".join(command("list", "recipes").out.split())
        assert "(downloads 162 MB)" in " ".join(command("list", "data").out.split())


class TestTrain:
    def test_names_its_directory_first_and_where_results_are_last(
        self, command: Command, recipe: Path, tmp_path: Path
    ) -> None:
        code, out, err = command("train", recipe, "--out", tmp_path / "new", "--set", "training.steps=2")
        lines = out.splitlines()
        assert code == 0 and err == ""
        assert lines[0] == f"run directory: {tmp_path}/new"
        assert lines[-1].startswith(f"trained to step 2: {tmp_path}/new")
        assert any(re.search(r"training: 2/2 steps, [\d.]+ steps/s, ETA 0 s", line) for line in lines)
        code, out, _ = command("train", recipe, "--out", tmp_path / "new", "--resume", "--set", "training.steps=4")
        assert code == 0 and "steps 2 to 4" in out and "trained to step 4" in out

    def test_dry_run_does_nothing(
        self, command: Command, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "here").mkdir()
        monkeypatch.chdir(tmp_path / "here")
        longer = ("--set", "training.steps=700", "--set", "training.warmup=900")
        code, out, err = command("train", recipe, "--dry-run", *longer)
        assert code == 0 and err == "" and not list((tmp_path / "here").iterdir())
        assert "steps: 700" in out and re.search(r"^# parameters: [\d,]+ ", out, re.MULTILINE)
        assert re.search(r"^# time: \d+ \w+ in all, on ", out, re.MULTILINE)
        assert "\n# note: warm-up 900 steps: more than the run's 700, shortened to a tenth, 70\n" in out
        assert "# not exported to diffusers: network.groups None: " in out

    def test_init_begins_from_a_run(self, command: Command, run: Path, recipe: Path, tmp_path: Path) -> None:
        assert command("train", recipe, "--out", tmp_path / "new", "--init", run).code == 0


class TestSample:
    def test_writes_samples_grid_and_strip(self, command: Command, run: Path, tmp_path: Path) -> None:
        grid, strip, out = tmp_path / "g" / "grid.png", tmp_path / "strip.png", tmp_path / "set.npz"
        code, said, err = command(
            *("sample", run, "--seeds", "3,5-8", "--sampler", "ddim", "--steps", "4", "--eta", "0.5", "--class", "2"),
            *("--batch", "2", "--out", out, "--picture", grid, "--strip", strip),
        )
        assert code == 0 and err == ""
        assert f"4 network evaluations each, into {out}" in said.splitlines()[0]
        assert said.splitlines()[-1] == f"picture: {strip}"
        with np.load(out) as held:
            assert held["arr_0"].shape == (5, 8, 8, 1) and held["arr_1"].tolist() == [2] * 5
            images = held["arr_0"]
        with Image.open(grid) as picture:
            assert picture.size == (5 * 10 + 2, 10 + 2)
            assert np.array_equal(np.asarray(picture)[2:10, 2:10], images[0, :, :, 0])
        with Image.open(strip) as picture:  # five rows: the start and four steps
            assert picture.size == (5 * 10 + 2, 5 * 10 + 2)
            assert np.abs(np.asarray(picture)[2:10, 42:50].astype(int) - images[0, :, :, 0]).max() <= 1
        assert json.loads((tmp_path / "set.npz.record.json").read_text())["seeds"] == "3,5,6,7,8"

    def test_into_a_folder(self, command: Command, run: Path, tmp_path: Path) -> None:
        assert command("sample", run, "-n", 3, "--out", tmp_path / "pictures").code == 0
        assert len(list((tmp_path / "pictures").glob("*.png"))) == 3

    def test_raw_weights_and_no_clip_are_heard(self, command: Command, run: Path, tmp_path: Path) -> None:
        for flag in (["--weights", "raw"], ["--clip", "none"], ["--spacing", "uniform", "--steps", "3"]):
            assert command("sample", run, "-n", 1, "--out", tmp_path / f"{flag[-1]}.npz", *flag).code == 0
        records = [json.loads((tmp_path / f"{name}.npz.record.json").read_text()) for name in ("raw", "none", "3")]
        assert records[0]["sampler"]["weights"] == "raw" and records[1]["sampler"]["clip"] == "none"
        assert (records[2]["sampler"]["spacing"], records[2]["sampler"]["steps"]) == ("uniform", 3)


class TestSeeds:
    def test_are_numbers_and_ranges(self) -> None:
        assert parse_seeds("3,7,20-22") == [3, 7, 20, 21, 22]
        assert parse_seeds("0-999") == list(range(1000))
        assert parse_seeds(None) is None

    @pytest.mark.parametrize("text", ["", "a", "3-", "-3", "5-2", "1,,2", "1.5"])
    def test_and_nothing_else(self, text: str) -> None:
        with pytest.raises(InputError, match="expected numbers and ranges"):
            parse_seeds(text)


def test_from_run_to_report(command: Command, run: Path, data: Path, tmp_path: Path) -> None:
    stats = tmp_path / "stats.npz"
    code, out, _ = command("stats", data, "--features", "pixels", "--out", stats)
    assert code == 0 and out.splitlines()[-1] == f"statistics: {stats}"

    shared = ["evaluate", run, "-n", 12, "--features", "pixels"]
    code, out, err = command(
        *shared, "--metrics", "frechet_distance,recall", "--label", "mine", "--out", tmp_path / "e.json"
    )
    assert code == 0 and err == "" and "mine" in out
    *_, next_, last = out.splitlines()
    assert last == f"evaluation: {tmp_path}/e.json"
    assert next_.startswith("next: train longer, 3 steps are few") and next_.endswith("--set training.steps=1000")
    against = command(*shared, "--metrics", "frechet_distance", "--reference", stats, "--out", tmp_path / "s.json")
    assert against.code == 0
    figures = [json.loads((tmp_path / f"{name}.json").read_text())["metrics"] for name in ("e", "s")]
    assert {"frechet_distance", "recall"} <= figures[0].keys() and "precision" not in figures[0]
    assert figures[1]["frechet_distance"] == pytest.approx(figures[0]["frechet_distance"], rel=1e-4, abs=1e-4)

    assert command(*shared).code == 0
    code, out, err = command("report", run)
    assert code == 0 and err == "" and out.splitlines()[-1] == f"report: {run}/report.html"
    assert "Next: train longer, 3 steps are few" in out
    page = (run / "report.html").read_text()
    assert "Ancestral" in page and not re.search(r'<(script|link|img)[^>]*(src|href)="http', page)
    assert command("report", tmp_path / "e.json", "--out", tmp_path / "two.html").code == 0
    assert "mine" in (tmp_path / "two.html").read_text()


class TestDataCheck:
    def test_of_sound_data(self, command: Command, data: Path) -> None:
        code, out, err = command("data", "check", data)
        assert code == 0 and err == ""
        assert re.search(r"images\s+24\b", out) and "8x8: 24" in out and "4 (0: 6" in out

    def test_of_one_split(self, command: Command) -> None:
        code, out, _ = command("data", "check", "mnist5k:test")
        assert code == 0 and re.search(r"images\s+500\b", out)

    def test_of_damaged_files(self, command: Command, tmp_path: Path) -> None:
        folder = tmp_path / "pictures"
        folder.mkdir()
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(folder / "a.png")
        whole = (folder / "a.png").read_bytes()
        (folder / "b.png").write_bytes(whole[: len(whole) // 2])
        code, out, err = command("data", "check", folder)
        assert code == 1 and err == ""
        assert "b.png" in out and re.search(r"images\s+1\b", out)


def test_help_of_every_command(command: Command) -> None:
    for name in ("list", "train", "sample", "evaluate", "stats", "data", "report", "demo"):
        code, out, _ = command(name, "--help")
        assert code == 0 and "Usage" in out
