"""The axes of a drawing: where values lie, ticks, grid and titles."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.ticker import MaxNLocator

from trilemma.report.svg import MUTED, Box, Drawing

_GRID, _RULE = "#e6eaee", "#aab3bc"


@dataclass(frozen=True)
class Axis:
    """From `low` to `high`, log10 of the values on a logarithmic one, which lie at the pixels `start` and `end`."""

    low: float
    high: float
    start: float
    end: float
    log: bool

    @staticmethod
    def over(values: Sequence[float], start: float, end: float, *, log: bool, pad: float = 0.16) -> Axis:
        """An axis with room for marks around the values, `pad` of their range at each end."""
        scaled = [math.log10(v) if log else v for v in values]
        low, high = min(scaled), max(scaled)
        room = pad * (high - low) or (0.3 if log else 0.1 * abs(high) or 1.0)
        return Axis(low - room, high + room, start, end, log)

    def place(self, value: float) -> float:
        """The pixel of a value."""
        scaled = math.log10(value) if self.log else value
        return self.start + (self.end - self.start) * (scaled - self.low) / (self.high - self.low)

    def ticks(self) -> dict[str, float]:
        """Words and pixels; on a logarithmic axis at 1, 2 and 5 of each decade, at 1 alone where that would be many."""
        values: list[float] = []
        low, high = self.low, self.high
        if self.log:
            leads = (1, 2, 5) if high - low < 3 else (1,)
            values = [lead * 10.0**decade for decade in range(math.floor(low), math.ceil(high) + 1) for lead in leads]
            values = [value for value in values if low <= math.log10(value) <= high]
            low, high = 10**low, 10**high
        if len(values) < 3:
            values = [float(v) for v in MaxNLocator(7, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)]
            values = [value for value in values if low <= value <= high and (value > 0 or not self.log)]
        return {f"{value:,.6g}".replace(",", " "): self.place(value) for value in values}


def draw_axes(drawing: Drawing, frame: Box, x: Axis, y: Axis, across: str, up: str) -> None:
    """Grid, axes and ticks; the y axis's title above, the x axis's 38 pixels below."""
    base, right = frame.y + frame.height, frame.x + frame.width
    for text, at in y.ticks().items():
        drawing.line((frame.x, at), (right, at), _GRID)
        drawing.text((frame.x - 7, at + 4), text, size=12, colour=MUTED, anchor="end")
    for text, at in x.ticks().items():
        drawing.line((at, frame.y), (at, base + 4), _GRID)
        drawing.text((at, base + 19), text, size=12, colour=MUTED, anchor="middle")
    drawing.line((frame.x, frame.y), (frame.x, base), _RULE)
    drawing.line((frame.x, base), (right, base), _RULE)
    drawing.text((right, base + 38), across, size=12.5, colour=MUTED, anchor="end")
    drawing.text((0, frame.y - 20), up, size=12.5, colour=MUTED)
