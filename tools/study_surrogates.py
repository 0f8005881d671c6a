"""A's table 4.5 on digits, and DDGAN: what is begun from a surrogate, beside the same number of evaluations spent on
plain DDIM and DPM-Solver++, which A did not compare with.

    python tools/study_surrogates.py [--root runs] [-n 500]

Trains digits-200, its surrogates digits-sngan, digits-vae and digits-200-14, and digits-ddgan in four steps and in two,
in --root where they are not there yet, each going on where it was interrupted; samples and measures them, sets that are
there being taken up. Writes the evaluations to results/surrogates/*.json, and the pictures docs/images/surrogates.png
and docs/images/surrogate-pairs.png. Some three hours on two CPU cores, most of them training.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from kept import HOME, keep
from matplotlib.figure import Figure

from trilemma.data import write_png
from trilemma.evaluations import Evaluation, evaluate
from trilemma.jobs import train
from trilemma.report.figures import save_figure
from trilemma.report.schedules import COLOURS
from trilemma.runs import Run

T = 200
TIMES = (0, 50, 100, 150)
SURROGATES = {"digits-sngan": "SNGAN", "digits-vae": "VAE", "digits-200-14": "14×14"}
DRAWN = {"digits-ddgan-2": 2, "digits-ddgan": 4}
PLAIN: dict[str, dict[str, Any]] = {
    "DDIM": {"sampler": "ddim"},
    "DPM-Solver++": {"sampler": "dpmpp", "spacing": "log_snr"},
}
METRICS = ("frechet_distance", "precision", "recall", "balance_kl", "network_evaluations", "multiply_adds")
PANELS = {"frechet_distance": "Fréchet distance (digits)", "recall": "recall", "balance_kl": "class balance, KL"}
Curves = dict[str, list[Evaluation]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path("runs"))
    parser.add_argument("-n", type=int, default=500)
    arguments = parser.parse_args()
    runs = {name: train(name, out=arguments.root / name, resume=True) for name in ("digits-200", *SURROGATES, *DRAWN)}
    base = runs["digits-200"]

    def measured(run: Run, name: str, label: str, **how: Any) -> Evaluation:
        shared = {"precision": "bf16", "batch": 100}
        found = evaluate(run, "mnist5k:train", n=arguments.n, metrics=METRICS, **{**shared, **how})
        return keep(found, "surrogates", name, label, METRICS)

    curves: Curves = {"ancestral": [measured(base, "ancestral", f"ancestral, {T} steps")]}
    for surrogate, words in SURROGATES.items():
        for t_mid in TIMES:
            how = {"surrogate": str(runs[surrogate].path), "t_mid": float(t_mid)}
            label = f"{words} at {t_mid}" if t_mid else f"{words} alone"
            found = measured(base, f"{surrogate.removeprefix('digits-')}-{t_mid}", label, **how)
            curves.setdefault(f"{words}, then ancestral", []).append(found)
    # A generator's image is one evaluation more than the steps that are left to the walk.
    for steps in (*(t + 1 for t in TIMES), T):
        for words, way in PLAIN.items():
            found = measured(base, f"{way['sampler']}-{steps}", f"{words}, {_steps(steps)}", steps=steps, **way)
            curves.setdefault(words, []).append(found)
    for name, steps in DRAWN.items():
        curves.setdefault("DDGAN", []).append(measured(runs[name], f"ddgan-{steps}", f"DDGAN, {steps} steps"))
        plain = measured(base, f"ddim-{steps}", f"DDIM, {steps} steps", steps=steps, sampler="ddim")
        curves["DDIM"].append(plain)
    print(save_figure(figure(curves), HOME / "docs" / "images" / "surrogates.png"))
    print(write_png(HOME / "docs" / "images" / "surrogate-pairs.png", pairs(base, runs)))


def _steps(count: int) -> str:
    return f"{count} step{'s' * (count > 1)}"


def pairs(base: Run, runs: dict[str, Run]) -> np.ndarray:
    """Of each surrogate at T/2, a row of x̃_0 beside the x_0 that was made of it (A figure 4.4)."""
    rows = []
    for surrogate in SURROGATES:
        how = {"surrogate": str(runs[surrogate].path), "t_mid": T / 2}
        rows.append(base.surrogate_pairs(base.sample(8, **how), 8, **how))
    return np.concatenate(rows)


def figure(curves: Curves) -> Figure:
    """Each measure against the multiply-adds of an image; bars are standard errors."""
    found = Figure(figsize=(11, 3.8), dpi=130, layout="constrained")
    marks = dict(zip(curves, "*osDv^P", strict=True))
    for axes, (metric, title) in zip(found.subplots(1, len(PANELS)), PANELS.items(), strict=True):
        for (name, evaluations), colour in zip(curves.items(), ["black", *COLOURS], strict=False):
            ordered = sorted(evaluations, key=lambda one: one.figure("multiply_adds") or 0.0)
            axes.errorbar(
                [(one.figure("multiply_adds") or 0.0) / 1e9 for one in ordered],
                [one.figure(metric) or 0.0 for one in ordered],
                [one.error(metric) or 0.0 for one in ordered],
                label=name, color=colour, marker=marks[name], ms=9 if name == "ancestral" else 5, lw=1.2, capsize=2,
            )  # fmt: skip
        axes.set(title=title, xlabel="multiply-adds an image, 10⁹", xscale="log")
        axes.set_yscale("linear" if metric == "recall" else "log")
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    found.legend(
        *found.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False, fontsize=8
    )
    return found


if __name__ == "__main__":
    main()
