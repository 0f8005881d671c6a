"""Two processes (gloo) do what one does: the same losses at the same global batch, the same images."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

from tests.conftest import recipe_values
from tests.generators import SECTIONS
from trilemma.jobs import train
from trilemma.runs import Run
from trilemma.training import checkpoint

LAUNCHER = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "trilemma"]
PLAIN = {"dropout": 0.0}
BATCH_NORM = {
    **{
        "dropout": 0.0,
        "block": "double",
        "norm": "batch",
        "down": "max",
        "up": "bilinear",
        "entry": "bottom",
        "skips": "level",
    },
    "time_range": 8,
}


def in_two_processes(*arguments: object) -> str:
    command = [*LAUNCHER, *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, env=dict(os.environ))
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


KEYS = ("loss", "validation_loss", "loss_t4", "images", "gamma_0", "gamma_1", "grad_norm")


LEARNED = {
    "learner": {
        **{"name": "denoising", "objective": "vdm", "variance": "fixed_small"},
        "parameterization": {"name": "epsilon", "skip": True},
    },
    "schedule": {"name": "vdm", "hidden": 8, "rate": 50.0},
    "sampling": {"sampler": "ancestral", "steps": 4},
}
"""Sections of a recipe whose schedule is learned."""


@pytest.mark.parametrize(
    ("network", "micro_batch", "more"),
    [
        pytest.param(BATCH_NORM, None, {}, id="batch norm"),
        pytest.param(PLAIN, 2, LEARNED, id="group norm, accumulating, a learned schedule"),
    ],
)
def test_training_has_one_process_s_losses(
    write_recipe: Callable[..., Path],
    tmp_path: Path,
    network: dict[str, object],
    micro_batch: int | None,
    more: dict[str, dict[str, object]],
) -> None:
    training = {"steps": 5, "micro_batch": micro_batch, "learning_rate": 3e-4}
    recipe = write_recipe(network=network, training=training)
    recipe.write_text(yaml.safe_dump(yaml.safe_load(recipe.read_text()) | more))
    one = train(recipe, out=tmp_path / "one")
    said = in_two_processes("train", recipe, "--out", tmp_path / "two")
    assert said.count("run directory:") == 1, "every process speaks"
    figures = []
    for folder in ("one", "two"):
        lines = [json.loads(line) for line in (tmp_path / folder / "log.jsonl").read_text().splitlines()]
        figures.append([line.get(key) for line in lines for key in KEYS])
    assert len(figures[0]) == len(figures[1]) == len(KEYS) * 7
    for alone, together in zip(*figures, strict=True):
        assert together == (None if alone is None else pytest.approx(alone, rel=1e-4))
    assert Run(tmp_path / "two").step == one.step == 5


@pytest.mark.parametrize("learner", [pytest.param("gan", marks=pytest.mark.slow), "ddgan"])
def test_adversaries_have_one_process_s_losses(data: Path, tmp_path: Path, learner: str) -> None:
    """Both networks, R1 and a generator's step among them; four images a process, so that their groups are the same."""
    values = {**recipe_values(data), **SECTIONS[learner]}
    values["network"] = {**values["network"]} | ({"dropout": 0.0} if learner == "ddgan" else {})
    values["training"] = {**values["training"], "steps": 4, "batch": 8, "validation_images": 8}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(values))
    train(tmp_path / "tiny.yaml", out=tmp_path / "one")
    in_two_processes("train", tmp_path / "tiny.yaml", "--out", tmp_path / "two")
    timed = {"time_s", "images_per_s"}
    one, two = (
        [json.loads(line) for line in (tmp_path / folder / "log.jsonl").read_text().splitlines()]
        for folder in ("one", "two")
    )
    assert [line.keys() for line in two] == [line.keys() for line in one]
    assert {"r1", "generator_loss", "discriminator_fake"} <= {key for line in one for key in line}
    for alone, together in zip(one, two, strict=True):
        for key in alone.keys() - timed:
            assert together[key] == pytest.approx(alone[key], rel=2e-3, abs=1e-5), key


def test_sampling_gives_one_process_s_images(run: Run, tmp_path: Path) -> None:
    """Guided away from an earlier checkpoint."""
    weaker = min(checkpoint.steps(run.path / "checkpoints"))
    assert weaker < run.step
    alone = run.sample(11, guidance=1.5, guide=f"@{weaker}")
    assert (alone.images != run.sample(11).images).any()
    guided = ("--guidance", 1.5, "--guide", f"@{weaker}")
    in_two_processes("sample", run.path, "-n", 11, "--batch", 2, *guided, "--out", tmp_path / "two.npz")
    with np.load(tmp_path / "two.npz") as together:
        difference = np.abs(together["arr_0"].astype(int) - alone.images.astype(int))
        assert difference.max() <= 1 and (difference > 0).mean() < 0.01  # a grey value, where rounding decides
        assert np.array_equal(together["arr_1"], alone.labels)
    assert not (tmp_path / "two.npz.parts").exists()


EVALUATED = ["evaluate.every=3", "evaluate.n=7", "evaluate.features=pixels", "evaluate.metrics=[frechet_distance]"]


def test_weights_in_parts_learn_what_one_process_does_and_any_set_up_goes_on(
    write_recipe: Callable[..., Path], tmp_path: Path
) -> None:
    """A step alone, then two in two processes with weights in parts, blocks computed again and micro-batches, then one
    more alone: losses, figures, grids and whole checkpoints of four steps alone. A learned schedule stays whole."""
    recipe = write_recipe(
        network=PLAIN, training={"steps": 4, "warmup": 0, "learning_rate": 3e-4, "grid_every": 3, "keep": 9}
    )
    recipe.write_text(yaml.safe_dump(yaml.safe_load(recipe.read_text()) | LEARNED))
    one, two = tmp_path / "one", tmp_path / "two"
    train(recipe, out=one, overrides=[*EVALUATED, "training.checkpoint_every=1"])
    shutil.copytree(one, two, symlinks=True)
    for step in (2, 3, 4):
        shutil.rmtree(two / "checkpoints" / f"step-{step:08d}")
    shutil.rmtree(two / "samples")
    parts = ["training.steps=3", "training.shard=true", "training.recompute=true", "training.micro_batch=2"]
    in_two_processes("train", recipe, "--out", two, "--resume", *(word for each in parts for word in ("--set", each)))
    train(recipe, out=two, resume=True, overrides=["training.steps=4", "training.shard=true"])
    logs = [[json.loads(line) for line in (path / "log.jsonl").read_text().splitlines()] for path in (one, two)]
    by_step = [{line["step"]: {} for line in log} for log in logs]
    for found, log in zip(by_step, logs, strict=True):
        for line in log:
            found[line["step"]].update({key: line[key] for key in (*KEYS, "frechet_distance") if key in line})
    assert "frechet_distance" in by_step[0][3] and "validation_loss" in by_step[0][3]
    for step, figures in by_step[0].items():
        assert figures == pytest.approx({key: by_step[1][step][key] for key in figures}, rel=1e-3), step
    grids = [np.asarray(Image.open(path / "samples" / "grid-00000003.png"), int) for path in (one, two)]
    assert np.abs(grids[0] - grids[1]).max() <= 1
    for step in (3, 4):
        for name in ("model", "ema", "optimizer"):
            place = f"checkpoints/step-{step:08d}/{name}.safetensors"
            alone, together = load_file(one / place), load_file(two / place)
            assert list(alone) == list(together) and (one / place).stat().st_size == (two / place).stat().st_size
            for key, value in alone.items():
                torch.testing.assert_close(together[key], value, rtol=1e-3, atol=2e-5, msg=f"{place} {key}")
