"""Where a figure of a training's log is going: falling, level or rising, by a slope with its standard error."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy.stats import norm, t

from trilemma.evaluations.judge import LIMIT
from trilemma.metrics.metric import number

FEWEST = 4
"""Points that a parabola and an error of its slope take."""


MATERIAL = 0.005
"""The share of a figure that it has to change by, over the points looked at, to be said to be going anywhere: smooth
noise drifts by less, however far beyond its errors."""


@dataclass(frozen=True)
class Trend:
    """`slope` per 1 000 steps and its standard `error`, as shares of the figure's mean, over the last `points` that
    were logged, from step `since` on. `lowest`: the step with the lowest figure of all, that is `low`. `outcome`: what
    the slope says, level below `LIMIT` errors or where it comes to less than `MATERIAL`."""

    outcome: Literal["falling", "level", "rising"]
    slope: float
    error: float
    since: int
    points: int
    lowest: int
    low: float


def series(log: Sequence[Mapping[str, Any]], key: str) -> tuple[list[float], list[float]]:
    """The steps at which a log has the figure, finite, and the figures."""
    both = ((number(line.get("step")), number(line.get(key))) for line in log)
    pairs = [(step, value) for step, value in both if step is not None and value is not None]
    return [step for step, _ in pairs], [value for _, value in pairs]


def trend(log: Sequence[Mapping[str, Any]], key: str) -> Trend | None:
    """Where a positive figure is going in the last third of the log, or in the last `FEWEST` points if these are more
    and lie in its second half; None where there are not so many.

    The slope is the mean one of a parabola through the points, so that a fall that slows down is no noise. Its error is
    of the residuals: neighbours that are alike count for less (r their correlation, (1 + r)/(1 − r) times the variance;
    Santer et al. 2000, eq 6), and it is widened as Student's t is for few points, so that independent noise around a
    level is `LIMIT` errors or more from it as seldom as a normal figure is. Smooth noise, over few points, is so more
    often; hence `MATERIAL`."""
    steps, values = (np.array(one) for one in series(log, key))
    recent = steps > 2 / 3 * steps[-1] if len(steps) else np.zeros(0, dtype=bool)
    if recent.sum() < FEWEST:
        if len(steps) < FEWEST or steps[-FEWEST] < steps[-1] / 2:
            return None
        recent = np.arange(len(steps)) >= len(steps) - FEWEST
    x, y = steps[recent], values[recent]
    mean, half = float(y.mean()), (x[-1] - x[0]) / 2
    if mean <= 0 or half <= 0:
        return None
    u = (x - x[0]) / half - 1
    powers = np.stack([np.ones_like(u), u, u * u], axis=1)  # u² is even: the second coefficient is the mean slope
    fitted, *_ = np.linalg.lstsq(powers, y - mean, rcond=None)
    left = y - mean - powers @ fitted
    freedom, squares = len(x) - powers.shape[1], float(left @ left)
    alike = max(0.0, float(left[1:] @ left[:-1]) / squares) if squares else 0.0
    variance = squares / freedom * (1 + alike) / (1 - alike) * np.linalg.inv(powers.T @ powers)[1, 1]
    unit = 1000 / half / mean
    slope = float(fitted[1] * unit)
    error = float(math.sqrt(variance) * unit * t.isf(norm.sf(LIMIT), freedom) / LIMIT)
    outcome: Literal["falling", "level", "rising"] = "falling" if slope < 0 else "rising"
    lowest = int(values.argmin())
    return Trend(
        "level" if abs(slope) < max(LIMIT * error, MATERIAL * 500 / half) or not slope else outcome,
        slope, error, int(x[0]), len(x), int(steps[lowest]), float(values[lowest]),
    )  # fmt: skip
