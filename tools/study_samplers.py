"""Every sampler on one small digit model: Fréchet distance against network evaluations, from the same seeds.

    python tools/study_samplers.py [--steps 3000] [-n 2000]

The run is kept in runs/samplers/, and what is there already is not made again. Writes the evaluations to
results/samplers/*.json and the figure docs/images/samplers.png.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from trilemma.evaluations import evaluate
from trilemma.jobs import train
from trilemma.report.figures import save_figure
from trilemma.report.schedules import COLOURS

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results" / "samplers"
FEW = (5, 10, 20, 50)
RECIPE = (
    *("schedule.steps=1000", "learner.times=uniform", "learner.label_dropout=0", "network.base_channels=48"),
    *("network.entry=added", "training.learning_rate=1e-3", "training.validate_every=1000", "sampling.guidance=0"),
)
"""The demo's, wider, trained for longer and without guidance."""
WAYS: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
    "ancestral": ({"sampler": "ancestral"}, (*FEW, 100, 250)),
    "DDIM": ({"sampler": "ddim"}, FEW),
    "probability flow": ({"sampler": "probability_flow", "spacing": "log_snr"}, FEW),
    "Heun": ({"sampler": "heun", "spacing": "log_snr"}, (9, 19, 49)),
    "DPM-Solver++ 2M": ({"sampler": "dpmpp", "spacing": "log_snr"}, FEW),
    "SDE-DPM-Solver++ 2M": ({"sampler": "dpmpp", "spacing": "log_snr", "stochastic": True}, FEW),
    "UniPC": ({"sampler": "unipc", "spacing": "log_snr"}, FEW),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("-n", type=int, default=2000)
    arguments = parser.parse_args()
    overrides = [*RECIPE, f"training.steps={arguments.steps}"]
    run = train("demo", out=Path("runs/samplers"), overrides=overrides, resume=True)
    curves: dict[str, list[tuple[int, float, float]]] = {}
    for label, (way, budgets) in WAYS.items():
        for evaluations in budgets:
            steps = (evaluations + 1) // 2 if way["sampler"] == "heun" else evaluations
            out = RESULTS / f"{label.replace(' ', '-').lower()}-{evaluations}.json"
            if not out.exists():
                evaluate(run, n=arguments.n, steps=steps, batch=250, out=out, label=f"{label}, {evaluations}", **way)
            figures = json.loads(out.read_text())["metrics"]
            point = (evaluations, figures["frechet_distance"], figures["frechet_distance_se"])
            curves.setdefault(label, []).append(point)
            print(label, *point, flush=True)
    print(save_figure(_figure(curves, arguments.n), ROOT / "docs" / "images" / "samplers.png"))


def _figure(curves: dict[str, list[tuple[int, float, float]]], n: int) -> Figure:
    figure = Figure(figsize=(7.2, 4.4), dpi=150, layout="constrained")
    axes = figure.subplots()
    marks = "osD^vP*"
    for (label, points), colour, mark in zip(curves.items(), (*COLOURS, "#d1495b"), marks, strict=False):
        x, y, error = zip(*points, strict=True)
        axes.errorbar(x, y, error, label=label, color=colour, marker=mark, ms=5, lw=1.3, capsize=2)
    axes.set(xscale="log", yscale="log", xlabel="network evaluations an image")
    axes.set_ylabel(f"FD-{n} (digits), ± standard error")
    ticks = sorted({x for points in curves.values() for x, _, _ in points} - {9, 19, 49})
    axes.set_xticks(ticks, [str(t) for t in ticks])
    axes.minorticks_off()
    axes.grid(alpha=0.25, which="both")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    return figure


if __name__ == "__main__":
    main()
