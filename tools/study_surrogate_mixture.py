"""What a surrogate that misses a mode gives back of it, on a mixture of two modes whose denoiser is exact.

    python -m tools.study_surrogate_mixture [-n 4000]

Begins from a surrogate that knows one mode, at every t_mid, by ancestral sampling and two solvers of the ODE, and
counts the other mode. The exact models are the tests'. Writes results/surrogate-mixture.json and the figure
docs/images/surrogate-mixture.png. Seconds of CPU.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from tests.exact import Mixture
from tests.proofs.models import Exact, line, number, regained
from trilemma.machine.files import write_json
from trilemma.process import Linear, to_uint8
from trilemma.recipes import parse_sampling
from trilemma.report.figures import save_figure
from trilemma.report.schedules import COLOURS
from trilemma.samplers import Finished, Surrogate

HOME = Path(__file__).parents[1]
T = 200
SCHEDULE = Linear(steps=T, beta_start=5e-4, beta_end=0.1)
"""That of digits-200."""
DATA = line([0.3, 0.7], [-0.5, 0.45], [0.01, 0.015])
KNOWN = 1
WAYS: dict[str, dict[str, Any]] = {
    "ancestral": {"sampler": "ancestral"},
    "DDIM": {"sampler": "ddim"},
    "DPM-Solver++ 2M, 20 steps": {"sampler": "dpmpp", "steps": 20, "spacing": "log_snr"},
}
TIMES = [0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 125, 150, 200]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=4000)
    n = parser.parse_args().n
    one = Mixture(DATA.weights[[KNOWN]] / DATA.weights[KNOWN], DATA.means[[KNOWN]], DATA.variances[[KNOWN]])
    held = to_uint8(one.sample(n).float())
    stage = Finished(lambda seeds, _: held[list(seeds)], (1, 1, 1), "one mode")
    between = float(DATA.means.mean())
    curves: dict[str, list[dict[str, float]]] = {}
    for name, way in WAYS.items():
        settings = parse_sampling({"clip": "none", **way})
        for t_mid in TIMES:
            begun = Surrogate(stage, t_mid, {"name": "one mode"})
            *_, step = settings.build(Exact(DATA, SCHEDULE), (1, 1, 1), begun).walk(range(n))
            share = float((step.x < between).double().mean())
            point = {"t_mid": t_mid, "share": share, "share_se": (share * (1 - share) / n) ** 0.5}
            curves.setdefault(name, []).append(point)
        print(name, [point["share"] for point in curves[name]], flush=True)
    exact = {name: [expected(t, flow) for t in TIMES] for name, flow in (("process", False), ("flow", True))}
    data = {key: getattr(DATA, key).flatten().tolist() for key in ("weights", "means", "variances")}
    made = {"data": data, "known": KNOWN, "schedule": repr(SCHEDULE), "seeds": n, "t_mid": TIMES}
    write_json(HOME / "results" / "surrogate-mixture.json", {**made, "exact": exact, "measured": curves})
    print(save_figure(figure(curves), HOME / "docs" / "images" / "surrogate-mixture.png"))


def expected(t: float, flow: bool) -> float:
    """The missing mode's share by the exact reverse process, or its flow."""
    alpha, sigma = (float(level(number(t))) for level in (SCHEDULE.alpha, SCHEDULE.sigma))
    return regained(DATA, KNOWN, alpha, sigma, flow=flow)


def figure(curves: dict[str, list[dict[str, float]]]) -> Figure:
    """The missing mode's share against t_mid: lines exact, points measured; bars are standard errors."""
    found = Figure(figsize=(6, 3.6), dpi=130, layout="constrained")
    axes = found.subplots()
    fine = [float(t) for t in range(T + 1)]
    for flow, words, colour in ((False, "exact process", COLOURS[0]), (True, "exact flow", COLOURS[1])):
        axes.plot(fine, [expected(t, flow) for t in fine], color=colour, lw=1.3, label=words)
    axes.axhline(float(DATA.weights[1 - KNOWN]), color="0.6", lw=1, ls=":")
    axes.text(0, float(DATA.weights[1 - KNOWN]) + 0.004, "in the data", color="0.4", size=8)
    for (name, points), colour, (mark, size) in zip(
        curves.items(), COLOURS, (("o", 4.5), ("s", 8), ("D", 4)), strict=False
    ):
        axes.errorbar(
            [point["t_mid"] for point in points],
            [point["share"] for point in points],
            [point["share_se"] for point in points],
            label=name, color=colour, marker=mark, ms=size, mfc="none" if mark == "s" else colour, ls="", capsize=2,
        )  # fmt: skip
    axes.set(xlabel="t_mid", ylabel="share of the mode that the surrogate misses", ylim=(-0.01, 0.34))
    axes.yaxis.label.set_size(9)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    return found


if __name__ == "__main__":
    main()
