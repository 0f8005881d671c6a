"""Diffusion of latents beside that of pixels, and VDM beside DDPM and L_vlb: training steps and sampling, timed side by
side in one run.

    python benchmarks/bench_latents.py [--root runs] [--rounds 5]

Of the runs that tools/study_learned.py has trained. Each round times all ways one after the other, so that what else
the machine does meets all; figures are medians of rounds, ratios medians of the rounds' ratios. Writes
results/learned/speed.json.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from trilemma.data import open_data
from trilemma.jobs.watching import batches_of
from trilemma.machine.devices import accelerator
from trilemma.machine.environment import environment
from trilemma.machine.files import write_json
from trilemma.runs import Run
from trilemma.runs.build import build_learner
from trilemma.runs.latents import FOLDER, codec_of, latents_of
from trilemma.training import Trainer

HOME = Path(__file__).parents[1]
PAIR = {"pixels": "digits-ddpm", "latents": "digits-ldm"}
LEARNERS = ("digits-ddpm", "digits-vdm", "digits-vlb")
STEPS, IMAGES = 20, 100
SAMPLED = {
    "images a second, DDIM, 20 steps": {"pixels": 20, "latents": 20},
    "images a second, DDIM, 50 steps of pixels, 10 of latents": {"pixels": 50, "latents": 10},
}
"""Steps of each way; the second at about the same Fréchet distance, see results/learned/ways."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path("runs"))
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    runs = {way: Run(arguments.root / name) for way, name in PAIR.items()}
    timed: dict[str, dict[str, Callable[[], float]]] = {
        "training steps a second": {way: training(run) for way, run in runs.items()},
        **{what: {way: sampling(runs[way], count) for way, count in steps.items()} for what, steps in SAMPLED.items()},
    }
    rows = []
    for what, ways in timed.items():
        for rate in ways.values():
            rate()  # a warm-up, which is not counted
        rounds = [{way: rate() for way, rate in ways.items()} for _ in range(arguments.rounds)]
        rows.append({"what": what, **medians(rounds), **over(rounds, "latents", "pixels")})
        print(rows[-1], flush=True)
    learners = {name: training(Run(arguments.root / name)) for name in LEARNERS}
    rounds = [{name: rate() for name, rate in learners.items()} for _ in range(arguments.rounds + 1)][1:]
    beside = {name: over(rounds, name, "digits-ddpm") for name in LEARNERS}
    print(beside, flush=True)
    batch = {way: run.recipe.training.batch for way, run in runs.items()}
    where = environment(torch.device("cpu"))
    document = {
        "rounds": arguments.rounds, "training_batch": batch, "rows": rows,
        "training_steps_a_second": medians(rounds), "over_ddpm": beside, "environment": where,
    }  # fmt: skip
    print(write_json(HOME / "results" / "learned" / "speed.json", document))


def medians(rounds: list[dict[str, float]]) -> dict[str, float]:
    """Of each way over the rounds."""
    return {way: statistics.median(each[way] for each in rounds) for way in rounds[0]}


def over(rounds: list[dict[str, float]], way: str, other: str) -> dict[str, Any]:
    """How much faster the one is than the other in each round, and the median."""
    ratios = sorted(each[way] / each[other] for each in rounds)
    return {"ratio": statistics.median(ratios), "ratios": ratios}


def training(run: Run) -> Callable[[], float]:
    """Training steps a second, over STEPS of them, by the run's own recipe and from its beginning."""
    recipe, process = run.recipe, accelerator(run.recipe.training.precision)
    data, codec = open_data(recipe.data.name, split=recipe.data.split), codec_of(recipe, run.path / FOLDER)
    source = data if codec is None else latents_of(data, recipe, codec)[0]
    learner = build_learner(recipe, codec)
    settings = recipe.training.model_copy(update={"steps": 10**6, "checkpoint_every": 10**6})
    reports = Trainer(learner, settings, process, None).run(batches_of(recipe, source, process))

    def rate() -> float:
        began = time.perf_counter()
        for _ in range(STEPS):
            next(reports)
        return STEPS / (time.perf_counter() - began)

    return rate


def sampling(run: Run, steps: int) -> Callable[[], float]:
    """Images a second, decoded, IMAGES at once."""
    sampler = run.sampler(sampler="ddim", steps=steps, precision="bf16", batch=IMAGES)

    def rate() -> float:
        began = time.perf_counter()
        sampler.generate(range(IMAGES))
        return IMAGES / (time.perf_counter() - began)

    return rate


if __name__ == "__main__":
    main()
