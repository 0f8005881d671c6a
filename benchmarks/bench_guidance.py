"""A guided prediction beside what its parts cost, in one run: what guidance itself takes.

    python benchmarks/bench_guidance.py [--threads N] [--rounds N] [--json results/guidance-speed/speed.json]

The parts of classifier guidance are the denoiser's prediction and the classifier's gradient, those of autoguidance the
two denoisers' predictions, that of classifier-free guidance one prediction for twice the images. All are timed in turn;
the ratio is the median over rounds of the guided prediction's time over its parts'.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from trilemma.guidance import Autoguidance, ClassifierFree, ClassifierGuidance, bind
from trilemma.machine.environment import environment
from trilemma.networks import UNet
from trilemma.networks.classifier import NoisyClassifier
from trilemma.process import ClassPosterior, Condition, Cosine, Denoiser

CLASSES = 10
SIZES: dict[str, tuple[tuple[int, int, int], int, dict[str, Any]]] = {
    "digits": ((1, 28, 28), 100, {"base_channels": 32, "multipliers": [1, 2], "blocks": 1, "attention": [14]}),
    "CIFAR-10": ((3, 32, 32), 8, {"base_channels": 128, "multipliers": [1, 2, 2, 2], "blocks": 2, "attention": [16]}),
}
"""The images' shape, how many at once, and the network: the demo's without its patches, and DDPM's."""


def timed(parts: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Each part's times, all of them in turn."""
    times: dict[str, list[float]] = {name: [] for name in parts}
    for _ in range(rounds + 1):
        for name, part in parts.items():
            began = time.perf_counter()
            part()
            times[name].append(time.perf_counter() - began)
    return {name: found[1:] for name, found in times.items()}


def ratios(size: str, rounds: int) -> dict[str, float]:
    """Of each guidance, with the median times that they are made of, in seconds."""
    shape, count, small = SIZES[size]
    schedule = Cosine(steps=128)

    def denoiser() -> Denoiser:
        network = UNet(shape[0], shape[0], shape[1:], CLASSES + 1, **small, dropout=0.0)
        return Denoiser(network.to(memory_format=torch.channels_last).eval(), schedule, "v", no_class=CLASSES)

    ours, weaker = denoiser(), denoiser()
    classifier = NoisyClassifier(shape[0], CLASSES, shape[1:], **small, dropout=0.0, pool_head_channels=32)
    posterior = ClassPosterior(classifier.to(memory_format=torch.channels_last).eval(), schedule)
    for network in (ours, weaker, posterior):
        network.requires_grad_(False)
    x = torch.randn(count, *shape).contiguous(memory_format=torch.channels_last)
    label = Condition(torch.arange(count) % CLASSES)
    twice = Condition(torch.cat([label.label, label.label]) if label.label is not None else None)
    t = torch.tensor(64.0, dtype=torch.float64)
    by_classifier = ClassifierGuidance(1.0, posterior)
    guides = {
        "classifier_free": ClassifierFree(1.0),
        "classifier": by_classifier,
        "autoguidance": Autoguidance(1.0, weaker),
    }

    def guided(guide: Any) -> Callable[[], Any]:
        bound = bind(ours, label, [guide])
        return lambda: bound(x, t)

    plain: dict[str, Callable[[], Any]] = {
        "one": lambda: ours(x, t, label),
        "weaker": lambda: weaker(x, t, label),
        "both": lambda: ours(torch.cat([x, x]), t, twice),
        "gradient": lambda: by_classifier.gradient(x, t, label),
    }
    with torch.inference_mode():
        times = timed({**plain, **{name: guided(guide) for name, guide in guides.items()}}, rounds)
    parts = {"classifier_free": ["both"], "classifier": ["one", "gradient"], "autoguidance": ["one", "weaker"]}
    return {f"{name}_s": statistics.median(values) for name, values in times.items()} | {
        f"{name}_ratio": statistics.median(
            whole / sum(each) for whole, *each in zip(times[name], *(times[part] for part in of), strict=True)
        )
        for name, of in parts.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    rows = []
    for size in SIZES:
        found = ratios(size, arguments.rounds)
        rows.append({"network": size, "batch": SIZES[size][1], **found})
        print(size, " ".join(f"{name} {value:.3f}" for name, value in found.items() if name.endswith("ratio")))
    if arguments.json:
        here = environment(torch.device("cpu"), 1) | {"threads": arguments.threads}
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps({"rows": rows, "environment": here}, indent=1) + "\n")


if __name__ == "__main__":
    main()
