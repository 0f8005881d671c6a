"""`trilemma network`: the tables, the figures' file and the drawings."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from trilemma.recipes import load

Command = Callable[..., Any]


@pytest.fixture
def wide(recipe: Path) -> Path:
    """The tiny recipe's network twice as wide, with what a source says of it."""
    values = yaml.safe_load(recipe.read_text())
    values["network"]["base_channels"] = 16
    values["source"] = {"paper": "A table 1", "parameters_mi": 0.05, "images_per_second": 0.5, "fid": 12.34}
    path = recipe.parent / "wide.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def row(out: str, name: str, nth: int = 0) -> list[str]:
    """The figures of a recipe in the nth table."""
    lines = [line for line in out.splitlines() if re.match(rf"\s*{name}\s", line) and "is not timed" not in line]
    return lines[nth].split()[1:]


def test_prints_sizes_and_times_side_by_side(command: Command, recipe: Path, wide: Path, tmp_path: Path) -> None:
    code, out, err = command("network", recipe, wide, "--batch", "2", "--json", tmp_path / "costs.json")
    assert code == 0 and err == ""
    figures = json.loads((tmp_path / "costs.json").read_text())
    small, large = figures["networks"]
    assert figures["format"] == "trilemma-networks/1" and figures["batch"] == 2 and figures["environment"]["hardware"]
    assert (small["name"], large["name"]) == ("tiny", "wide")
    assert large["parameters"] > small["parameters"] and small["source"] is None
    assert large["parameters_deviation"] == pytest.approx(large["parameters"] / 2**20 / 0.05 - 1)
    sizes = row(out, "wide")
    assert sizes[0] == f"{large['parameters'] / 2**20:.2f}"
    assert sizes[1] == "0.05" and sizes[2] == f"{large['parameters_deviation']:+.1%}" and sizes[-1] == "12.34"
    assert row(out, "tiny")[1:3] == ["–", "–"]
    ratio = large["forward"]["images_per_second"] / small["forward"]["images_per_second"]
    assert large["relative_to_first"]["speed"] == pytest.approx(ratio)
    assert f"{ratio:.2f}" in row(out, "wide", 1)
    assert "batches of 2" in out and "relative to tiny" in out
    assert "source's\nspeed" not in out, "the first recipe's source printed none to compare with"


def test_needs_no_data_and_no_time(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = command("network", "cifar10-shallowres1", "imagenet64-adm", "--no-timing")
    assert code == 0 and err == "" and not list(tmp_path.iterdir())
    assert row(out, "cifar10-shallowres1")[1] == "17.02"


def test_says_what_is_not_exported(command: Command) -> None:
    _, out, _ = command("network", "cifar10-shallowres1", "imagenet128-adm", "demo-classifier", "--no-timing")
    said = [line for line in out.splitlines() if "not exported" in line]
    assert [line.partition(",")[0] for line in said] == ["imagenet128-adm", "demo-classifier"]
    assert "network.heads 4 at [512, 768, 1024] channels has no counterpart in diffusers" in said[0]
    assert "forward and backward" not in out and "FID in A table 4.3: of 50,000 images" in out


def test_says_what_is_not_timed(command: Command, recipe: Path) -> None:
    code, out, _ = command("network", recipe, "imagenet64-adm", "--batch", "2")
    assert code == 0
    assert re.search(
        r"imagenet64-adm is not timed: .* multiply-adds a batch, more than .* \(--batch 1 is timed\)",
        " ".join(out.split()),
    )
    assert row(out, "imagenet64-adm", 1)[:2] == ["–", "–"]


def test_draws_into_a_file_or_a_directory(command: Command, recipe: Path, wide: Path, tmp_path: Path) -> None:
    code, out, _ = command("network", recipe, "--no-timing", "--svg", tmp_path / "one.svg")
    assert code == 0 and out.splitlines()[-1] == f"drawing: {tmp_path}/one.svg"
    assert (tmp_path / "one.svg").read_text().startswith("<svg ")
    code, out, _ = command("network", recipe, wide, "--no-timing", "--svg", tmp_path / "all")
    assert code == 0
    assert sorted(path.name for path in (tmp_path / "all").iterdir()) == ["tiny.svg", "wide.svg"]


def test_of_a_run(command: Command, run: Path) -> None:
    code, out, err = command("network", run, "--no-timing")
    assert code == 0 and err == "" and row(out, load(run / "recipe.yaml").name)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["ddpm-cifar"], "unknown recipe 'ddpm-cifar': did you mean 'ddpm-cifar10'"),
        (["demo", "mnist-deep", "--svg", "both.svg"], "--svg both.svg: one file, and 2 recipes: expected a directory"),
        (["demo", "--device", "abacus"], "--device 'abacus': expected a device of this machine"),
    ],
)
def test_bad_input_is_one_line(
    command: Command, arguments: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = command("network", *arguments)
    assert code == 2 and says in err and err.count("\n") == 1
    assert not list(tmp_path.iterdir())
