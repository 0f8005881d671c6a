"""The trilemma chart: quality against speed, coverage as size and colour. As SVG, for a wide page and a narrow one."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import matplotlib as mpl
from matplotlib.colors import to_hex

from trilemma.metrics import METRICS
from trilemma.report.axes import Axis, draw_axes
from trilemma.report.labels import HEIGHT, Label, leads, place_labels
from trilemma.report.svg import INK, MUTED, Box, Drawing, Point
from trilemma.report.tables import Row, Table
from trilemma.report.verdict import deciding_column

_YARD = "#b3541e"
_CHAR = 6.9
"""Pixels of a character of a label, on average."""
_LONGEST = 60
_TOP, _BOTTOM = 34, 84
_NEAR = 40
"""Pixels between a point and its name, at most: farther away it is not seen whose name it is."""
_CROWD = 12
"""Of more points than these the marks are smaller."""


@dataclass(frozen=True)
class Layout:
    """How large the chart is, in pixels."""

    width: float
    height: float
    radius: float
    growth: float
    """A mark's radius without recall, and by how much recall 1 makes it larger."""


# 680 pixels are what an A4 or Letter page holds between its margins, 388 what a telephone shows.
WIDE, NARROW = Layout(680, 460, 6, 10), Layout(388, 440, 5, 7)


@dataclass(frozen=True)
class Chart:
    """The drawing as SVG text, the names by the numbers beside the marks, where there was no room for the names, and
    whether a line for real images is drawn."""

    svg: str
    key: dict[int, str]
    real: bool


def _drawn(table: Table, speed: str) -> list[Row]:
    quality, column = deciding_column(table, "quality"), table.column(speed)
    if quality is None or column is None:
        return []
    fast = [row for row in table.comparable(column) if (row.cells[speed].value or 0) > 0]
    return [row for row in fast if row in table.comparable(quality)]


def left_out(table: Table) -> list[str]:
    """Labels of the model rows that the chart can't show beside the others."""
    drawn = _drawn(table, "images_per_second")
    return [row.label for row in table.models if row not in drawn]


def trilemma_chart(
    table: Table,
    speed: str = "images_per_second",
    front: Collection[Row] | None = None,
    layout: Layout = WIDE,
) -> Chart | None:
    """Quality (better upwards) against images a second, or another measure of `speed` (log axis, faster to the right),
    recall as size and colour (small and white where it is missing), each point named, or numbered where names have no
    room, yardsticks as lines. With a `front` its rows alone are named and ringed, the others faint. None where no model
    has comparable figures of both quality and speed."""
    rows, quality = _drawn(table, speed), deciding_column(table, "quality")
    if not rows or quality is None:
        return None
    name, scale = quality.metric.name, quality.metric.scale
    heights = [scale * (row.cells[name].value or 0.0) for row in rows]
    speeds = [row.cells[speed].value or 0.0 for row in rows]
    yards = {
        f"{row.label}: {quality.text(row.cells[name])}": scale * (row.cells[name].value or 0.0)
        for row in table.yardsticks
        if row.cells[name].comparable
    }
    seen = [*heights, *yards.values()]
    log = min(seen) > 0 and max(seen) / min(seen) > 20
    ends = (float(_TOP), layout.height - _BOTTOM)
    y = Axis.over(seen, *(ends if quality.metric.better == "lower" else ends[::-1]), log=log)
    ends = (16 + _CHAR * max(map(len, y.ticks())), layout.width - 8)
    x = Axis.over(speeds, *(ends[::-1] if METRICS[speed].better == "lower" else ends), log=True)
    frame = Box(ends[0], _TOP, ends[1] - ends[0], layout.height - _BOTTOM - _TOP)

    drawing = Drawing(layout.width)
    unit = f", {quality.unit}" if quality.unit else ""
    across = f"{METRICS[speed].title.replace('/s', ' per second')} (right is faster)"
    draw_axes(drawing, frame, x, y, across, f"{quality.title}{unit} (up is better)")
    taken = _yardsticks(drawing, frame, yards, y)

    marks = _Marks.of(rows, layout)
    points = [(x.place(a), y.place(b)) for a, b in zip(speeds, heights, strict=True)]
    named = [i for i, row in enumerate(rows) if front is None or row in front]
    for i in sorted(range(len(rows)), key=lambda i: (i in named, -marks.radii[i])):  # the small lie above the large
        look = {"width": 2.0 if front is not None and i in named else 1.0, "opacity": 1.0 if i in named else 0.45}
        with drawing.group(_hint(rows[i], table), way=table.rows.index(rows[i]) + 1):
            drawing.circle(points[i], marks.radii[i], marks.colours[i], INK, **look)

    taken += [
        Box(points[i][0] - marks.radii[i], points[i][1] - marks.radii[i], 2 * marks.radii[i], 2 * marks.radii[i])
        for i in range(len(rows))
        if i not in named
    ]
    numbers = {i: table.rows.index(rows[i]) + 1 for i in named}
    words = {i: _short(rows[i].label) for i in named}
    at, radii = [points[i] for i in named], [marks.radii[i] for i in named]
    labels = place_labels(at, radii, [_width(words[i]) for i in named], frame, taken, reach=_NEAR)
    key: dict[int, str] = {}
    if not all(label.free for label in labels):
        key = {number: rows[i].label for i, number in numbers.items()}
        words = {i: str(number) for i, number in numbers.items()}
        labels = place_labels(at, radii, [_width(words[i]) for i in named], frame, taken)
    for i, label in zip(named, labels, strict=True):
        _label(drawing, points[i], marks.radii[i], label, words[i], table.rows.index(rows[i]) + 1)
    marks.legend(drawing, layout)
    said = f"{len(rows)} marks; each shows its figures under a pointer, and the table holds the same."
    return Chart(
        drawing.finish(layout.height, f"{quality.title} against {METRICS[speed].title}", said, {}), key, bool(yards)
    )


def _short(label: str) -> str:
    return label if len(label) <= _LONGEST else label[: _LONGEST - 1] + "…"


def _width(text: str) -> float:
    return len(text) * _CHAR + 6


def _yardsticks(drawing: Drawing, frame: Box, yards: dict[str, float], y: Axis) -> list[Box]:
    """Lines of real images with their words, and the room that these take."""
    taken = []
    for text, value in yards.items():
        at = y.place(value)
        drawing.line((frame.x, at), (frame.x + frame.width, at), _YARD, width=1.4, dash="6 4")
        top = at - HEIGHT - 2 if at > frame.y + HEIGHT + 4 else at + 2
        drawing.text((frame.x + 4, top + 12), text, size=12, colour=_YARD)
        taken += [Box(frame.x, at - 1, frame.width, 2), Box(frame.x, top, _width(text) + 4, HEIGHT)]
    return taken


def _label(drawing: Drawing, point: Point, radius: float, label: Label, text: str, way: int) -> None:
    """A label, with the line that leads to it."""
    if leads(radius, label):
        away = math.hypot(label.dx, label.dy)
        x, y = point
        start = (x + radius / away * label.dx, y + radius / away * label.dy)
        drawing.line(start, (x + label.dx, y + label.dy), MUTED, width=0.8)
    with drawing.group("", label=way):
        drawing.text(label.baseline, text, size=12.5, anchor=label.anchor)


@dataclass(frozen=True)
class _Marks:
    """Radii and colours by recall, and of the tenths that the legend shows."""

    radii: list[float]
    colours: list[str]
    shown: dict[str, tuple[float, str]]

    @staticmethod
    def of(rows: Sequence[Row], layout: Layout) -> _Marks:
        cells = [row.cells.get("recall") for row in rows]
        recalls = [cell.value if cell and cell.comparable else None for cell in cells]
        known = [recall for recall in recalls if recall is not None]
        low, high = (math.floor(10 * min(known)) / 10, math.ceil(10 * max(known)) / 10) if known else (0.0, 1.0)
        high = high if high > low else low + 0.1
        smaller = 0.6 if len(rows) > _CROWD else 1.0
        viridis = mpl.colormaps["viridis"]

        def look(recall: float | None) -> tuple[float, str]:
            size = smaller * (layout.radius + layout.growth * (recall or 0.0))
            return size, "#fff" if recall is None else to_hex(viridis((recall - low) / (high - low)))

        looks = [look(recall) for recall in recalls]
        shown = {f"{tenth:.2g}": look(tenth) for tenth in dict.fromkeys((low, (low + high) / 2, high))} if known else {}
        if len(known) < len(recalls):
            shown["not measured"] = look(None)
        return _Marks([radius for radius, _ in looks], [colour for _, colour in looks], shown)

    def legend(self, drawing: Drawing, layout: Layout) -> None:
        """A row at the foot: marks of the least, a middle and the largest recall."""
        y, right = layout.height - 18, layout.width - 8.0
        for text, (radius, colour) in reversed(self.shown.items()):
            drawing.text((right, y + 4), text, size=12, colour=MUTED, anchor="end")
            drawing.circle((right - _width(text) - radius - 1, y), radius, colour, INK)
            right -= _width(text) + 2 * radius + 14
        drawing.text((right, y + 4), "recall", size=12.5, colour=MUTED, anchor="end")


def _hint(row: Row, table: Table) -> str:
    """Every figure of a row, one a line."""
    cells = [(column, row.cells[column.metric.name]) for column in table.columns]
    return "\n".join([row.label, *(column.said(cell) for column, cell in cells if cell.value is not None)])
