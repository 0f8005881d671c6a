"""Two processes (gloo) do what one does: the same losses at the same global batch, the same images."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

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

KEYS = ("loss", "validation_loss", "loss_t4", "images", "gamma_0", "gamma_1", "grad_norm")

PLAIN = {"dropout": 0.0}
BATCH_NORM = {
    **{"dropout": 0.0, "block": "double", "norm": "batch", "down": "max", "up": "bilinear", "entry": "bottom"},
    **{"skips": "level", "time_range": 8},
}
LEARNED = {
    "learner": {
        **{"name": "denoising", "objective": "vdm", "variance": "fixed_small"},
        "parameterization": {"name": "epsilon", "skip": True},
    },
    "schedule": {"name": "vdm", "hidden": 8, "rate": 50.0},
    "sampling": {"steps": 4},
}
GROWING = {
    **{"name": "growing", "start": 2, "stage_steps": 2, "base_channels": 8, "multipliers": [1, 1, 1], "blocks": 1},
    **{"attention": [], "middle_attention": False, "dropout": 0.0},
}
FIVE = {"steps": 5, "learning_rate": 3e-4}
# Four images a process, so that their groups are the same; R1 and a generator's step are among the four steps.
ADVERSARIES = {"training": {"steps": 4, "batch": 8, "validation_images": 8}}

CASES: dict[str, dict[str, Any]] = {
    "batch-norm": {"network": BATCH_NORM, "training": FIVE},
    "accumulating-learned-schedule": {"network": PLAIN, "training": {**FIVE, "micro_batch": 2}, **LEARNED},
    # At every stage some weights have no gradients for a process to wait for.
    "growing": {"network": GROWING, "training": {**FIVE, "micro_batch": 2, "steps": 6}},
    "gan": SECTIONS["gan"] | ADVERSARIES,
    "ddgan": SECTIONS["ddgan"] | {"network": {**SECTIONS["ddgan"]["network"], "dropout": 0.0}} | ADVERSARIES,
    "figures": {
        "network": PLAIN,
        "training": {"steps": 2, "learning_rate": 1e-4},
        "evaluate": {"every": 2, "n": 7, "features": "pixels", "metrics": ["frechet_distance"]},
    },
    # One step is one process's, three are two processes' with weights in parts; a learned schedule stays whole.
    "parts": {
        "network": PLAIN,
        **LEARNED,
        "training": {
            **{"steps": 5, "warmup": 0, "learning_rate": 3e-4},
            **{"grid_every": 3, "checkpoint_every": 1, "keep": 9},
        },
        "evaluate": {"every": 3, "n": 7, "features": "pixels", "metrics": ["frechet_distance"]},
    },
}
"""What each case changes of the tests' recipe: a section that has a name is another, any other is put over it."""

PARTS = ("training.steps=4", "training.shard=true", "training.recompute=true", "training.micro_batch=2")


def recipe_of(case: str, data: Path) -> dict[str, Any]:
    values = recipe_values(data)
    for key, change in CASES[case].items():
        values[key] = change if change is None or "name" in change else {**values.get(key, {}), **change}
    return values


class Together(NamedTuple):
    """What two processes did: a recipe and a run for each case in `folder`, images in `two.npz`, and what was said."""

    folder: Path
    said: list[str]

    def logs(self, case: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """The lines of the case's log, of the run that one process trains and of the run that two have trained."""
        train(self.folder / f"{case}.yaml", out=self.folder / "one" / case)
        logs = [self.folder / which / case / "log.jsonl" for which in ("one", "two")]
        one, two = ([json.loads(line) for line in log.read_text().splitlines()] for log in logs)
        return one, two


@pytest.fixture(scope="module")
def together(data: Path, _trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Together:
    """All that two processes are asked, by one start of them: it takes longer than any of it."""
    folder = tmp_path_factory.mktemp("together")
    for case in CASES:
        (folder / f"{case}.yaml").write_text(yaml.safe_dump(recipe_of(case, data)))
    trains = [["train", f"{folder}/{case}.yaml", "--out", f"{folder}/two/{case}"] for case in CASES]
    train(folder / "parts.yaml", out=folder / "two" / "parts", overrides=["training.steps=1"])
    trains[-1] += ["--resume", *(word for each in PARTS for word in ("--set", each))]
    options = ["--guidance", "1.5", "--guide", "@4", "--batch", "2"]
    sample = ["sample", str(_trained), "-n", "11", *options, "--out", f"{folder}/two.npz"]
    (folder / "commands.json").write_text(json.dumps([*trains, sample]))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command = [*launcher, str(Path(__file__).with_name("together.py")), str(folder / "commands.json")]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, env=dict(os.environ))
    assert result.returncode == 0, result.stderr[-3000:]
    return Together(folder, re.split(r"^== \d+$", result.stdout, flags=re.MULTILINE)[1:])


def test_one_process_speaks(together: Together) -> None:
    assert [said.count("run directory:") for said in together.said] == [1] * len(CASES) + [0]
    assert together.said[-1].count("samples:") == 1


@pytest.mark.parametrize("case", ["batch-norm", "accumulating-learned-schedule", "growing"])
def test_training_has_one_process_s_losses(together: Together, case: str) -> None:
    one, two = together.logs(case)
    figures = [[line.get(key) for line in lines for key in KEYS] for lines in (one, two)]
    steps = CASES[case]["training"]["steps"]
    assert len(figures[0]) == len(figures[1]) >= len(KEYS) * (steps + 2)
    for alone, both in zip(*figures, strict=True):
        assert both == (None if alone is None else pytest.approx(alone, rel=1e-4))
    assert all(Run(together.folder / which / case).step == steps for which in ("one", "two"))


@pytest.mark.parametrize("case", ["gan", "ddgan"])
def test_adversaries_have_one_process_s_losses(together: Together, case: str) -> None:
    one, two = together.logs(case)
    assert [line.keys() for line in two] == [line.keys() for line in one]
    assert {"r1", "generator_loss", "discriminator_fake"} <= {key for line in one for key in line}
    for alone, both in zip(one, two, strict=True):
        for key in alone.keys() - {"time_s", "images_per_s"}:
            assert both[key] == pytest.approx(alone[key], rel=2e-3, abs=1e-5), key


def test_figures_while_training_are_one_process_s(together: Together) -> None:
    found = [
        [(line["step"], line["frechet_distance"]) for line in lines if "frechet_distance" in line]
        for lines in together.logs("figures")
    ]
    assert len(found[0]) == len(found[1]) == 1
    assert found[1][0] == pytest.approx(found[0][0], rel=1e-3)


def test_sampling_gives_one_process_s_images(together: Together, run: Run) -> None:
    """Guided away from an earlier checkpoint."""
    assert run.step > 4
    alone = run.sample(11, guidance=1.5, guide="@4")
    assert (alone.images != run.sample(11).images).any()
    with np.load(together.folder / "two.npz") as both:
        difference = np.abs(both["arr_0"].astype(int) - alone.images.astype(int))
        assert difference.max() <= 1 and (difference > 0).mean() < 0.01  # a grey value, where rounding decides
        assert np.array_equal(both["arr_1"], alone.labels)
    assert not (together.folder / "two.npz.parts").exists()


def test_weights_in_parts_learn_what_one_process_does_and_any_set_up_goes_on(together: Together) -> None:
    """A step alone, three in two processes with weights in parts, blocks computed again and micro-batches, one more
    alone: losses, figures, grids and whole checkpoints of five steps alone."""
    places = [together.folder / which / "parts" for which in ("one", "two")]
    again = ["training.steps=5", "training.shard=true"]
    train(together.folder / "parts.yaml", out=places[1], resume=True, overrides=again)
    by_step: list[dict[int, dict[str, Any]]] = []
    for log in together.logs("parts"):
        by_step.append({line["step"]: {} for line in log})
        for line in log:
            by_step[-1][line["step"]] |= {key: line[key] for key in (*KEYS, "frechet_distance") if key in line}
    assert {"frechet_distance", "validation_loss"} <= by_step[0][3].keys()
    for step, figures in by_step[0].items():
        assert figures == pytest.approx({key: by_step[1][step][key] for key in figures}, rel=1e-3), step
    grids = [np.asarray(Image.open(place / "samples" / "grid-00000003.png"), int) for place in places]
    assert np.abs(grids[0] - grids[1]).max() <= 1
    for step in (4, 5):
        for name in ("model", "ema", "optimizer"):
            files = [place / f"checkpoints/step-{step:08d}/{name}.safetensors" for place in places]
            alone, both = map(load_file, files)
            assert list(alone) == list(both) and files[0].stat().st_size == files[1].stat().st_size
            for key, value in alone.items():
                torch.testing.assert_close(both[key], value, rtol=1e-3, atol=2e-5, msg=f"{files[1]} {key}")
