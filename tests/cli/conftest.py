"""A tiny trained run to point commands at."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

RECIPE: dict[str, Any] = {
    "learner": {"name": "denoising", "parameterization": "v", "conditional": True},
    "schedule": {"name": "cosine", "steps": 6},
    "network": {
        **{"name": "unet", "base_channels": 8, "multipliers": [1, 2], "blocks": 1, "attention": []},
        **{"middle_attention": False, "dropout": 0.0},
    },
    "training": {"steps": 3, "batch": 6, "grid_every": 0, "checkpoint_every": 2, "log_every": 1},
    "sampling": {"sampler": "ancestral", "batch": 4},
}


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An .npz of 24 grey images, 8×8, in four classes."""
    path = tmp_path_factory.mktemp("data") / "ramps.npz"
    x, k = np.arange(8)[None, None], np.arange(24)[:, None, None]
    images = np.broadcast_to(x * (k % 4) * 9 + 2 * k, (24, 8, 8)).astype(np.uint8)[..., None]
    np.savez(path, arr_0=images, arr_1=np.arange(24) % 4)
    return path


@pytest.fixture
def recipe(data: Path, tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump({**RECIPE, "data": {"name": str(data)}}))
    return path


@pytest.fixture(scope="session")
def _trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from trilemma.jobs import train

    folder = tmp_path_factory.mktemp("trained")
    (folder / "tiny.yaml").write_text(yaml.safe_dump({**RECIPE, "data": {"name": str(data)}}))
    return train(folder / "tiny.yaml", out=folder / "run").path


@pytest.fixture
def run(_trained: Path, tmp_path: Path) -> Path:
    """A trained run's directory, the test's own copy."""
    return Path(shutil.copytree(_trained, tmp_path / "run", symlinks=True))


@pytest.fixture(autouse=True)
def _timed_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is measured beforehand is measured by as few steps as there may be."""
    from trilemma.jobs import rehearsal

    monkeypatch.setattr(rehearsal, "SECONDS", 0.0)
