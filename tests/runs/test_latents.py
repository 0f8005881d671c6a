"""Runs that diffuse latents: the codec at the edges of every command, its scale, its copy in the run, its cache."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from tests.jobs.conftest import recipe
from trilemma.jobs import train
from trilemma.runs import Run


def trained(folder: Path, values: dict[str, Any], name: str, **settings: Any) -> Run:
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(values))
    return train(path, out=folder / name, **settings)


SMALL = {"learner": {"variance": "fixed_small", "objective": "simple"}}


def test_the_identity_at_scale_1_is_pixel_diffusion_to_the_bit(data: Path, tmp_path: Path) -> None:
    training = {"flip": True, "steps": 12, "checkpoint_every": 12}
    values = recipe(data, **SMALL, training=training)
    plain = trained(tmp_path, values, "plain")
    latent = trained(tmp_path, values | {"codec": {"name": "identity", "scale": 1.0}}, "latent")
    for file in ("model", "ema", "optimizer"):
        ours, theirs = (Path(run.checkpoint / f"{file}.safetensors").read_bytes() for run in (latent, plain))
        assert ours == theirs
    settings = {"sampler": "ancestral", "steps": 5}
    assert np.array_equal(latent.sample(6, **settings).images, plain.sample(6, **settings).images)
    assert list((tmp_path / "cache" / "latents").iterdir())
