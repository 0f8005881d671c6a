"""What is left of a run that is killed or stopped: one that resumes, and ends as the unbroken one."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from trilemma.jobs import train
from trilemma.training import checkpoint

Outcome = Callable[[Path], dict[str, Any]]


@pytest.fixture(scope="module")
def killed(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A folder with the unbroken run in `whole` and one in `1`, `2`, … for each kind of change of the file system,
    killed before it and resumed; and what those changes were."""
    folder = tmp_path_factory.mktemp("killed")
    training = {"steps": 4, "batch": 6, "checkpoint_every": 2, "keep": 1, "log_every": 1, "grid_every": 0, "flip": True}
    network = {"name": "unet", "base_channels": 8, "multipliers": [1, 2], "blocks": 1, "attention": [], "dropout": 0.1}
    recipe = {
        **{"learner": "denoising", "schedule": {"name": "cosine", "steps": 8}, "data": {"name": str(data)}},
        **{"network": {**network, "middle_attention": False}, "training": training},
    }
    (folder / "tiny.yaml").write_text(yaml.safe_dump(recipe))
    script = Path(__file__).with_name("killed.py")
    command = [sys.executable, str(script), str(folder / "tiny.yaml"), str(folder)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-2000:]
    return folder, result.stdout.splitlines()


class TestKilledBeforeAChangeOfTheFileSystem:
    """Each of these looks at all the runs that were killed: before their recipe was there, between a checkpoint's
    files, before it got its name, before `latest` pointed at it, while the one before it was removed, and so on."""

    def test_covers_the_moments_that_matter(self, killed: tuple[Path, list[str]]) -> None:
        _, moments = killed
        assert len(moments) > 12
        for sign in (
            "-> recipe.yaml",
            ".partial",
            "-> checkpoints/step-00000004",
            "latest",
            "log.jsonl",
            "rmtree",
            "os.remove .lock",
        ):
            assert any(sign in moment for moment in moments), f"never killed at {sign}"

    def test_a_run_resumes_to_the_same_end(self, killed: tuple[Path, list[str]], outcome: Outcome) -> None:
        folder, moments = killed
        expected = outcome(folder / "whole")
        for k, moment in enumerate(moments, start=1):
            found = outcome(folder / str(k))
            assert found.keys() == expected.keys()
            astray = [name for name, value in expected.items() if found[name] != value]
            assert not astray, f"killed before {moment}"

    def test_nothing_is_left_over(self, killed: tuple[Path, list[str]]) -> None:
        folder, moments = killed
        for k, moment in enumerate(moments, start=1):
            checkpoints = folder / str(k) / "checkpoints"
            assert not (folder / f"{k}.lock").exists(), f"killed before {moment}"
            hidden = [entry.name for entry in checkpoints.iterdir() if entry.name.startswith(".")]
            assert not hidden, f"killed before {moment}"
            assert (checkpoints / "latest").readlink() == Path("step-00000004"), f"killed before {moment}"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_command_sent_a_signal_leaves_a_run_that_goes_on(
    killed: tuple[Path, list[str]], outcome: Outcome, number: signal.Signals
) -> None:
    folder, _ = killed
    found = json.loads((folder / f"{number.name}.json").read_text())
    assert found["code"] == 128 + number and "Traceback" not in found["said"]
    (*_, last) = checkpoint.steps(folder / number.name / "checkpoints")
    assert f"stopped by {number.name} at step {last}, checkpoint written" in found["said"]
    steps = [f"training.steps={last + 3}", "training.checkpoint_every=3"]
    train(folder / "tiny.yaml", out=folder / number.name, overrides=steps, resume=True)
    train(folder / "tiny.yaml", out=folder / f"{number.name}-whole", overrides=steps)
    assert outcome(folder / number.name) == outcome(folder / f"{number.name}-whole")
