"""`trilemma compare`: what it prints, writes and refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Command = Callable[..., Any]


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Evaluations of 500, 500 and 300 samples."""
    made = []
    for label, distance, count in (("first", 2.0, 500), ("second", 0.8, 500), ("third", 0.1, 300)):
        path = tmp_path / f"{label}.json"
        path.write_text(json.dumps({
            "format": "trilemma-evaluation/1", "label": label, "subject": {"kind": "samples"},
            "samples": {"count": count, "sha256": label}, "features": {"name": "digits", "sha256": "1", "dim": 8},
            "reference": {"data": "d", "split": "train", "count": 9, "sha256": "2"},
            "metrics": {"frechet_distance": distance, "frechet_distance_se": 0.3, "recognised": 0.5},
        }))  # fmt: skip
        made.append(path)
    return made


def test_prints_table_reasons_and_differences(command: Command, files: list[Path]) -> None:
    code, out, err = command("compare", *files)
    assert (code, err) == (0, "")
    assert "0.80 ±0.30*" in out
    assert "0.10 ±0.30ᵃ" in out
    assert "ᵃ not comparable: other N: 300 against 500" in out
    assert "lower by 1.20 ± 0.42 (2.8 standard errors): better" in out


def test_baseline_markdown_and_json(command: Command, files: list[Path], tmp_path: Path) -> None:
    target = tmp_path / "new" / "comparison.json"
    code, out, err = command("compare", *files, "--baseline", "second", "--markdown", "--json", target)
    assert (code, err) == (0, "")
    assert out.startswith("|  | N | sampler | FD-500 digits features ↓ |")
    assert "Against “second”" in out
    assert "higher by 1.20 ± 0.42 (2.8 standard errors): worse" in out
    held = json.loads(target.read_text())
    assert held["baseline"] == "second"
    assert [row["label"] for row in held["rows"]] == ["second", "first", "third"]


@pytest.mark.parametrize("form", [(), ("--markdown",)])
def test_one_evaluation_is_shown(command: Command, files: list[Path], form: tuple[str, ...], tmp_path: Path) -> None:
    code, out, err = command("compare", files[0], *form, "--strict", "--json", tmp_path / "one.json")
    assert (code, err) == (0, "")
    assert "One evaluation, which nothing is held against; features: digits" in out and "chance alone" not in out
    assert json.loads((tmp_path / "one.json").read_text())["differences"] == []


def test_refuses_in_one_line(command: Command, files: list[Path], tmp_path: Path) -> None:
    before = files[0].read_bytes()
    for arguments, says in (
        ([*files, "--strict"], "third.json: not comparable with"),
        ([files[0], files[0]], "named twice"),
        ([*files, "--baseline", "fist"], "did you mean 'first'"),
        ([*files, tmp_path / "none.json"], "none.json: no such file"),
        ([*files, "--json", files[0]], "is one of the evaluations"),
        ([*files, "--json", tmp_path], "is a folder"),
    ):
        code, _, err = command("compare", *arguments)
        assert code == 2, arguments
        assert err.startswith("error: ")
        assert err.count("\n") == 1
        assert says in err
    assert files[0].read_bytes() == before
    assert command("compare", *files[:2], "--strict").code == 0
