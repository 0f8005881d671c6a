"""What is left of a run that is killed or stopped: one that resumes, and ends as the unbroken one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trilemma.runs import train
from trilemma.training import checkpoint

Write = Callable[..., Path]
Outcome = Callable[[Path], dict[str, Any]]


def test_killed_before_any_change_of_the_file_system_it_resumes_to_the_same_end(
    write_recipe: Write, outcome: Outcome, tmp_path: Path
) -> None:
    recipe = write_recipe(training={"steps": 4, "checkpoint_every": 2, "keep": 1, "validate_every": 0})
    script = Path(__file__).with_name("killed.py")
    result = subprocess.run(
        [sys.executable, str(script), str(recipe), str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr[-2000:]
    moments = result.stdout.splitlines()
    assert len(moments) > 12
    for sign in ("recipe.yaml", ".partial", "step-00000002", ".latest", "log.jsonl", "rmtree"):
        assert any(sign in moment for moment in moments), f"never killed at {sign}"
    expected = outcome(tmp_path / "whole")
    for k, moment in enumerate(moments, start=1):
        assert outcome(tmp_path / str(k)) == expected, f"killed before {moment}"
        left = {entry.name for entry in (tmp_path / str(k) / "checkpoints").iterdir()}
        assert left == {"step-00000004", "latest"}, f"killed before {moment}"


def started(recipe: Path, out: Path) -> subprocess.Popen[str]:
    """`trilemma train` as a user starts it, far from its end, once it has written a checkpoint."""
    command = [sys.executable, "-m", "trilemma", "train", str(recipe), "--out", str(out)]
    environment = {key: value for key, value in os.environ.items() if key != "RANK"}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
    )
    for _ in range(3000):
        if checkpoint.steps(out / "checkpoints") or process.poll() is not None:
            break
        time.sleep(0.02)
    return process


@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -9), (signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_command_ended_by_a_signal_leaves_a_run_that_goes_on(
    write_recipe: Write, outcome: Outcome, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    recipe = write_recipe(training={"steps": 1_000_000, "checkpoint_every": 3, "validate_every": 0, "log_every": 1})
    process = started(recipe, tmp_path / "run")
    process.send_signal(number)
    out, error = process.communicate(timeout=60)
    assert process.returncode == code, error
    assert "Traceback" not in error
    (*_, last) = checkpoint.steps(tmp_path / "run" / "checkpoints")
    if number != signal.SIGKILL:
        assert f"stopped by {number.name} at step {last}, checkpoint written" in out
    steps = [f"training.steps={last + 3}"]
    train(recipe, out=tmp_path / "run", overrides=steps, resume=True)
    train(recipe, out=tmp_path / "whole", overrides=steps)
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")
