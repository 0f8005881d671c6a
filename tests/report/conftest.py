"""A run on disk with made-up figures, and evaluations to change at will."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trilemma.evaluations import Evaluation

ENVIRONMENT = {
    "trilemma": "0.1.0", "python": "3.11.7", "torch": "2.9.0", "device": "cpu",
    "hardware": "Example CPU @ 2.5 GHz", "threads": 2, "processes": 1,
}  # fmt: skip
ERRORS = {
    "frechet_distance_se": 0.2, "precision_se": 0.01, "recall_se": 0.01, "balance_kl_se": 0.01,
    "images_per_second_range": [81.0, 81.5], "speed_batch": 50,
}  # fmt: skip
RECIPE = """# demo
learner: {name: denoising, objective: simple}
schedule: {name: cosine, steps: 200}
network: {name: unet, channels: 32, patch: 2}
data: {name: mnist5k}
training: {steps: 800, batch: 64}
"""


def make_content(label: str, **changes: Any) -> dict[str, Any]:
    """An evaluation's file with made-up figures; `changes` are dotted paths with `__` for the dots."""
    evaluation: dict[str, Any] = {
        "format": "trilemma-evaluation/1",
        "created": "2026-01-01T12:00:00Z",
        "label": label,
        "subject": {
            "kind": "run", "path": "runs/demo", "recipe": "demo", "checkpoint_step": 800, "weights": "ema",
            "parameters": 702_336,
        },
        "samples": {"count": 500, "seeds": "0-499", "classes": "balanced", "file": None, "sha256": None},
        "sampler": {
            "name": "ddim", "steps": 10, "eta": 0.0, "grid": "uniform", "clip": "static", "network_evaluations": 10,
            "precision": "fp32",
        },
        "features": {"name": "digits", "sha256": "cd" * 32, "dim": 128, "resize": "none"},
        "reference": {
            "data": "mnist5k", "split": "train", "count": 4500, "sha256": "ef" * 32, "size": [1, 28, 28],
        },
        "metrics": {
            "frechet_distance": 12.34, "precision": 0.812, "recall": 0.745, "recognised": 0.874,
            "recognised_by_class": [0.87] * 10, "class_counts": [50] * 10, "balance_kl": 0.0042,
            "images_per_second": 81.2, "network_evaluations": 10, **ERRORS,
        },
        "warnings": [],
        "wall_time_s": 12.3,
        "environment": dict(ENVIRONMENT),
    }  # fmt: skip
    for path, value in changes.items():
        *parents, last = path.split("__")
        place = evaluation
        for part in parents:
            place = place[part]
        place[last] = value
    return copy.deepcopy(evaluation)


def demo_contents() -> list[dict[str, Any]]:
    """Three ways of sampling one model, and real held-out digits."""
    rng = np.random.default_rng(3)

    def spread(mean: float) -> list[float]:
        return [round(float(x), 3) for x in np.clip(rng.normal(mean, 0.05, 10), 0, 1)]

    def counts() -> list[int]:
        return [int(n) for n in rng.multinomial(500, np.full(10, 0.1))]

    def metrics(
        fd: float, precision: float, recall: float, recognised: float, kl: float, speed: float, evaluations: int
    ):
        return {
            "frechet_distance": fd, "precision": precision, "recall": recall, "recognised": recognised,
            "recognised_by_class": spread(recognised), "class_counts": counts(), "balance_kl": kl,
            "images_per_second": speed, "network_evaluations": evaluations, **ERRORS,
        }  # fmt: skip

    full = make_content("Ancestral, 200 steps", metrics=metrics(9.87, 0.842, 0.861, 0.916, 0.0031, 4.1, 200))
    full["sampler"] |= {"name": "ancestral", "steps": 200, "eta": None, "network_evaluations": 200}
    respaced = make_content("Ancestral, 20 steps", metrics=metrics(14.2, 0.79, 0.80, 0.852, 0.0058, 40.6, 20))
    respaced["sampler"] |= {"name": "ancestral", "steps": 20, "eta": None, "network_evaluations": 20}
    few = make_content("DDIM, 10 steps", metrics=metrics(11.6, 0.871, 0.742, 0.908, 0.0044, 79.8, 10))
    real = make_content(
        "Real held-out digits", subject={"kind": "data", "path": "mnist5k:test"}, sampler=None,
        samples={"count": 500, "seeds": None, "classes": None, "file": None, "sha256": None},
        metrics={"frechet_distance": 1.93, "precision": 0.93, "recall": 0.942, "recognised": 0.992,
                 "recognised_by_class": [0.99] * 10, "class_counts": [50] * 10, "balance_kl": 0.0, **ERRORS},
    )  # fmt: skip
    evaluations = [full, respaced, few, real]
    for minute, evaluation in enumerate(evaluations):
        evaluation["created"] = f"2026-01-01T12:{minute:02d}:00Z"
        evaluation["samples"]["sha256"] = f"{minute}" * 64
        evaluation["warnings"] = ["N = 500 is less than 10 times the feature dimension (128): FD is biased upwards"]
    return evaluations


def log_lines(steps: int = 800) -> list[dict[str, Any]]:
    """A falling loss, logged every 10 steps, and a validation loss every 200."""
    rng = np.random.default_rng(0)
    lines: list[dict[str, Any]] = []
    for step in range(10, steps + 1, 10):
        fall = 0.08 + 0.9 * math.exp(-step / 120)
        parts = {
            f"loss_t{q}": fall * scale * math.exp(rng.normal(0, 0.1)) for q, scale in enumerate((2.4, 1.1, 0.6, 0.3), 1)
        }
        lines.append({
            "step": step, "time_s": 0.22 * step, "images": 64 * step, "loss": sum(parts.values()) / 4, **parts,
            "grad_norm": 0.4, "lr": 1e-3, "images_per_s": 290.0, "skipped": 0,
        })  # fmt: skip
        if step % 200 == 0:
            lines.append({"step": step, "validation_loss": 1.05 * fall})
    return lines


def toy_digits(count: int = 500) -> np.ndarray:
    """Grey 28×28 images (n, 28, 28, 1), each a bar whose height tells its class, i mod 10."""
    images = np.zeros((count, 28, 28, 1), dtype=np.uint8)
    for i in range(count):
        images[i, 4 : 6 + 2 * (i % 10), 8:20] = 255 - i % 7 * 20
    return images


def write_run(path: Path, evaluations: list[dict[str, Any]], digits: np.ndarray, *, noise: float = 0.2) -> Path:
    """A run directory at `path`: recipe, log, evaluations with samples for every model, and both strips."""
    rng = np.random.default_rng(1)
    (path / "evaluations").mkdir(parents=True)
    (path / "samples").mkdir()
    (path / "recipe.yaml").write_text(RECIPE)
    (path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log_lines()))
    labels = np.arange(len(digits)) % 10
    for i, evaluation in enumerate(evaluations):
        if evaluation["subject"]["kind"] != "data":
            evaluation["samples"]["file"] = f"samples/way-{i}.npz"
            noisy = np.clip(digits + rng.normal(0, 60 * noise * (1 + i), digits.shape), 0, 255).astype(np.uint8)
            np.savez(path / "samples" / f"way-{i}.npz", arr_0=noisy, arr_1=labels)
        (path / "evaluations" / f"way-{i}.json").write_text(json.dumps(evaluation))
    times = np.linspace(0, 1, 11)
    clean = digits[:4, None] / 127.5 - 1
    signal, sigma = np.cos(times * np.pi / 2), np.sin(times * np.pi / 2)
    shape = (1, len(times), 1, 1, 1)
    noised = signal.reshape(shape) * clean + sigma.reshape(shape) * rng.normal(size=(4, len(times), *digits.shape[1:]))
    strip = np.clip(127.5 * (noised + 1), 0, 255).astype(np.uint8)
    np.savez(path / "samples" / "forward-strip.npz", images=strip, times=times)
    np.savez(path / "samples" / "reverse-strip.npz", images=strip[:, ::-1], times=times[::-1])
    return path


@pytest.fixture
def content() -> Callable[..., dict[str, Any]]:
    """Makes an evaluation's file; see `make_content`."""
    return make_content


@pytest.fixture
def evaluation() -> Callable[..., Evaluation]:
    """Makes one evaluation; see `make_content`."""
    return lambda label, **changes: Evaluation.model_validate(make_content(label, **changes))


@pytest.fixture
def evaluations() -> list[Evaluation]:
    """Three ways of sampling and a yardstick."""
    return [Evaluation.model_validate(one) for one in demo_contents()]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A whole run directory."""
    return write_run(tmp_path / "demo", demo_contents(), toy_digits())
