"""The measures on synthetic features of FID's size: the Fréchet distance against pytorch-fid's method, statistics in
one pass, precision and recall in tiles; times and the highest memory, in one run.

    python benchmarks/bench_measures.py [-n 50000] [--dim 2048] [--neighbours-n 10000] [--json FILE]

pytorch-fid's method is `scipy.linalg.sqrtm` of the product of the covariances. The features are correlated Gaussians in
float32, another mean for the generated ones. Precision and recall take time with the square of the count, so they have
a count of their own.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import linalg

from trilemma.metrics import Statistics, frechet_distance, precision_recall
from trilemma.metrics.frechet import trace_sqrt_product
from trilemma.runs.environment import environment


def features(n: int, dim: int, seed: int) -> np.ndarray:
    """Correlated Gaussian features [n, dim] whose spectrum falls as Inception's does, by orders of magnitude."""
    draw = np.random.default_rng(seed)
    mixing = draw.standard_normal((dim, dim), dtype=np.float32) * np.geomspace(1, 0.01, dim, dtype=np.float32)
    return draw.standard_normal((n, dim), dtype=np.float32) @ mixing.T / np.float32(np.sqrt(dim)) + np.float32(
        seed * 0.01
    )


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    began = time.perf_counter()
    result = call()
    return result, time.perf_counter() - began


def resident() -> float:
    """The highest memory of this process so far, GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=50_000)
    parser.add_argument("--dim", type=int, default=2048)
    parser.add_argument("--neighbours-n", type=int, default=10_000)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    found: dict[str, Any] = {"count": arguments.n, "dim": arguments.dim, "threads": torch.get_num_threads()}
    pair = [features(arguments.n, arguments.dim, seed) for seed in (0, 1)]
    found["features_gib"] = sum(part.nbytes for part in pair) / 2**30
    before = resident()
    (real, fake), found["statistics_s"] = timed(lambda: [Statistics.of(part) for part in pair])
    found["statistics_gib"] = resident() - before
    ours, found["trace_s"] = timed(lambda: trace_sqrt_product(real.cov, fake.cov))
    theirs, found["sqrtm_s"] = timed(lambda: np.trace(np.real(linalg.sqrtm(real.cov @ fake.cov))))
    found["trace_ratio"] = found["sqrtm_s"] / found["trace_s"]
    found["trace_difference"] = abs(ours - theirs) / theirs
    found["frechet_distance"] = frechet_distance(real=real, fake=fake)
    few = [part[: arguments.neighbours_n].copy() for part in pair]
    del pair, real, fake
    before = resident()
    _, found["precision_recall_s"] = timed(lambda: precision_recall(real=few[0], fake=few[1]))
    found |= {"precision_recall_count": len(few[0]), "precision_recall_gib": resident() - before}
    found["highest_gib"] = resident()
    for name, value in found.items():
        print(f"{name:24} {value:.4g}" if isinstance(value, float) else f"{name:24} {value}")
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        here = environment(torch.device("cpu"), 1)
        arguments.json.write_text(json.dumps(found | {"environment": here}, indent=1) + "\n")


if __name__ == "__main__":
    main()
