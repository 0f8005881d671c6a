"""The dial between likeness and variety on digits: three ways of guiding one model, and a cascade beside one stage.

    python tools/study_guidance.py [--root runs] [-n 1000]

Trains demo, demo-classifier, demo-guide, demo-14, demo-upsampler and demo for as many steps as the two of the cascade
together in --root where they are not there yet, each going on where it was interrupted, and sweeps demo over the scale
of each guidance. Writes the evaluations to
results/guidance/*.json and results/cascade/*.json, and the figure docs/images/guidance.png.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from kept import HOME, keep
from matplotlib.figure import Figure

from trilemma.evaluations import Evaluation, evaluate
from trilemma.jobs import sweep, train
from trilemma.report.figures import save_figure
from trilemma.report.schedules import COLOURS

SCALES = (0.0, 0.5, 1.0, 2.0, 4.0)
STRONG = (0.0, 1.0, 2.0, 4.0, 8.0)
"""Of a classifier: a small one's gradients are small."""

PANELS = {
    "recognised": "recognised as the class asked for",
    "frechet_distance": "Fréchet distance (digits)",
    "precision": "precision",
    "recall": "recall",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path("runs"))
    parser.add_argument("-n", type=int, default=1000)
    arguments = parser.parse_args()
    recipes = ("demo", "demo-classifier", "demo-guide", "demo-14", "demo-upsampler")
    runs = {name: train(name, out=arguments.root / name, resume=True) for name in recipes}
    kinds: dict[str, tuple[tuple[float, ...], dict[str, Any]]] = {
        "classifier-free": (SCALES, {}),
        "classifier": (STRONG, {"classifier": str(runs["demo-classifier"].path)}),
        "autoguidance": (SCALES, {"guide": str(runs["demo-guide"].path)}),
    }
    curves = {}
    for kind, (scales, how) in kinds.items():
        curves[kind] = sweep(runs["demo"], n=arguments.n, guidance=list(scales), batch=250, **how)
        for scale, found in zip(scales, curves[kind], strict=True):
            label = f"{kind}, {scale:g}" if scale else "no guidance"
            keep(found, "guidance", f"{kind}-{scale:g}" if scale else "none", label, PANELS)
    print(save_figure(figure(curves), HOME / "docs" / "images" / "guidance.png"))
    two_stages = f"{arguments.root / 'demo-14'}+{arguments.root / 'demo-upsampler'}"
    # As many steps as both stages have together; a step of any of the three takes the same network.
    both = sum(runs[name].recipe.training.steps for name in ("demo-14", "demo-upsampler"))
    longer = train("demo", out=arguments.root / "demo-longer", overrides=[f"training.steps={both}"], resume=True)
    ways: dict[str, tuple[Any, dict[str, Any]]] = {
        "one stage": (longer, {}),
        "one stage, guidance 1": (longer, {"guidance": 1.0}),
        "14 to 28": (two_stages, {}),
        "14 to 28, guidance 1 at the base": (two_stages, {"guidance": 1.0}),
    }
    for label, (subject, how) in ways.items():
        found = evaluate(subject, "mnist5k:train", n=arguments.n, batch=250, **how)
        keep(found, "cascade", label.replace(",", "").replace(" ", "-"), label, PANELS)


def figure(curves: dict[str, list[Evaluation]]) -> Figure:
    """Each measure against the scale, a line a way of guiding; bars are standard errors."""
    found = Figure(figsize=(9, 5.4), dpi=150, layout="constrained")
    for axes, (metric, title) in zip(found.subplots(2, 2).flat, PANELS.items(), strict=True):
        for (kind, evaluations), colour, mark in zip(curves.items(), COLOURS, "osD", strict=False):
            scales = [one.sampler.guidance or 0.0 for one in evaluations if one.sampler is not None]
            values, errors = [one.figure(metric) for one in evaluations], [one.error(metric) for one in evaluations]
            axes.errorbar(
                scales, [value or 0.0 for value in values], [error or 0.0 for error in errors],
                label=kind, color=colour, marker=mark, ms=5, lw=1.3, capsize=2,
            )  # fmt: skip
        axes.set(title=title, xlabel="scale", yscale="log" if metric == "frechet_distance" else "linear")
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    found.axes[0].legend(frameon=False, fontsize=8)
    return found


if __name__ == "__main__":
    main()
