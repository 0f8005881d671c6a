"""Learned noise and learned space on digits: bits/dim of VDM beside DDPM's and L_vlb's after as many steps of the same
network, what a learned schedule does to the loss's variance, and latent diffusion beside diffusion of pixels.

    python tools/study_learned.py [--root runs] [-n 500]

Trains digits-vdm, digits-ddpm and digits-vlb (tools/learned), digits-codec and digits-ldm in --root where they are not
there yet, each going on where it was interrupted; measures them. Writes results/learned/*.json, and to docs/images
learned-schedule.png, learned-samples.png and learned-codec.png. Some two hours on two CPU cores, most of them training.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from kept import HOME, keep

from trilemma.data import open_data, write_png
from trilemma.evaluations import evaluate
from trilemma.jobs import codec_report, nll, train
from trilemma.machine.environment import environment
from trilemma.machine.files import sha256, write_json
from trilemma.process import UNCONDITIONAL, VDM, Denoiser, Draw, image_grid, perturb, to_model
from trilemma.report.schedules import schedule_figure
from trilemma.runs import Run, example

RECIPES: dict[str, str | Path] = {
    "digits-vdm": "digits-vdm",
    "digits-ddpm": HOME / "tools" / "learned" / "digits-ddpm.yaml",
    "digits-vlb": HOME / "tools" / "learned" / "digits-vlb.yaml",
    "digits-codec": "digits-codec",
    "digits-ldm": "digits-ldm",
}
BOUNDS: dict[str, tuple[str, dict[str, Any]]] = {
    "vdm-continuous": ("digits-vdm", {"draws": 128}),
    "vdm-1000": ("digits-vdm", {"steps": 1001}),
    "vdm-100": ("digits-vdm", {"steps": 101}),
    "ddpm": ("digits-ddpm", {}),
    "vlb": ("digits-vlb", {}),
    "ldm": ("digits-ldm", {}),
}
"""Bounds by name: whose, and how many steps. VDM's T steps lead to x at t_min; the last interval decodes it."""

BOUNDED = 200
"""Images of the bounds: 1 000 steps are as many evaluations of each."""


def _ddim(steps: int) -> dict[str, Any]:
    return {"sampler": "ddim", "steps": steps}


METRICS = ("frechet_distance", "precision", "recall", "balance_kl", "network_evaluations", "multiply_adds")
WAYS: dict[str, tuple[str, int | None, str, dict[str, Any]]] = {
    **{f"pixels-{k}": ("digits-ddpm", None, f"pixels, DDIM, {k} steps", _ddim(k)) for k in (10, 20, 50)},
    **{f"latents-{k}": ("digits-ldm", None, f"latents, DDIM, {k} steps", _ddim(k)) for k in (10, 20, 50)},
    "latents-1500": ("digits-ldm", 1500, "latents after 1 500 training steps, DDIM, 20 steps", _ddim(20)),
    "vdm": ("digits-vdm", None, "VDM, ancestral, 128 steps", {"sampler": "ancestral", "steps": 128}),
    "vdm-log-snr": (
        "digits-vdm", None, "VDM, ancestral, 128 steps even in log SNR",
        {"sampler": "ancestral", "steps": 128, "spacing": "log_snr"},
    ),
}  # fmt: skip
"""Ways to sample by name: whose, at which training step if not the last, and how."""

RESULTS = HOME / "results" / "learned"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path("runs"))
    parser.add_argument("-n", type=int, default=500)
    arguments = parser.parse_args()
    kept = ["training.keep=5", "training.checkpoint_every=500"]  # digits-ldm is measured on its way
    runs = {
        name: train(recipe, out=arguments.root / name, resume=True, overrides=kept if name == "digits-ldm" else ())
        for name, recipe in RECIPES.items()
    }
    for name, (whose, how) in BOUNDS.items():
        found = bound(runs[whose], RESULTS / "bounds" / f"{name}.json", **how)
        total = found["bits_per_dim"]["total"]
        print(f"{name}: {total['mean']:.4f} ± {total['standard_error']:.4f} bits/dim", flush=True)
    print(json.dumps(write_variance(runs["digits-vdm"], arguments.n), indent=1), flush=True)
    report = codec_report(
        runs["digits-codec"], "mnist5k:test", n=arguments.n, out=RESULTS / "codec.json",
        picture=HOME / "docs" / "images" / "learned-codec.png",
    )  # fmt: skip
    print(json.dumps(report["reconstruction"]), flush=True)
    for name, (whose, step, label, how) in WAYS.items():
        shared = {"precision": "bf16", "batch": 100}
        measured = evaluate(
            Run(runs[whose].path, step), "mnist5k:train", n=arguments.n, metrics=METRICS, **{**shared, **how}
        )
        keep(measured, "learned/ways", name, label, METRICS)
    pictures(runs)


def bound(run: Run, place: Path, **how: Any) -> dict[str, Any]:
    """The bound of a run on held-out digits, as it was written, if by these weights of as many images."""
    if place.exists():
        kept: dict[str, Any] = json.loads(place.read_text())
        same = kept["subject"]["weights_sha256"] == sha256(run.weights_file("ema"))
        if same and kept["reference"]["used"] == BOUNDED:
            return kept
    return nll(run, "mnist5k:test", n=BOUNDED, out=place, **how)


def write_variance(run: Run, n: int, draws: int = 16) -> dict[str, Any]:
    """The variance of the diffusion term of one image at one time, over images, times and noise, under the schedule
    that was learned, and under a straight line between its ends: the network, which is fed γ, is the same."""
    denoiser = run.denoiser()
    learned = denoiser.schedule
    first, last = map(float, learned.ends())
    straight = Denoiser(denoiser.network, Told(learned, first, last), denoiser.parameterization, denoiser.variance_name)
    data = open_data("mnist5k", split="test")
    x0 = to_model(data.batch(range(min(n, len(data))))[0])
    found: dict[str, Any] = {"gamma": [first, last], "images": len(x0), "draws": draws}
    parts = {}
    for name, each in (("learned", denoiser), ("linear", straight)):
        terms = torch.stack([_terms(each, x0, k) for k in range(draws)])
        parts[name] = terms.var(1)
        found[name] = {"mean": float(terms.mean()), "variance": float(parts[name].mean())}
    ratios = parts["learned"] / parts["linear"]
    found["ratio"] = found["learned"]["variance"] / found["linear"]["variance"]
    found["standard_error"] = float(ratios.std()) / math.sqrt(draws)
    found["environment"] = environment(torch.device("cpu"))
    write_json(RESULTS / "variance.json", found)
    return {key: found[key] for key in ("gamma", "learned", "linear", "ratio", "standard_error")}


class Told(VDM):
    """A straight line between these ends, told to the network as a learned schedule tells it."""

    def __init__(self, learned: Any, first: float, last: float):
        super().__init__(inside="linear", ends="fixed", gamma_min=first, gamma_max=last)
        self.like = learned

    def network_time(self, t: torch.Tensor) -> torch.Tensor:
        """The learned schedule's word for the γ of this time."""
        return 1000.0 * (self.gamma(t) - self.like.first) / (self.like.last - self.like.first)


@torch.inference_mode()
def _terms(denoiser: Denoiser, x0: torch.Tensor, draw_number: int) -> torch.Tensor:
    """½ γ'(t) ‖ε − ε̂‖² in bits/dim, each image at a time of its own."""
    draw, schedule = Draw((i, f"variance {draw_number}") for i in range(len(x0))), denoiser.schedule
    t = schedule.t_min + (schedule.T - schedule.t_min) * (1 - draw.uniform())
    eps = draw.normal(x0)
    error = (eps - denoiser(perturb(schedule, x0, t, eps), t, UNCONDITIONAL).eps).square().flatten(1).mean(1)
    return 0.5 * schedule.slope(t) * error.double() / math.log(2)


def pictures(runs: dict[str, Run]) -> None:
    """The learned schedule beside the straight line it began as; samples of VDM and of latents."""
    image, _ = example("mnist5k")
    schedules = {"learned": runs["digits-vdm"].denoiser().schedule, "as it began": VDM(inside="linear", ends="fixed")}
    folder = HOME / "docs" / "images"
    print(schedule_figure(schedules, image, folder / "learned-schedule.png"))
    ways: dict[str, dict[str, Any]] = {
        "digits-vdm": {"sampler": "ancestral", "steps": 128},
        "digits-ldm": {"sampler": "ddim", "steps": 50},
    }
    rows = [runs[name].sample(20, precision="bf16", **how).images for name, how in ways.items()]
    print(write_png(folder / "learned-samples.png", image_grid(np.concatenate(rows), 20)))


if __name__ == "__main__":
    main()
