"""What a training step takes in time and memory: plain, with blocks computed again, in micro-batches, in bf16.

    python benchmarks/bench_memory.py [--threads N] [--rounds N] [--json results/memory/cpu.json]

Each is a process of its own, for which the same steps of the same network are made by the training loop: memory is what
it takes at its peak beyond what it held when the data were there (on a GPU what PyTorch allocated), weights, gradients,
moments and averages included. The processes take turns, a step each; times are the shortest (on a CPU its seconds, not
the clock's, which others' work does not lengthen), ratios over the plain one. The last rows make two processes of one:
their times together, the memory of the larger.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trilemma.machine.devices import accelerator
from trilemma.machine.environment import environment
from trilemma.metrics import peak_memory
from trilemma.networks import UNet
from trilemma.objectives import OBJECTIVES
from trilemma.process import SCHEDULES, TIME_SAMPLERS, Denoiser, to_model
from trilemma.training import Batches, DenoisingLearner, Trainer, TrainingSettings

SIDE, BATCH = 32, 16
NETWORK: dict[str, Any] = {"base_channels": 48, "multipliers": (1, 2, 2), "blocks": 2, "attention": (16,)}
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "`recompute: true`": {"recompute": True},
    "`micro_batch: 4`": {"micro_batch": 4},
    "both": {"recompute": True, "micro_batch": 4},
    "`precision: bf16`": {"precision": "bf16"},
    "all three": {"recompute": True, "micro_batch": 4, "precision": "bf16"},
}
TWO = {"two processes": {}, "two, `shard: true`": {"shard": True}}


class Noise:
    """Images of noise."""

    in_memory = True

    def __init__(self) -> None:
        self.images = np.random.default_rng(0).integers(0, 256, (2 * BATCH, SIDE, SIDE, 3), np.uint8)

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, indices: Any) -> tuple[np.ndarray, None]:
        return self.images[list(indices)], None


def steps(changes: dict[str, Any], threads: int) -> None:
    """Make a training step for each line of the input, and tell seconds and bytes on the output."""
    torch.set_num_threads(threads)
    settings = TrainingSettings(steps=10**6, batch=BATCH, checkpoint_every=10**6, **changes)
    process = accelerator(settings.precision)
    memory = peak_memory()
    schedule = SCHEDULES["cosine"](steps=1000)
    network = UNet(3, 3, (SIDE, SIDE), **NETWORK)
    learner = DenoisingLearner(
        Denoiser(network, schedule), OBJECTIVES["simple"](), TIME_SAMPLERS["uniform"](schedule), conditional=False
    )
    trainer = Trainer(learner, settings, process, None)
    rank, processes = process.process_index, process.num_processes
    reports = trainer.run(Batches(Noise(), to_model, batch=BATCH, seed=0, rank=rank, processes=processes))
    clock = time.process_time if process.device.type == "cpu" else time.perf_counter
    for _ in sys.stdin:
        began = clock()
        next(reports)
        if process.device.type == "cuda":
            torch.cuda.synchronize()
        seconds = clock() - began
        bytes_, kind = memory()
        print(json.dumps({"seconds": seconds, "memory": bytes_, "kind": kind}), flush=True)


class Variant:
    """Processes that make steps when they are asked to."""

    def __init__(self, changes: dict[str, Any], processes: int, threads: int):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.running, self.best, self.memory, self.kind = [], float("inf"), 0, None
        for rank in range(processes):
            ranks = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
            place = ranks | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port} if processes > 1 else {}
            each = str(max(1, threads // processes))
            command = [sys.executable, __file__, "--threads", each, "--steps", json.dumps(changes)]
            where = os.environ | {key: str(value) for key, value in place.items()}
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
            self.running.append(subprocess.Popen(command, env=where, **pipes))

    def step(self, counted: bool) -> None:
        """One step of all processes."""
        for process in self.running:
            process.stdin.write("\n")
            process.stdin.flush()
        found = [json.loads(process.stdout.readline()) for process in self.running]
        if counted:
            self.best = min(self.best, sum(each["seconds"] for each in found))
        self.memory, self.kind = max(each["memory"] or 0 for each in found), found[0]["kind"]

    def end(self) -> None:
        for process in self.running:
            process.stdin.close()
        for process in self.running:
            process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--steps", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.steps is not None:
        steps(json.loads(arguments.steps), arguments.threads)
        return
    gpus = torch.cuda.device_count()
    made = {name: (changes, 1) for name, changes in VARIANTS.items()}
    if gpus != 1:
        made |= {name: (changes, 2) for name, changes in TWO.items()}
    running = {name: Variant(*given, arguments.threads) for name, given in made.items()}
    for i in range(arguments.rounds + 1):
        for variant in running.values():
            variant.step(counted=i > 0)
    rows = []
    for name, variant in running.items():
        variant.end()
        time_ratio, memory_ratio = variant.best / running["plain"].best, variant.memory / running["plain"].memory
        measured = {"seconds": variant.best, "memory": variant.memory, "time_ratio": time_ratio}
        rows.append({"what": name, "processes": made[name][1], **measured, "memory_ratio": memory_ratio})
        print(
            f"{name:22} {variant.best:7.2f} s a step (x {time_ratio:.2f})   "
            f"{variant.memory / 2**20:8,.0f} MiB (x {memory_ratio:.2f})"
        )
    if arguments.json:
        device = torch.device("cuda" if gpus else "cpu")
        here = environment(device, 1) | {"threads": arguments.threads}
        setting = {"network": NETWORK, "side": SIDE, "batch": BATCH, "memory_kind": running["plain"].kind}
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps({"rows": rows, **setting, "environment": here}, indent=1) + "\n")


if __name__ == "__main__":
    main()
