"""`trilemma evaluate` and `trilemma stats`: the flags of the measures."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trilemma.cli.evaluate import parse_counts
from trilemma.cli.options import parse_metrics
from trilemma.errors import InputError

Command = Callable[..., Any]


def test_counts_are_numbers_with_commas() -> None:
    assert parse_counts("500,1000, 5000") == [500, 1000, 5000]
    assert parse_counts(None) is None


@pytest.mark.parametrize("text", ["", "a", "5,", "-5", "1.5", "5-9"])
def test_and_nothing_else(text: str) -> None:
    with pytest.raises(InputError, match="expected whole numbers with commas between"):
        parse_counts(text)


def test_metrics_are_names_with_commas_and_blanks() -> None:
    assert parse_metrics("kid, recall ") == ["kid", "recall"]
    assert parse_metrics(None) is None


@pytest.mark.parametrize("text", ["", " ", "kid,", ",kid"])
def test_no_metrics_are_not_all_of_them(command: Command, data: Path, text: str) -> None:
    refused = command("evaluate", data, "--reference", data, "--features", "pixels", "--metrics", text)
    assert refused.code == 2 and f"--metrics {text!r}" in refused.err and refused.err.count("\n") == 1


def test_evaluate_overwrites_none_of_its_inputs(command: Command, data: Path, tmp_path: Path) -> None:
    samples, reference = tmp_path / "s.npz", tmp_path / "r.npz"
    for path in (samples, reference):
        path.write_bytes(data.read_bytes())
    (tmp_path / "x.json").symlink_to(samples)
    asked = ("evaluate", samples, "--features", "pixels", "--metrics", "frechet_distance", "--reference")
    for against, out, says in (
        (reference, samples, "is what is measured"),
        (reference, tmp_path / "x.json", "is what is measured"),
        (reference, reference, "is the reference"),
        (f"{reference}:train", reference, "is the reference"),
        (reference, tmp_path / "s.npz.record.json", "is the record of the samples"),
        (reference, tmp_path / "e.txt", "should end in .json"),
    ):
        refused = command(*asked, against, "--out", out)
        assert refused.code == 2 and says in refused.err and refused.err.count("\n") == 1
    assert samples.read_bytes() == reference.read_bytes() == data.read_bytes()
    assert not (tmp_path / "e.txt").exists()


def test_stats_does_not_overwrite_the_data(command: Command, data: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.npz"
    mine.write_bytes(data.read_bytes())
    for name in (str(mine), f"{mine}:train"):
        refused = command("stats", name, "--features", "pixels", "--out", tmp_path / "." / "mine.npz")
        assert refused.code == 2 and "is the data itself" in refused.err and refused.err.count("\n") == 1
    assert mine.read_bytes() == data.read_bytes()


def test_evaluate_takes_counts_and_neighbours(command: Command, run: Path, tmp_path: Path) -> None:
    code, out, err = command(
        *("evaluate", run, "-n", 12, "--features", "pixels", "--metrics", "recall,kid", "--neighbours", 2),
        *("--counts", "6,12", "--out", tmp_path / "e.json"),
    )
    assert code == 0 and err == ""
    made = json.loads((tmp_path / "e.json").read_text())
    assert made["neighbours"] == 2 and [count for count, _ in made["metrics"]["frechet_by_count"]] == [6, 12]
    assert any(line.startswith("  KID: ") and " ± " in line for line in out.splitlines())
    assert any(line.startswith("  Fréchet by N: 6: ") for line in out.splitlines())


def test_stats_writes_the_images_beside(command: Command, data: Path, tmp_path: Path) -> None:
    assert command("stats", data, "--features", "pixels", "--images", "--out", tmp_path / "s.npz").code == 0
    with np.load(tmp_path / "s.npz") as held, np.load(data) as given:
        assert (held["arr_0"] == given["arr_0"]).all() and "mu" in held and "mu_s" not in held
    refused = command("stats", data, "--features", "pixels", "--adm", "--out", tmp_path / "t.npz")
    assert refused.code == 2 and "have no spatial part" in refused.err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--counts", "5,x"], "--counts '5,x'"),
        (["--counts", "5000"], "counts: 5000 is more than the 4"),
        (["--neighbours", "0"], "neighbours"),
        (["--features", "inception:nowhere.pth"], "nowhere.pth"),
        (["--features", "classifier:nowhere"], "nowhere is not a run directory"),
    ],
)
def test_bad_flags_end_in_one_line(command: Command, run: Path, arguments: list[str], says: str) -> None:
    result = command("evaluate", run, "-n", 4, *(["--features", "pixels"] if "--features" not in arguments else []),
                     *arguments)  # fmt: skip
    assert result.code == 2 and says in result.err and result.err.count("\n") == 1
    assert not (run / "evaluations").exists()
