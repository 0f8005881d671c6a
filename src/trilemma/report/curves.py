"""What a run's log says of its training, as curves in SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trilemma.report.axes import Axis, draw_axes
from trilemma.report.svg import MUTED, Box, Drawing, Point

WIDE, NARROW = 820.0, 388.0
"""Pixels of a figure on a page, and on one as narrow as a telephone's."""

_MOST = 400
"""Points of a curve: more cannot be told apart, and a page stays small."""

_MANY = 60
"""Of more points than these a running mean is drawn over faint raw values."""

_TEAL = "#0b7a75"
_TOP, _HEIGHT, _FOOT = 34.0, 210.0, 50.0


@dataclass(frozen=True)
class Curve:
    """What is drawn of one key of the log: a line, and marks with standard errors where there are few points."""

    key: str
    label: str
    colour: str
    dash: str = ""
    marked: bool = False


# From clean to noisy, light to dark; told apart in grey print too.
_LOSSES = (
    Curve("loss_t1", "1st quarter of t (cleanest)", "#f0a04b"),
    Curve("loss_t2", "2nd quarter", "#d1495b"),
    Curve("loss_t3", "3rd quarter", "#7b3f8c"),
    Curve("loss_t4", "4th quarter (noisiest)", "#1f2a5a"),
    Curve("loss", "training loss, all t", "#7a848e", dash="2 2"),
    Curve("validation_loss", "validation loss", _TEAL, dash="6 3", marked=True),
)
_DISTANCE = Curve("frechet_distance", "Fréchet distance", _TEAL, marked=True)


def loss_figure(log: Sequence[Mapping[str, Any]], width: float = WIDE) -> str | None:
    """SVG of the loss by quarter of t, its mean and the validation loss against the step; None without any loss.

    log: one mapping a logged step, with `step` and any of `loss`, `loss_t1` … `loss_t4`, `validation_loss`. The loss
    axis is logarithmic unless a loss is not positive. Above 60 points a running mean is drawn over faint raw values."""
    return _figure(log, _LOSSES, "loss", width)


def progress_figure(log: Sequence[Mapping[str, Any]], width: float = WIDE) -> str | None:
    """SVG of the Fréchet distance during training, ± its standard error where there is one, against the step; None
    where the run measured none (recipe section `evaluate`)."""
    return _figure(log, [_DISTANCE], "Fréchet distance", width)


def _figure(log: Sequence[Mapping[str, Any]], curves: Sequence[Curve], what: str, width: float) -> str | None:
    series = {curve: _series(log, curve.key) for curve in curves}
    series = {curve: found for curve, found in series.items() if len(found)}
    if not series:
        return None
    everything = np.concatenate(list(series.values()))
    log_axis = bool(everything[:, 1].min() > 0)
    y = Axis.over(everything[:, 1].tolist(), _TOP + _HEIGHT, _TOP, log=log_axis, pad=0.06)
    left = 16 + 6.9 * max(map(len, y.ticks()))
    x = Axis.over(everything[:, 0].tolist(), left, width - 8, log=False, pad=0.01)
    drawing = Drawing(width)
    draw_axes(drawing, Box(left, _TOP, width - 8 - left, _HEIGHT), x, y, "training step", what)
    for curve, found in series.items():
        points = [(x.place(step), y.place(value)) for step, value, _ in found.tolist()]
        if len(points) > _MANY:
            drawing.curve(points, curve.colour, width=0.6, opacity=0.3)
            smooth = _smooth(found[:, 1], max(5, len(points) // 25)).tolist()
            points = [(at, y.place(value)) for (at, _), value in zip(points, smooth, strict=True)]
        drawing.curve(points, curve.colour, dash=curve.dash)
        if curve.marked or len(points) == 1:
            for (at, height), (_, value, error) in zip(points, found.tolist(), strict=True):
                if error and (value > error or not log_axis):
                    drawing.line((at, y.place(value - error)), (at, y.place(value + error)), curve.colour)
                drawing.circle((at, height), 2.6, curve.colour, curve.colour)
    foot = _TOP + _HEIGHT + _FOOT
    if len(curves) > 1:
        foot = _legend(drawing, list(series), (left, foot + 8))
    return drawing.finish(foot, f"{what} against the training step", ", ".join(one.label for one in series), {})


def _legend(drawing: Drawing, curves: Sequence[Curve], start: Point) -> float:
    """Rows of lines and what they are; gives the height at which they end."""
    x, y = start
    for curve in curves:
        wide = 34 + 6.9 * len(curve.label)
        if x > start[0] and x + wide > drawing.width:
            x, y = start[0], y + 20
        drawing.curve([(x, y), (x + 22, y)], curve.colour, width=2.2, dash=curve.dash)
        drawing.text((x + 28, y + 4), curve.label, size=12, colour=MUTED)
        x += wide + 10
    return y + 14


def _series(log: Sequence[Mapping[str, Any]], key: str) -> np.ndarray:
    """Steps, values and standard errors, 0 where not known; of a long log the means of its parts."""
    rows = [
        (entry["step"], entry[key], entry.get(f"{key}_se") or 0.0)
        for entry in log
        if isinstance(entry.get(key), int | float) and np.isfinite(entry[key])
    ]
    parts = np.array_split(np.array(rows, dtype=float).reshape(-1, 3), max(1, min(_MOST, len(rows))))
    return np.stack([part.mean(0) for part in parts]) if rows else np.empty((0, 3))


def _smooth(values: np.ndarray, width: int) -> np.ndarray:
    """Running mean over a centred window that shrinks at the ends."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(len(values))
    half = np.minimum(np.minimum(index, len(values) - 1 - index), width // 2)
    return (sums[index + half + 1] - sums[index - half]) / (2 * half + 1)
