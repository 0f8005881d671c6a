"""Networks of A and D on digits padded to 32×32, two seeds each, at equal steps: Fréchet distance with its spread over
seeds, parameters, and sample grids from the same noise.

    python tools/study_networks.py [--root runs/networks] [-n 500] [--only RECIPE …]

The runs are kept, an interrupted one goes on, and what is there already is not made again: an evaluation stands as long
as the recipe's network has as many parameters as it says. Writes the evaluations to results/networks/*.json and the
grid docs/images/networks.png, for which the first seed's runs have to be there. Another row of the sources' tables:
`--only mnist-rdn`, or any recipe. The times, on a machine with nothing else to do:

    trilemma network mnist-double mnist-additional-link mnist-biggan mnist-pure mnist-default mnist-mbconv64 \
        --batch 32 --json results/networks/costs.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from trilemma.evaluations import evaluate
from trilemma.jobs import train
from trilemma.jobs.network_costs import anatomy, resolve
from trilemma.report.figures import save_figure

HOME = Path(__file__).parents[1]
RESULTS = HOME / "results" / "networks"
RECIPES = ("mnist-double", "mnist-additional-link", "mnist-biggan", "mnist-pure", "mnist-default", "mnist-mbconv64")
SEEDS = (0, 1)
SAMPLER: dict[str, Any] = {"sampler": "dpmpp", "stochastic": True, "steps": 25, "spacing": "log_snr"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, default=Path("runs/networks"))
    parser.add_argument("-n", type=int, default=500)
    parser.add_argument("--only", nargs="+", default=list(RECIPES))
    arguments = parser.parse_args()
    shown: dict[str, np.ndarray] = {}
    for seed in SEEDS:
        for recipe in arguments.only:
            name = recipe.removeprefix("mnist-")
            label, out = f"{name}, seed {seed}", RESULTS / f"{name}-{seed}.json"
            stands = _stands(out, recipe)
            if not stands or seed == SEEDS[0]:
                run = train(
                    recipe, out=arguments.root / f"{recipe}-{seed}", overrides=[f"training.seed={seed}"], resume=True
                )
                if not stands:
                    evaluate(run, n=arguments.n, out=out, label=label, **SAMPLER)
                if seed == SEEDS[0]:
                    shown[name] = run.sample(20, **SAMPLER).images
            print(label, json.loads(out.read_text())["metrics"]["frechet_distance"], flush=True)
    print(save_figure(_grids(shown), HOME / "docs" / "images" / "networks.png"))


def _stands(out: Path, recipe: str) -> bool:
    """Whether `out` is an evaluation of the network that the recipe has now."""
    return out.exists() and json.loads(out.read_text())["subject"]["parameters"] == anatomy(resolve(recipe)).parameters


def _grids(shown: dict[str, np.ndarray]) -> Figure:
    """A row a network; column i is made from the same noise."""
    figure = Figure(figsize=(9, 0.47 * len(shown)), dpi=150, layout="constrained")
    for axes, (name, images) in zip(figure.subplots(len(shown), 1, squeeze=False)[:, 0], shown.items(), strict=True):
        axes.imshow(255 - np.concatenate(list(images[..., 0]), axis=1), cmap="gray", vmin=0, vmax=255)
        axes.set_yticks([images.shape[1] / 2], [name], fontsize=8)
        axes.set_xticks([])
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
    return figure


if __name__ == "__main__":
    main()
