"""`trilemma import` and `trilemma export`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tests.exchange.openai_unet import Model

Command = Callable[..., Any]


@pytest.fixture
def state_dict(tmp_path: Path) -> Path:
    torch.save(Model(classes=4, heads=1).state_dict(), tmp_path / "model.pt")
    return tmp_path / "model.pt"


def test_a_checkpoint_in_and_out_again(
    command: Command, state_dict: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    changes = ["--set", "network.heads=1", "--set", "schedule=linear", "--set", "schedule.steps=5"]
    arguments = ["--format", "guided-diffusion", "--size", "8x8", "--name", "theirs", "--data", data, *changes]
    code, out, err = command("import", state_dict, *arguments, "--set", "network.groups=32")
    assert code == 0 and err == ""
    assert out == "imported: runs/theirs  (next: trilemma sample runs/theirs)\n"
    recipe = yaml.safe_load((tmp_path / "runs/theirs/recipe.yaml").read_text())
    assert recipe["name"] == "theirs" and recipe["schedule"]["steps"] == 5 and recipe["data"]["name"] == str(data)
    assert recipe["network"]["heads"] == 1 and recipe["network"]["head_channels"] is None
    code, out, err = command("sample", "runs/theirs", "-n", 2, "--out", "two.npz")
    assert code == 0 and err == "" and "samples: two.npz" in out
    code, out, err = command("export", "runs/theirs", "--format", "diffusers", "--out", "folder", "--weights", "raw")
    assert code == 0 and err == ""
    classes, exported = out.splitlines()
    assert classes.startswith("note: DDPMPipeline gives no class") and exported == "exported: folder"
    assert "class ClassConditionalPipeline" in (tmp_path / "folder/pipeline.py").read_text()
    assert json.loads((tmp_path / "folder/model_index.json").read_text())["_class_name"] == "DDPMPipeline"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--format", "guided-diffusion", "--size", "8 by 8"], "--size '8 by 8': expected a side or HEIGHTxWIDTH"),
        (["--format", "guided-diffusion", "--size", "0"], "--size '0'"),
        (["--format", "guided-diffusion", "--size", "8", "--attention-order", "old"], "--attention-order 'old'"),
        (
            ["--format", "improved-diffusion", "--size", "8", "--attention-order", "new"],
            "--attention-order 'new': only --format guided-diffusion has it, not improved-diffusion",
        ),
        (["--format", "diffusers", "--attention-order", "legacy"], "--attention-order 'legacy': only --format guided-"),
        (
            ["--format", "guided-diffusion", "--size", "8", "--set", "learner.conditional=false"],
            "--set learner.conditional=false: expected true",
        ),
        (["--format", "pytorch"], "unknown --format 'pytorch'"),
        (["--format", "improved-diffusion", "--size", "8", "--set", "network.hads=1"], "unknown key in network 'hads'"),
        (["--format", "improved-diffusion", "--size", "8", "--name", "a b"], "name: "),
    ],
)
def test_bad_input_is_one_line(
    command: Command, state_dict: Path, tmp_path: Path, arguments: Any, message: str
) -> None:
    code, out, err = command("import", state_dict, "--out", tmp_path / "run", *arguments)
    assert code == 2 and out == "" and err.startswith("error: ") and err.count("\n") == 1
    assert message in err
    assert not (tmp_path / "run").exists()


def test_export_of_what_is_no_run(command: Command, tmp_path: Path) -> None:
    code, _, err = command("export", tmp_path)
    assert code == 2 and "is not a run directory" in err
