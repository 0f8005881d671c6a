"""Curves over training as SVG, for a wide page and a narrow one, and how figures are saved."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from trilemma.machine.files import replacing

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: small files, and it can be searched and copied from paper
    "svg.hashsalt": "trilemma",  # the same figures give the same bytes
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "axes.edgecolor": "#aab3bc",
    "axes.labelcolor": "#5c6773",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6eaee",
    "xtick.color": "#5c6773",
    "ytick.color": "#5c6773",
    "text.color": "#1b2430",
}
# From clean to noisy, light to dark; told apart in grey print too.
_QUARTERS = {
    "loss_t1": ("#f0a04b", "1st quarter of t (cleanest)"),
    "loss_t2": ("#d1495b", "2nd quarter"),
    "loss_t3": ("#7b3f8c", "3rd quarter"),
    "loss_t4": ("#1f2a5a", "4th quarter (noisiest)"),
}


WIDE, NARROW = 9.4, 4.04
"""Inches of a figure on a page, and on one as narrow as a telephone's."""
_MOST = 400
"""Points of a curve: more cannot be told apart."""


def svg_text(figure: Figure) -> str:
    """SVG text of a figure, with the reader's own interface font instead of Matplotlib's."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    for quoted in ("'DejaVu Sans'", "&quot;DejaVu Sans&quot;"):
        text = text.replace(quoted, "system-ui, 'Segoe UI', Roboto, Helvetica, Arial, sans-serif")
    return text


def save_figure(figure: Figure, out: Path) -> Path:
    """Write a figure as a PNG, whole or not at all. Raises InputError where that cannot be done."""
    with replacing(out) as partial:
        figure.savefig(partial, format="png")
    return out


def svg_uri(svg: str) -> str:
    """A data URI of an SVG image."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()


def _series(log: Sequence[Mapping[str, Any]], key: str) -> tuple[list[float], list[float]]:
    pairs = [
        (float(entry["step"]), float(entry[key]))
        for entry in log
        if isinstance(entry.get(key), int | float) and np.isfinite(entry[key])
    ]
    if not pairs:
        return [], []
    # Of a long log each point is the mean of its part, so that the page stays small.
    parts = np.array_split(np.array(pairs), min(_MOST, len(pairs)))
    steps, values = np.stack([part.mean(0) for part in parts]).T
    return [float(step) for step in steps], [float(value) for value in values]


def _smooth(values: Sequence[float], width: int) -> np.ndarray:
    """Running mean over a centred window that shrinks at the ends."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(len(values))
    half = np.minimum(np.minimum(index, len(values) - 1 - index), width // 2)
    return (sums[index + half + 1] - sums[index - half]) / (2 * half + 1)


def loss_figure(log: Sequence[Mapping[str, Any]], width: float = WIDE) -> str | None:
    """SVG of the loss by quarter of t, its mean and the validation loss against the step; None without any loss.

    log: one mapping a logged step, with `step` and any of `loss`, `loss_t1` … `loss_t4`, `validation_loss`. The loss
    axis is logarithmic unless a loss is not positive. Above 60 points a running mean is drawn over faint raw values."""
    drawn = {key: _series(log, key) for key in (*_QUARTERS, "loss", "validation_loss")}
    drawn = {key: pair for key, pair in drawn.items() if pair[0]}
    if not drawn:
        return None
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, 3.7), layout="constrained")
        axes = figure.add_subplot()
        for key, (steps, values) in drawn.items():
            if key == "validation_loss":
                axes.plot(steps, values, "o--", color="#0b7a75", ms=4, lw=1, label="validation loss", zorder=5)
                continue
            colour, label = _QUARTERS.get(key, ("#8a949e", "training loss, all t"))
            style = "-" if key in _QUARTERS else (0, (1, 1.2))
            if len(values) > 60:
                axes.plot(steps, values, color=colour, lw=0.6, alpha=0.25)
                values = list(_smooth(values, max(5, len(values) // 25)))
            mark = "o" if len(values) == 1 else None
            axes.plot(steps, values, ls=style, marker=mark, color=colour, lw=1.7, label=label)
        _against_steps(axes, "loss", [value for _, values in drawn.values() for value in values])
        if width > NARROW:
            axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
        else:
            figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=8.5, handlelength=1.6)
        return svg_text(figure)


def progress_figure(log: Sequence[Mapping[str, Any]], width: float = WIDE) -> str | None:
    """SVG of the Fréchet distance during training, ± its standard error where there is one, against the step; None
    where the run measured none (recipe section `evaluate`)."""
    points = [
        (line["step"], line["frechet_distance"], line.get("frechet_distance_se") or 0.0)
        for line in log
        if line.get("frechet_distance") is not None
    ]
    if not points:
        return None
    steps, distances, errors = zip(*points, strict=True)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, 2.6), layout="constrained")
        axes = figure.add_subplot()
        axes.errorbar(steps, distances, errors, fmt="o-", color="#0b7a75", ms=4, lw=1.4, capsize=2)
        _against_steps(axes, "Fréchet distance", distances)
        return svg_text(figure)


def _against_steps(axes: Axes, what: str, values: Sequence[float]) -> None:
    """Axes of what is followed over training; the values' is logarithmic where all are positive."""
    if min(values) > 0:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        low, high = axes.get_ylim()
        # Minor ticks are written out only where few decades would leave the axis nearly bare.
        axes.yaxis.set_minor_formatter("{x:.2g}" if high / low < 12 else "")
    axes.set_xlabel("training step")
    axes.set_ylabel(what)
    axes.margins(x=0.01)
