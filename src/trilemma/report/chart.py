"""The trilemma chart: quality against speed, coverage as size and colour. Interactive, and the same on paper."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from html import escape

import plotly.graph_objects as go

from trilemma.metrics import METRICS
from trilemma.report.tables import Row, Table
from trilemma.report.verdict import deciding_column

# 680 pixels are what an A4 or Letter page holds between its margins: the chart is never scaled, so never clipped.
WIDTH, HEIGHT = 680, 430
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 92, 16, 56
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, Helvetica, Arial, sans-serif"
_INK, _MUTED, _GRID, _YARD = "#1b2430", "#5c6773", "#e6eaee", "#b3541e"
_CHAR, _LINE = 6.7, 16.0
_LONGEST = 34


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels, y downwards."""

    left: float
    top: float
    right: float
    bottom: float

    def overlap(self, other: Box) -> float:
        """Shared area, in square pixels."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(0.0, width) * max(0.0, height)


@dataclass(frozen=True)
class Label:
    """Where a point's label stands: the corner or edge of its box that faces the point, and the offset to it."""

    box: Box
    dx: float
    dy: float
    xanchor: str
    yanchor: str


_SIDES = ((1, 0), (-1, 0), (0, -1), (0, 1), (1, -1), (1, 1), (-1, -1), (-1, 1))


def place_labels(
    points: Sequence[tuple[float, float]],
    radii: Sequence[float],
    widths: Sequence[float],
    frame: Box,
    taken: Sequence[Box] = (),
) -> list[Label]:
    """A label for each point, beside it where there is room, else farther away; near places are tried first.

    points, radii and widths are in pixels inside `frame`; a label is one line high. A place that overlaps a marker,
    another label or a box in `taken`, leaves the frame, or is
    cut off from its point by another marker, is used only where none is free within 110 pixels."""
    # Three pixels of air keep a label from seeming to belong to the next marker.
    markers = [Box(x - r - 3, y - r - 3, x + r + 3, y + r + 3) for (x, y), r in zip(points, radii, strict=True)]
    placed: dict[int, Label] = {}
    for i in sorted(range(len(points)), key=lambda k: (points[k][1], points[k][0])):
        (x, y), width = points[i], widths[i]
        obstacles = [*markers[:i], *markers[i + 1 :], *taken, *(label.box for label in placed.values())]
        best, best_cost = None, math.inf
        for gap in (5, 14, 26, 40, 56, 74, 92, 110):
            for side_x, side_y in _SIDES:
                reach = (radii[i] + gap) * (math.sqrt(0.5) if side_x and side_y else 1.0)
                dx, dy = side_x * reach, side_y * reach
                left = x + dx - (0 if side_x > 0 else width if side_x < 0 else width / 2)
                top = y + dy - (0 if side_y > 0 else _LINE if side_y < 0 else _LINE / 2)
                box = Box(left, top, left + width, top + _LINE)
                inside = box.overlap(frame)
                cost = sum(box.overlap(other) for other in obstacles) + 3 * (width * _LINE - inside)
                line = [Box(x + s * dx - 1, y + s * dy - 1, x + s * dx + 1, y + s * dy + 1) for s in (0.4, 0.6, 0.8, 1)]
                others = [*markers[:i], *markers[i + 1 :]]
                cost += 40 * sum(piece.overlap(other) > 0 for piece in line for other in others)
                if cost < best_cost - 1e-6:
                    anchor_x = {1: "left", -1: "right", 0: "center"}[side_x]
                    anchor_y = {1: "top", -1: "bottom", 0: "middle"}[side_y]
                    best, best_cost = Label(box, dx, dy, anchor_x, anchor_y), cost
            if best_cost <= 1e-6:
                break
        assert best is not None
        placed[i] = best
    return [placed[i] for i in range(len(points))]


def _span(values: Sequence[float], *, log: bool) -> tuple[float, float]:
    """Axis ends, in the axis's own coordinate (log10 on a log axis), with room for markers."""
    scaled = [math.log10(v) if log else v for v in values]
    low, high = min(scaled), max(scaled)
    pad = 0.16 * (high - low) or (0.3 if log else 0.1 * abs(high) or 1.0)
    return low - pad, high + pad


def _log_ticks(low: float, high: float) -> dict[str, list[float] | list[str]]:
    """Ticks at 1, 2 and 5 of each decade of a log10 range, at 1 alone where that would be many."""
    leads = (1, 2, 5) if high - low < 3 else (1,)
    values = [lead * 10.0**decade for decade in range(math.floor(low), math.ceil(high) + 1) for lead in leads]
    values = [value for value in values if low <= math.log10(value) <= high]
    return {"tickvals": values, "ticktext": [f"{value:,.10g}".replace(",", " ") for value in values]}


def _chart_rows(table: Table, speed: str = "images_per_second") -> list[Row]:
    quality, column = deciding_column(table, "quality"), table.column(speed)
    if quality is None or column is None:
        return []
    fast = [row for row in table.comparable(column) if (row.cells[speed].value or 0) > 0]
    return [row for row in fast if row in table.comparable(quality)]


def left_out(table: Table) -> list[str]:
    """Labels of the model rows that the chart can't show beside the others."""
    drawn = _chart_rows(table)
    return [row.label for row in table.models if row not in drawn]


def trilemma_chart(
    table: Table, speed: str = "images_per_second", front: Collection[Row] | None = None
) -> go.Figure | None:
    """Quality (better upwards) against images a second, or another measure of `speed` (log axis, faster to the right),
    recall as size and colour (small and white where it is missing), each point labelled, yardsticks as lines. With a
    `front` its rows alone are labelled and ringed, the others faint. None where no model has comparable figures of both
    quality and speed."""
    rows = _chart_rows(table, speed)
    quality = deciding_column(table, "quality")
    if not rows or quality is None:
        return None
    cells = {row.label: row.cells[quality.metric.name] for row in table.rows}
    speeds = [row.cells[speed].value or 0.0 for row in rows]
    slow_right = METRICS[speed].better == "lower"
    scale = quality.metric.scale
    heights = [scale * (cells[row.label].value or 0.0) for row in rows]
    recalls = [row.cells.get("recall") for row in rows]
    covers = [recall.value if recall and recall.comparable else None for recall in recalls]
    lines = [(row, scale * (cells[row.label].value or 0.0)) for row in table.yardsticks if cells[row.label].comparable]
    seen = [*heights, *(value for _, value in lines)]
    log_y = min(seen) > 0 and max(seen) / min(seen) > 20
    x_low, x_high = _span(speeds, log=True)
    y_low, y_high = _span(seen, log=log_y)
    down = quality.metric.better == "lower"

    inner_width, inner_height = WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM

    def pixel(pace: float, height: float) -> tuple[float, float]:
        share = ((math.log10(height) if log_y else height) - y_low) / (y_high - y_low)
        up = 1 - share if down else share
        along = (math.log10(pace) - x_low) / (x_high - x_low)
        return inner_width * (1 - along if slow_right else along), inner_height * (1 - up)

    def data(x: float, y: float) -> tuple[float, float]:
        up = 1 - y / inner_height
        height = y_low + (1 - up if down else up) * (y_high - y_low)
        along = 1 - x / inner_width if slow_right else x / inner_width
        return 10 ** (x_low + (x_high - x_low) * along), 10**height if log_y else height

    radii = [6.0 if cover is None else 6 + 10 * cover for cover in covers]
    names = [row.label if len(row.label) <= _LONGEST else row.label[: _LONGEST - 1] + "…" for row in rows]
    taken, yard_notes = [], []
    for row, value in lines:
        _, y = pixel(1.0, value)
        text = f"{row.label}: {quality.text(cells[row.label])}"
        above = y > _LINE + 4
        taken += [Box(0, y - 1, inner_width, y + 1)]
        top = y - _LINE - 2 if above else y + 2
        taken += [Box(0, top, len(text) * _CHAR + 8, top + _LINE)]
        yard_notes.append((value, text, above))
    points = [pixel(s, h) for s, h in zip(speeds, heights, strict=True)]
    named = [i for i, row in enumerate(rows) if front is None or row in front]
    others = ((*points[i], radii[i]) for i in range(len(rows)) if i not in named)
    labels = place_labels(
        [points[i] for i in named],
        [radii[i] for i in named],
        [len(names[i]) * _CHAR + 4 for i in named],
        Box(0, 0, inner_width, inner_height),
        [*taken, *(Box(x - r, y - r, x + r, y + r) for x, y, r in others)],
    )

    known = [cover for cover in covers if cover is not None]
    figure = go.Figure()
    for measured in (True, False):
        drawn = [i for i, cover in enumerate(covers) if (cover is not None) == measured]
        if not drawn:
            continue
        figure.add_trace(
            go.Scatter(
                x=[speeds[i] for i in drawn],
                y=[heights[i] for i in drawn],
                mode="markers",
                customdata=[_hover(rows[i], table) for i in drawn],
                hovertemplate="%{customdata}<extra></extra>",
                showlegend=False,
                marker={
                    "size": [2 * radii[i] for i in drawn],
                    "opacity": [1 if i in named else 0.45 for i in drawn],
                    "line": {"width": [_edge(measured, front, i in named) for i in drawn], "color": _INK},
                    **(_colours(known) if measured else {"color": "white"}),
                },
            )
        )
    for i, label in zip(named, labels, strict=True):
        name, pace, height, radius = names[i], speeds[i], heights[i], radii[i]
        reach = math.hypot(label.dx, label.dy)
        if reach > radius + 6:
            # Plotly's own arrow is missing where it would meet a corner of the text.
            x, y = pixel(pace, height)
            ends = [data(x + share * label.dx, y + share * label.dy) for share in (radius / reach, 1.0)]
            (x0, y0), (x1, y1) = ends
            figure.add_shape(type="line", x0=x0, y0=y0, x1=x1, y1=y1, line={"color": _MUTED, "width": 0.8})
        figure.add_annotation(
            x=math.log10(pace),
            y=math.log10(height) if log_y else height,
            text=escape(name),
            showarrow=False,
            xshift=label.dx,
            yshift=-label.dy,
            xanchor=label.xanchor,
            yanchor=label.yanchor,
            borderpad=0,
            font={"size": 12.5, "color": _INK},
        )
    for value, text, above in yard_notes:
        figure.add_hline(y=value, line={"color": _YARD, "width": 1.4, "dash": "6px,4px"})
        figure.add_annotation(
            xref="paper",
            x=0,
            y=math.log10(value) if log_y else value,
            text=escape(text),
            showarrow=False,
            xanchor="left",
            yanchor="bottom" if above else "top",
            font={"size": 12, "color": _YARD},
        )
    unit = f", {quality.unit}" if quality.unit else ""
    axis = {"gridcolor": _GRID, "linecolor": "#aab3bc", "ticks": "outside", "tickcolor": "#aab3bc", "zeroline": False}
    figure.update_layout(
        template="none",
        width=WIDTH,
        height=HEIGHT,
        autosize=False,
        margin={"l": _LEFT, "r": _RIGHT, "t": _TOP, "b": _BOTTOM, "pad": 0},
        font={"family": _FONT, "size": 12, "color": _MUTED},
        paper_bgcolor="white",
        plot_bgcolor="white",
        hoverlabel={"bgcolor": "white", "bordercolor": "#aab3bc", "font": {"color": _INK, "size": 12.5}},
        xaxis={
            **axis,
            "type": "log",
            "range": [x_high, x_low] if slow_right else [x_low, x_high],
            **_log_ticks(x_low, x_high),
            "title": {"text": f"{METRICS[speed].title.replace('/s', ' per second')} (right is faster)", "standoff": 10},
        },
        yaxis={
            **axis,
            "type": "log" if log_y else "linear",
            **(_log_ticks(y_low, y_high) if log_y else {}),
            "range": [y_high, y_low] if down else [y_low, y_high],
            "title": {"text": f"{escape(quality.title + unit)} (up is better)", "standoff": 8},
        },
    )
    return figure


def _edge(measured: bool, front: Collection[Row] | None, named: bool) -> float:
    """The width of a mark's outline."""
    return 2 if not measured or (front is not None and named) else 1


def _colours(known: Sequence[float]) -> dict[str, object]:
    """Marker colours by recall, with a colour bar over the tenths that hold them."""
    low, high = math.floor(10 * min(known) - 1e-9) / 10, math.ceil(10 * max(known) + 1e-9) / 10
    return {
        "color": list(known),
        "cmin": max(0.0, low),
        "cmax": min(1.0, high) if high > low else low + 0.1,
        "colorscale": "Viridis",
        "showscale": True,
        "colorbar": {
            "title": {"text": "recall", "side": "right"},
            "thickness": 12,
            "len": 0.62,
            "x": 1.03,
            "outlinewidth": 0,
            "tickformat": ".2~f",
            "nticks": 6,
        },
    }


def _hover(row: Row, table: Table) -> str:
    """Every figure of a row, one a line."""
    cells = [(column, row.cells[column.metric.name]) for column in table.columns]
    lines = [escape(column.said(cell)) for column, cell in cells if cell.value is not None]
    return "<br>".join([f"<b>{escape(row.label)}</b>", *lines])
