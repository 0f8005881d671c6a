"""The measures on synthetic features of FID's size: the Fréchet distance's trace term against pytorch-fid's method,
statistics in one pass, precision and recall in tiles; times and memory, each stage in a process of its own.

    python benchmarks/bench_measures.py [-n 50000] [--dim 2048] [--neighbours-n 10000] [--all] [--json FILE]

pytorch-fid's method is `scipy.linalg.sqrtm` of the product of the covariances. The features are correlated Gaussians in
float32, of other directions for the generated ones. Precision and recall take time with the square of the count, so
they have a count of their own, and are computed of all n images with `--all` only: ten minutes on a core. Times are of
the clock and of the processor; memory is what a stage takes beyond the features it is given.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import linalg

from trilemma.metrics import Statistics, precision_recall
from trilemma.metrics.frechet import trace_sqrt_product
from trilemma.runs.environment import environment

BLOCK = 2048
"""Images made at once."""


def features(n: int, dim: int, seed: int) -> np.ndarray:
    """Correlated Gaussian features [n, dim] whose covariance has eigenvalues from 1 to 1e-6."""
    draw = np.random.default_rng(seed)
    turn = np.linalg.qr(draw.standard_normal((dim, dim), dtype=np.float32))[0]
    mixing = turn * np.geomspace(1, 1e-3, dim, dtype=np.float32)
    made = np.empty((n, dim), dtype=np.float32)
    for start in range(0, n, BLOCK):
        block = made[start : start + BLOCK]
        block[:] = draw.standard_normal(block.shape, dtype=np.float32) @ mixing.T
    return made


def statistics_stage(n: int, dim: int) -> dict[str, Any]:
    """Moments of one set of features, in one pass over it."""
    given = features(n, dim, 0)
    return timed("statistics", lambda: Statistics.of(given))[1]


def trace_stage(n: int, dim: int) -> dict[str, Any]:
    """The trace term by both methods, of regular covariances; and ours of singular ones."""
    covs = [Statistics.of(features(4 * dim, dim, seed)).cov for seed in (0, 1)]
    ours, found = timed("trace", lambda: trace_sqrt_product(*covs))
    theirs, more = timed("sqrtm", lambda: np.trace(np.real(linalg.sqrtm(covs[0] @ covs[1]))))
    found |= more | {"trace_difference": abs(ours - theirs) / theirs}
    few = [Statistics.of(features(dim // 2, dim, seed)).cov for seed in (0, 1)]
    found |= timed("singular_trace", lambda: trace_sqrt_product(*few))[1]
    return found | {"trace_ratio": found["sqrtm_cpu_s"] / found["trace_cpu_s"]}


def precision_recall_stage(n: int, dim: int) -> dict[str, Any]:
    """Precision and recall of two sets, with their standard errors."""
    real, fake = (features(n, dim, seed) for seed in (0, 1))
    return timed("precision_recall", lambda: precision_recall(real=real, fake=fake))[1]


def precision_recall_all_stage(n: int, dim: int) -> dict[str, Any]:
    """The same of all images."""
    return {key.replace("recall", "recall_all"): value for key, value in precision_recall_stage(n, dim).items()}


STAGES = {
    "statistics": statistics_stage,
    "trace": trace_stage,
    "precision_recall": precision_recall_stage,
    "precision_recall_all": precision_recall_all_stage,
}


def timed(name: str, call: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """Its result, its seconds by the clock and of the processor, and the GiB by which it raised the process's highest
    memory."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began, began_cpu = time.perf_counter(), time.process_time()
    result = call()
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - began_cpu
    gib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20
    return result, {f"{name}_s": seconds, f"{name}_cpu_s": cpu_seconds, f"{name}_gib": gib}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=50_000)
    parser.add_argument("--dim", type=int, default=2048)
    parser.add_argument("--neighbours-n", type=int, default=10_000)
    parser.add_argument("--all", action="store_true", help="precision and recall of all n images too")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--stage", choices=STAGES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.stage:
        print(json.dumps(STAGES[arguments.stage](arguments.n, arguments.dim)))
        return
    found: dict[str, Any] = {"count": arguments.n, "dim": arguments.dim, "threads": torch.get_num_threads()}
    found["precision_recall_count"] = arguments.neighbours_n
    for stage in list(STAGES)[: None if arguments.all else -1]:
        n = arguments.neighbours_n if stage == "precision_recall" else arguments.n
        command = [sys.executable, __file__, "--stage", stage, "-n", str(n), "--dim", str(arguments.dim)]
        found |= json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    for name, value in found.items():
        print(f"{name:24} {value:.4g}" if isinstance(value, float) else f"{name:24} {value}")
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        here = environment(torch.device("cpu"), 1)
        arguments.json.write_text(json.dumps(found | {"environment": here}, indent=1) + "\n")


if __name__ == "__main__":
    main()
