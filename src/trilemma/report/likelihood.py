"""The bound's terms against t, as a picture, and a likelihood as a table."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich import box
from rich.table import Table

from trilemma.report.figures import save_figure
from trilemma.report.tables import DASH

WORDS = {
    "distortion": "−log₂ p(x | z), the codec's decoder",
    "prior": "L_T   what of x_T is not noise",
    "sum": "ΣL_t  the reverse steps",
    "decoder": "L_0   the decoder",
    "entropy": "less the entropy of q(z | x), the codec's encoder",
    "total": "total, a bound on −log₂ p",
    "ode": "−log₂ p by the probability-flow ODE",
}

LATENTS = {
    "prior": "L_T   what of z_T is not noise",
    "decoder": "L_0   the density of z at the end",
    "total": "total, a bound on −log₂ p(x) by codec and model",
}
"""The words of a model of latents, whose bound is of the images all the same."""

CONTINUOUS = {"sum": "∫L_t  the diffusion, in continuous time", "decoder": "L_0   the decoder of the nearest levels"}
"""The words of a bound that has no steps."""


def likelihood_table(result: Mapping[str, Any]) -> Table:
    """L_T, ΣL_t, L_0, their total, and the ODE's value if it was computed, with standard errors over images."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for head in ("", "bits/dim", "± standard error"):
        table.add_column(head, justify="left" if not head else "right")
    coded = "distortion" in result["bits_per_dim"]
    words_of = WORDS | (CONTINUOUS if result["grid"]["steps"] is None else {}) | (LATENTS if coded else {})
    last = "entropy" if coded else "decoder"
    for key, words in words_of.items():
        if key in result["bits_per_dim"]:
            figure = result["bits_per_dim"][key]
            cells = (DASH if value is None else f"{value:.4f}" for value in (figure["mean"], figure["standard_error"]))
            table.add_row(words, *cells, end_section=key == last)
    return table


def likelihood_figure(result: Mapping[str, Any], out: Path) -> Path:
    """Write a PNG of every L_t against t, both logarithmic, with its standard error; in continuous time of the
    integrand, against how far on the way it is."""
    terms, steps = result["terms"], result["grid"]["steps"]
    t, mean, error = (np.array(terms[key], dtype=float) for key in ("t", "mean", "standard_error"))
    figure = Figure(figsize=(6.4, 3.6), dpi=150, layout="constrained")
    axes = figure.subplots()
    if steps is None:  # each the integral over its part of the times
        mean, error = mean[:-1] * (len(t) - 1), error[:-1] * (len(t) - 1)
        t = (np.arange(len(mean))[::-1] + 0.5) / len(mean)
    good = mean > 0
    axes.fill_between(t[good], np.maximum(mean - error, 1e-9)[good], (mean + error)[good], alpha=0.25, lw=0)
    axes.plot(t[good], mean[good], lw=1.2)
    if steps is None:
        axes.set(yscale="log", xlabel="share of the way from x_0 to x_T", ylabel="½ γ' E‖ε − ε̂‖² (bits/dim)")
    else:
        axes.plot(t[-1], mean[-1], "o", ms=4, color="#c1502e", label="L_0, the decoder")
        axes.set(xscale="log", yscale="log", xlabel="t", ylabel="term of the bound (bits/dim)")
        axes.legend(frameon=False)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    return save_figure(figure, out)
