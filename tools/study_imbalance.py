"""Is E's imbalance of classes its schedule's doing? E's unconditional network on MNIST (at half its width, so that it
fits a CPU), for data in [0, 1] and in [−1, 1], with E's schedule, which ends at SNR 0.15, and with one that reaches
noise.

    python tools/study_imbalance.py [--root FOLDER_WITH_MNIST] [--steps 2000] [-n 1000]

Runs are kept in runs/imbalance/, and what is there already is not made again. Writes the evaluations to
results/imbalance/*.json, and the table of docs/imbalance.md between its marks after each.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import torch

from trilemma.evaluations import evaluate
from trilemma.jobs import train
from trilemma.runs import Run
from trilemma.runs.build import open_images, second_moment

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results" / "imbalance"
VARIANTS = {
    "E's schedule, data in [0, 1]": ("mnist-unconditional", "[0,1]"),
    "E's schedule, data in [−1, 1]": ("mnist-unconditional", "[-1,1]"),
    "reaching noise, data in [0, 1]": ("mnist-unconditional-noise", "[0,1]"),
    "reaching noise, data in [−1, 1]": ("mnist-unconditional-noise", "[-1,1]"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("-n", type=int, default=1000)
    arguments = parser.parse_args()
    for number, (label, (recipe, values)) in enumerate(VARIANTS.items()):
        path = Path("runs/imbalance") / str(number)
        overrides = [
            f"data.range={values}",
            "network.base_channels=32",
            "training.batch=64",
            f"training.steps={arguments.steps}",
            "training.precision=bf16",
            "training.validate_every=1000",
            "training.grid_every=0",
        ]
        overrides += [f"data.root={arguments.root}"] if arguments.root else []
        run = train(recipe, out=path, overrides=overrides, resume=True)
        out = RESULTS / f"{number}.json"
        evaluation = evaluate(run, "mnist:train", n=arguments.n, precision="bf16", batch=250, out=out, label=label)
        evaluation.model_copy(update={"schedule": _end(run)}).write(out)
        write_table()


def write_table() -> None:
    """The table of docs/imbalance.md from the result files that are there."""
    page = ROOT / "docs" / "imbalance.md"
    rows = [_row(json.loads(file.read_text())) for file in sorted(RESULTS.glob("*.json"))]
    head = "| | terminal SNR | L_T bits/dim | ones and sevens % | all classes: χ² (p) | FD ↓ | N |\n"
    table = head + "| --- | ---: | ---: | ---: | ---: | ---: | ---: |\n" + "".join(rows)
    text = page.read_text()
    before, after = text.split("<!-- imbalance -->\n")[0], text.split("<!-- end imbalance -->")[1]
    page.write_text(f"{before}<!-- imbalance -->\n\n{table}\n<!-- end imbalance -->{after}")
    print(table)


def _end(run: Run) -> dict[str, float]:
    """How the run's schedule ends, for its own data."""
    schedule = run.denoiser().schedule
    moment = second_moment(open_images(run.recipe), run.recipe.data.range)
    T = torch.tensor(schedule.T, dtype=torch.float64)
    return {
        "terminal_snr": schedule.terminal_snr(),
        "alpha_bar": float(schedule.alpha(T)) ** 2,
        "prior_bits_per_dim": schedule.prior_bits_per_dim(moment),
    }


def _row(evaluation: dict) -> str:
    figures, end = evaluation["metrics"], evaluation["schedule"]
    counts, n = figures["class_counts"], evaluation["samples"]["count"]
    share = (counts[1] + counts[7]) / n
    error = math.sqrt(share * (1 - share) / n)
    return (
        f"| {evaluation['label']} | {end['terminal_snr']:.3g} | {end['prior_bits_per_dim']:.3g} | "
        f"{share:.1%} ± {error:.1%} | "
        f"{figures['balance_chi2']:.0f} ({figures['balance_p']:.2g}) | {figures['frechet_distance']:.2f} ± "
        f"{figures['frechet_distance_se']:.2f} | {n} |\n"
    )


if __name__ == "__main__":
    main()
