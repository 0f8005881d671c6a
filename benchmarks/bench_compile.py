"""Sampling with `compile` and without, in one run: where compiling the sampler's network pays.

    python benchmarks/bench_compile.py [--threads N] [--rounds N] [--steps N] [--json results/compile/speed.json]

Both are timed in turn; the ratio is the shortest time without compilation over the shortest with it, so above 1
compiled is faster. `compile_s` is what the first batch takes beyond another: a set has to be long enough to earn it.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from bench_networks import SHAPES, Shape, faster

from trilemma.machine.environment import environment
from trilemma.process import Denoiser, Linear
from trilemma.samplers import Ancestral, Sampler


def compiled(shape: Shape, device: torch.device, precision: str, steps: int, rounds: int) -> dict[str, float]:
    """A batch of images by ancestral sampling in so many steps."""
    network = shape.ours().to(device, memory_format=torch.channels_last).eval().requires_grad_(False)
    how: dict[str, Any] = {"steps": steps, "precision": precision, "batch": shape.batch}
    eager = Sampler(Denoiser(network, Linear()), Ancestral(), shape=(shape.channels, shape.side, shape.side), **how)
    fast = replace(eager, compile=True)
    began = time.perf_counter()
    fast.generate(range(shape.batch))
    first = time.perf_counter() - began
    times = faster(lambda: fast.generate(range(shape.batch)), lambda: eager.generate(range(shape.batch)), rounds)
    found = {"compiled_s": times["ours_s"], "eager_s": times["theirs_s"], "ratio": times["ratio"]}
    return found | {"compile_s": first - times["ours_s"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rows = []
    for name, shape in SHAPES.items():
        for precision in ("fp32", "bf16"):
            found = compiled(shape, device, precision, arguments.steps, arguments.rounds)
            what = {"network": name, "batch": shape.batch, "precision": precision, "steps": arguments.steps}
            rows.append({**what, **found})
            print(
                f"{name:24} {precision}  eager {found['eager_s']:7.3f} s   compiled {found['compiled_s']:7.3f} s   "
                f"ratio {found['ratio']:.2f}   compiling {found['compile_s']:.0f} s",
                flush=True,
            )
    if arguments.json:
        here = environment(device, 1) | {"threads": arguments.threads}
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps({"rows": rows, "environment": here}, indent=1) + "\n")


if __name__ == "__main__":
    main()
