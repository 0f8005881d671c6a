"""Figures that stand still: losses and class balance as SVG, and pictures put together from samples and strips."""

from __future__ import annotations

import base64
import io
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from jaxtyping import Int64, UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from trilemma.machine.files import replacing
from trilemma.process import image_grid

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


def png_uri(image: UInt8[np.ndarray, "h w c"]) -> str:
    """A data URI of a PNG of an image with 1 or 3 channels."""
    buffer = io.BytesIO()
    Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _series(log: Sequence[Mapping[str, Any]], key: str) -> tuple[list[float], list[float]]:
    pairs = [
        (float(entry["step"]), float(entry[key]))
        for entry in log
        if isinstance(entry.get(key), int | float) and np.isfinite(entry[key])
    ]
    return [step for step, _ in pairs], [value for _, value in pairs]


def _smooth(values: Sequence[float], width: int) -> np.ndarray:
    """Running mean over a centred window that shrinks at the ends."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(len(values))
    half = np.minimum(np.minimum(index, len(values) - 1 - index), width // 2)
    return (sums[index + half + 1] - sums[index - half]) / (2 * half + 1)


def loss_figure(log: Sequence[Mapping[str, Any]]) -> str | None:
    """SVG of the loss by quarter of t, its mean and the validation loss against the step; None without any loss.

    log: one mapping a logged step, with `step` and any of `loss`, `loss_t1` … `loss_t4`, `validation_loss`. The loss
    axis is logarithmic unless a loss is not positive. Above 60 points a running mean is drawn over faint raw values."""
    drawn = {key: _series(log, key) for key in (*_QUARTERS, "loss", "validation_loss")}
    drawn = {key: pair for key, pair in drawn.items() if pair[0]}
    if not drawn:
        return None
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.4, 3.7), layout="constrained")
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
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
        return svg_text(figure)


def progress_figure(log: Sequence[Mapping[str, Any]]) -> str | None:
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
        figure = Figure(figsize=(9.4, 2.6), layout="constrained")
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


def balance_figure(
    counts: Mapping[str, Sequence[float]], *, even: bool = True, yardsticks: Collection[str] = ()
) -> str | None:
    """SVG of how many samples a classifier puts in each class, one panel a way of sampling; None without counts.

    counts: a way's label -> images in each class. even: a line marks the even share, where classes were asked for
    evenly. yardsticks: labels of real images, drawn in grey."""
    shown = {label: np.asarray(values, dtype=float) for label, values in counts.items() if len(values)}
    if not shown:
        return None
    across = min(4, len(shown))
    down = -(-len(shown) // across)
    with mpl.rc_context({**STYLE, "axes.grid.axis": "y"}):
        figure = Figure(figsize=(9.4, 0.25 + 2.1 * down), layout="constrained")
        panels = figure.subplots(down, across, sharey=True, squeeze=False)
        for panel in panels.flat[len(shown) :]:
            panel.set_axis_off()
        for panel, (label, values) in zip(panels.flat, shown.items(), strict=False):
            share = 100 * values / max(values.sum(), 1)
            panel.bar(np.arange(len(values)), share, color="#8a949e" if label in yardsticks else "#2a788e", width=0.78)
            if even:
                panel.axhline(100 / len(values), color="#b3541e", lw=1.3, ls=(0, (5, 3)))
            room = 108 // across
            title = label if len(label) <= room else f"{label[: room - 1]}…"
            panel.set_title(title, fontsize=10, loc="left", parse_math=False)
            panel.set_xticks(
                np.arange(len(values)) if len(values) <= 20 else np.linspace(0, len(values) - 1, 6).round()
            )
            panel.tick_params(length=0)
        for panel in panels[:, 0]:
            panel.set_ylabel("share of images, %")
        return svg_text(figure)


def tile(images: UInt8[np.ndarray, "rows columns h w c"], *, gap: int = 2) -> UInt8[np.ndarray, "h w c"]:
    """One picture of a table of images, each in the middle of a cell `gap` pixels larger than itself."""
    rows, columns, height, width = images.shape[:4]
    grid = image_grid(images.reshape(rows * columns, *images.shape[2:]), columns, padding=gap)
    # Half of the outer padding goes, so that equal columns of labels beside the picture line up with its cells.
    start = gap - gap // 2
    return grid[start : start + rows * (height + gap), start : start + columns * (width + gap)]


def by_class(
    images: UInt8[np.ndarray, "n h w c"], labels: Int64[np.ndarray, " n"], *, columns: int, most: int = 20
) -> tuple[UInt8[np.ndarray, "rows columns h w c"], list[int]]:
    """The first `columns` images of each class, in their order, and the classes; at most `most` classes, the first.

    A class with fewer images is filled up with white ones. Raises ValueError where labels and images differ in number.
    """
    if len(images) != len(labels):
        raise ValueError(f"{len(images)} images, but {len(labels)} labels")
    classes = [int(label) for label in np.unique(labels)[:most]]
    table = np.full((len(classes), columns, *images.shape[1:]), 255, dtype=np.uint8)
    for row, label in enumerate(classes):
        found = images[labels == label][:columns]
        table[row, : len(found)] = found
    return table, classes


def thin_strip(
    images: UInt8[np.ndarray, "rows steps h w c"], times: Sequence[float], *, most: int
) -> tuple[UInt8[np.ndarray, "rows steps h w c"], list[float]]:
    """A strip of at most `most` steps, evenly chosen, both ends kept."""
    steps = images.shape[1]
    chosen = np.unique(np.linspace(0, steps - 1, min(most, steps)).round().astype(int))
    return images[:, chosen], [float(times[i]) for i in chosen]
