"""The demo: train on the embedded digits, sample three ways from the same seeds, measure each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from trilemma.evaluations import Evaluation
from trilemma.evaluations.evaluating import Protocol
from trilemma.jobs.training import train
from trilemma.machine.files import write_npz
from trilemma.runs.run import Run
from trilemma.samplers import Strip

WAYS: tuple[dict[str, Any], ...] = (
    {"sampler": "ancestral", "guidance": 0.0},
    {"sampler": "ancestral", "guidance": 0.0, "steps": 32},
    {"sampler": "ddim"},
)
"""Ancestral over every step, ancestral respaced, DDIM in the recipe's few steps and with its guidance."""

SAMPLES = 500


def demo(out: str | Path = "runs/demo", n: int = SAMPLES) -> tuple[Run, list[Evaluation]]:
    """Train the demo recipe into `out` (or go on with it where it was interrupted), generate `n` digits in each of
    three ways from the same seeds, measure them and the held-out digits against the training set. Returns the run and
    the evaluations; what is there already is not made again."""
    run = train("demo", out=out, resume=True)
    protocol = Protocol(run, count=n, labelled=True)
    evaluations = [protocol(**way) for way in WAYS]
    if (yardstick := protocol.yardstick()) is not None:
        evaluations.append(yardstick)
    _write_strip(run.path / "samples" / "forward-strip.npz", run.forward_strip())
    _write_strip(run.path / "samples" / "reverse-strip.npz", run.reverse_strip([0, 3, 7], sampler="ancestral"))
    return run, evaluations


def _write_strip(path: Path, strip: Strip) -> None:
    write_npz(path, {"images": strip.images, "times": np.array(strip.times)}, compressed=True)
