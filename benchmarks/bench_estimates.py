"""What `--dry-run` says that a training takes, and what it takes: time and memory of five kinds of training.

    python benchmarks/bench_estimates.py [NAME …]

Each is estimated and then trained, in a fresh process each, one after the other, so that what else the machine does
meets both. Memory is what a process takes beyond what it held when all was imported. Writes results/estimates, a file
for each; some four minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from trilemma.data import open_data, write_png
from trilemma.jobs import train
from trilemma.jobs.dry_run import check_memory
from trilemma.jobs.estimating import estimate
from trilemma.machine.devices import process_state
from trilemma.machine.environment import environment
from trilemma.machine.files import write_json
from trilemma.metrics import peak_memory, resident
from trilemma.recipes import load
from trilemma.runs.build import completed, open_images

FOLDER = Path(__file__).parents[1] / "results" / "estimates"

SHAPES: dict[str, Any] = {
    "learner": {"name": "denoising", "parameterization": "v", "variance": "fixed_small", "conditional": True},
    "schedule": {"name": "cosine", "steps": 1000},
    "network": {
        **{"name": "unet", "base_channels": 24, "multipliers": [1, 2, 2, 2], "blocks": 1, "attention": [16, 8]},
        **{"dropout": 0.0, "entry": "adagn"},
    },
    "data": {"name": "shapes", "validation_split": "test", "holdout": 0.1},
    "training": {
        **{"steps": 30, "batch": 16, "micro_batch": 8, "precision": "bf16", "flip": True, "workers": 1},
        **{"validate_every": 15, "validation_images": 32, "grid_every": 0, "checkpoint_every": 15},
    },
    "sampling": {"sampler": "ddim", "steps": 4, "batch": 40},
}
"""A folder of 300 colour images of 64×64, loaded by a process beside; attention; micro-batches in bf16. No grids: what
one of 40 such images takes differs between runs of the same by a third, as the allocator has it."""

TRAININGS: dict[str, tuple[str, dict[str, Any]]] = {
    "demo": ("demo", {"steps": 100, "warmup": 10, "grid_every": 100, "validate_every": 50}),
    "demo-classifier": ("demo-classifier", {"steps": 60, "warmup": 10, "validate_every": 60}),
    "digits-codec": ("digits-codec", {"steps": 150, "warmup": 10}),
    "digits-sngan": ("digits-sngan", {"steps": 120}),
    "shapes": ("shapes.yaml", {}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[[], *TRAININGS], help="of these alone")
    parser.add_argument("--here", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.here:
        what, name = arguments.here
        print(json.dumps({"estimate": told, "train": took}[what](*of(name))))
        return
    with tempfile.TemporaryDirectory() as place:
        made(Path(place))
        for name in arguments.names or TRAININGS:
            began = time.perf_counter()
            estimated, actual = (alone(what, name, place) for what in ("estimate", "train"))
            ratios = {key: estimated[key] / actual[key] for key in ("seconds", "peak_memory")}
            document = {
                "recipe": name, "overrides": of(name)[1], "steps": estimated.pop("steps"), "estimated": estimated,
                "actual": actual, "ratios": ratios, "load": os.getloadavg()[0],
                "environment": environment(process_state().device),
            }  # fmt: skip
            words = ", ".join(f"{key} {ratio:.2f}" for key, ratio in ratios.items())
            print(f"{name}: estimated / taken: {words}; all in {time.perf_counter() - began:.0f} s", flush=True)
            print(f"  {estimated}\n  {actual}\n  {write_json(FOLDER / f'{name}.json', document)}", flush=True)


def of(name: str) -> tuple[str, list[str]]:
    """A training's recipe, and what is set in it."""
    recipe, settings = TRAININGS[name]
    return recipe, [f"training.{key}={value}" for key, value in settings.items()]


def made(place: Path) -> None:
    """The folder of images and its recipe."""
    images = open_data("shapes", size=64)
    pixels, labels = images.batch(np.arange(300))
    assert labels is not None and images.classes is not None
    for i, (image, label) in enumerate(zip(pixels, labels, strict=True)):
        folder = place / "shapes" / images.classes[label]
        folder.mkdir(parents=True, exist_ok=True)
        write_png(folder / f"{i}.png", image)
    recipe = SHAPES | {"name": "shapes", "data": SHAPES["data"] | {"name": "./shapes"}}
    (place / "shapes.yaml").write_text(yaml.safe_dump(recipe))


def alone(what: str, name: str, place: str) -> dict[str, Any]:
    """What a process of its own prints last."""
    command = [sys.executable, str(Path(__file__).resolve()), "--here", what, name]
    done = subprocess.run(command, cwd=place, check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def told(recipe: str, overrides: list[str]) -> dict[str, Any]:
    """What a training is estimated to take, and what there was to it."""
    before, began = resident() or 0, time.perf_counter()
    chosen = load(recipe, overrides)
    data = open_images(chosen)
    chosen = completed(chosen, data)
    check_memory(chosen, process_state().device, 1)
    found = estimate(chosen, data)
    assert found.peak_memory is not None
    return {
        "steps": found.steps, "seconds": found.seconds, "seconds_per_step": found.seconds_per_step,
        "once": dict(found.once), "occasions": {name: one.total for name, one in found.occasions.items()},
        "peak_memory": found.peak_memory + max(0, found.held - before), "took": time.perf_counter() - began,
    }  # fmt: skip


def took(recipe: str, overrides: list[str]) -> dict[str, Any]:
    """What it takes."""
    memory, began = peak_memory(), time.perf_counter()
    run = train(recipe, out=Path("runs") / Path(recipe).stem, overrides=overrides)
    seconds = time.perf_counter() - began
    lines = [json.loads(line) for line in (run.path / "log.jsonl").read_text().splitlines()]
    steps = max(line.get("time_s", 0.0) for line in lines) / run.step
    return {"seconds": seconds, "seconds_per_step": steps, "peak_memory": memory()[0]}


if __name__ == "__main__":
    if (threads := os.environ.get("OMP_NUM_THREADS")) is not None:
        torch.set_num_threads(int(threads))
    main()
