"""What surrogates save, in one run: the recipes of docs/surrogates.md, their weights as initialised, timed in turn.

    python benchmarks/bench_surrogates.py [--threads N] [--rounds N] [--json results/surrogates-speed/speed.json]

Each round makes a batch of digits in every way, and by plain ancestral sampling just before it; the ratio is the median
over rounds of that time over the way's.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from trilemma.data import outline
from trilemma.machine.environment import environment
from trilemma.process import Denoiser
from trilemma.recipes import load
from trilemma.runs.build import build_learner, completed, denoiser_of
from trilemma.samplers import HandOver, Sampler, Surrogate

T, TIMES, BATCH = 200, (0, 50, 100, 150), 25


def denoiser(recipe: str) -> tuple[Denoiser, Any]:
    """The recipe's denoiser as it is sampled, and its settings."""
    chosen = load(recipe)
    chosen = completed(chosen, outline(chosen.data.name, size=chosen.data.size))
    made = denoiser_of(build_learner(chosen), chosen).eval().requires_grad_(False)
    made.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return made, chosen


def ways() -> dict[str, Sampler]:
    """The ways to make digits, plain ancestral sampling first."""
    how: dict[str, Any] = {"precision": "bf16", "batch": BATCH}
    base, chosen = denoiser("digits-200")
    kernel, shape = chosen.sampling.kernel, chosen.images.shape
    found = {f"ancestral, {T} steps": Sampler(base, kernel, shape=shape, **how)}
    for recipe, words in (("digits-sngan", "SNGAN"), ("digits-vae", "VAE"), ("digits-200-14", "14×14")):
        below, its = denoiser(recipe)
        sampler = Sampler(below, its.sampling.kernel, shape=its.images.shape, **how)
        for t in TIMES:
            stage = sampler if sampler.shape == shape else HandOver(sampler, float(t), shape[1:])
            begun = Surrogate(stage, float(t), {"name": recipe})
            found[f"{words} at {t}" if t else f"{words} alone"] = Sampler(
                base, kernel, shape=shape, surrogate=begun, **how
            )
    for recipe, steps in (("digits-ddgan-2", 2), ("digits-ddgan", 4)):
        drawing, its = denoiser(recipe)
        found[f"DDGAN, {steps} steps"] = Sampler(drawing, its.sampling.kernel, shape=shape, **how)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    made = ways()
    plain, *_ = made.values()

    def seconds(sampler: Sampler) -> float:
        began = time.perf_counter()
        sampler.generate(range(BATCH))
        return time.perf_counter() - began

    for sampler in made.values():
        sampler.generate(range(2))  # to warm up
    times = {
        name: [(seconds(plain), seconds(sampler)) for _ in range(arguments.rounds)] for name, sampler in made.items()
    }
    rows = []
    for name, found in times.items():
        faster = statistics.median(one / its for one, its in found)
        rate = BATCH / statistics.median(its for _, its in found)
        rows.append({"what": name, "evaluations": made[name].evaluations, "images_per_s": rate, "faster": faster})
        print(f"{name:24}{made[name].evaluations:6} evaluations{rate:9.1f} images/s{faster:9.2f} times as fast")
    if arguments.json:
        record = {
            "rows": rows,
            "batch": BATCH,
            "rounds": arguments.rounds,
            "environment": environment(torch.device("cpu")),
        }
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
