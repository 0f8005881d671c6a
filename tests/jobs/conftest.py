"""Tiny trained runs: unconditional, class-conditional, and of a continuous schedule."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from trilemma.jobs import train
from trilemma.runs import Run


def recipe(data: Path, **changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "learner": {"name": "denoising", "parameterization": "v", "variance": "learned_range", "objective": "hybrid"},
        "schedule": {"name": "linear", "steps": 40, "beta_end": 0.3},
        "network": {
            **{"name": "unet", "base_channels": 8, "multipliers": [1, 2], "blocks": 1, "attention": []},
            **{"middle_attention": False, "dropout": 0.0},
        },
        "data": {"name": str(data)},
        "training": {
            **{"steps": 30, "batch": 12, "learning_rate": 2.0e-3, "ema": 0.9, "warmup": 2},
            **{"log_every": 10, "validate_every": 0, "grid_every": 0, "checkpoint_every": 30},
        },
        "sampling": {"sampler": "ddim", "batch": 4},
    }
    return values | {key: values[key] | change for key, change in changes.items()}


def trained(folder: Path, values: dict[str, Any]) -> Path:
    (folder / "tiny.yaml").write_text(yaml.safe_dump(values))
    return train(folder / "tiny.yaml", out=folder / "run").path


@pytest.fixture(scope="session")
def plain(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Unconditional, learned variance, T = 40 linear steps."""
    return Run(trained(tmp_path_factory.mktemp("plain"), recipe(data)))


@pytest.fixture(scope="session")
def labelled(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Class-conditional on the four classes."""
    return Run(trained(tmp_path_factory.mktemp("labelled"), recipe(data, learner={"conditional": True})))


@pytest.fixture(scope="session")
def continuous(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The continuous VP schedule, L_simple; two steps of training."""
    values = recipe(data, learner={"objective": "simple", "variance": "fixed_small"}, training={"steps": 2})
    return Run(trained(tmp_path_factory.mktemp("vp"), values | {"schedule": "vp"}))


@pytest.fixture(autouse=True)
def _timed_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is measured beforehand is measured by as few steps as there may be."""
    from trilemma.jobs import rehearsal

    monkeypatch.setattr(rehearsal, "SECONDS", 0.0)
