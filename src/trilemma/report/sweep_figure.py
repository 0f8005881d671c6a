"""The trade-off figure: what each metric does as one setting is turned (B, figure 4)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator

from trilemma.metrics.metric import number
from trilemma.recipes.sampling import said
from trilemma.report.figures import NARROW, STYLE, WIDE, svg_text
from trilemma.report.sweep import Sweep, settings
from trilemma.report.tables import Column, Row

_COLOURS = ("#2a788e", "#b3541e", "#7b3f8c", "#5b8c2a", "#d1495b", "#1f2a5a", "#c98a1b", "#6a7885")
_DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.3)), (0, (6, 2, 1, 2)))
_MARKERS = ("o", "s", "^", "D", "v")
_GREY = "#5c6773"


@dataclass(frozen=True)
class Look:
    """How the points of one line are drawn."""

    colour: Any
    dash: Any
    marker: str


def dials(sweep: Sweep) -> list[str]:
    """The settings to draw against: those of numbers, or the first where none is."""
    numeric = [name for name, values in sweep.axes.items() if all(number(value) is not None for value in values)]
    return numeric or list(sweep.axes)[:1]


def against(dial: str) -> str:
    """What is along the x axis for a dial: of steps, what they cost."""
    return "network evaluations" if dial == "steps" else dial.replace("_", " ")


def dial_figure(sweep: Sweep, dial: str, *, across: int = 3) -> str | None:
    """SVG of every drawn metric against a setting, the number of steps by the network evaluations they take, with bars
    of one standard error; a line for each combination of the other settings, told apart by colour and dash. Points on
    the Pareto front are filled. `across`: panels side by side. None where there is nothing to draw."""
    if not sweep.dials:
        return None
    others = [name for name in sweep.axes if name != dial]
    lines = list(_lines(sweep, dial, others))
    looks = _looks(sweep, others)
    across = min(across, len(sweep.dials))
    down = -(-len(sweep.dials) // across)
    with mpl.rc_context(STYLE):
        handles = _legend(sweep, others, looks)
        figure = Figure(layout="constrained")
        beside = len(sweep.dials) < down * across and len(handles) <= 9
        columns = 3 if across > 1 else 1
        below = 0.0 if beside else 0.24 * -(-len(handles) // columns) + 0.1
        figure.set_size_inches(WIDE if across > 1 else NARROW, 2.7 * down + below)
        panels = figure.subplots(down, across, squeeze=False)
        for panel in panels.flat[len(sweep.dials) :]:
            panel.set_axis_off()
        for panel, column in zip(panels.flat, sweep.dials, strict=False):
            for key, rows in lines:
                _draw(panel, rows, column, sweep, dial, looks[key])
            _finish(panel, column, [(x, row) for _, rows in lines for x, row in rows], sweep, dial)
        if beside:  # in the room of a panel that is not there
            panels.flat[-1].legend(handles=handles, loc="center left", frameon=False, handlelength=2.6)
        else:
            figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False, handlelength=2.6)
        return svg_text(figure)


def _lines(sweep: Sweep, dial: str, others: Sequence[str]) -> Iterator[tuple[tuple[str, ...], list[tuple[float, Row]]]]:
    """The points with the same other settings, by these in words, along the dial."""
    found: dict[tuple[str, ...], list[tuple[float, Row]]] = {}
    for row in sweep.table.rows:
        made = settings(row.evaluation)
        if dial not in made:
            continue
        x = row.evaluation.figure("network_evaluations") if dial == "steps" else number(made[dial])
        x = float(sweep.axes[dial].index(made[dial])) if x is None else x
        found.setdefault(tuple(str(made.get(name)) for name in others), []).append((x, row))
    for key, rows in found.items():
        yield key, sorted(rows, key=lambda point: point[0])


def _looks(sweep: Sweep, others: Sequence[str]) -> dict[tuple[str, ...], Look]:
    """Of each combination of the other settings: the first of numbers, or else the first, gives the colour, the rest
    the dash and the mark."""
    coloured = _coloured(sweep, others)
    colours = _colours(sweep.axes[coloured]) if coloured else {}
    rest = [name for name in others if name != coloured]
    styles: dict[tuple[str, ...], tuple[Any, str]] = {}
    free = zip(cycle(_DASHES), cycle(_MARKERS), strict=False)
    looks = {}
    for row in sweep.table.rows:
        made = settings(row.evaluation)
        style = tuple(str(made.get(name)) for name in rest)
        if style not in styles:
            styles[style] = next(free)
        colour = colours.get(str(made.get(coloured)), _COLOURS[0]) if coloured else _COLOURS[0]
        looks[tuple(str(made.get(name)) for name in others)] = Look(colour, *styles[style])
    return looks


def _coloured(sweep: Sweep, others: Sequence[str]) -> str | None:
    numeric = [name for name in others if all(number(value) is not None for value in sweep.axes[name])]
    return next(iter([*numeric, *others]), None)


def _colours(values: Sequence[Any]) -> dict[str, Any]:
    """Numbers along a scale from dark to light, names each with a colour of its own."""
    if all(number(value) is not None for value in values):
        ranked, scale = sorted(values), mpl.colormaps["viridis"]
        return {str(v): scale(0.05 + 0.8 * i / max(1, len(ranked) - 1)) for i, v in enumerate(ranked)}
    return dict(zip(map(str, values), cycle(_COLOURS), strict=False))


def _draw(
    panel: Axes, points: Iterable[tuple[float, Row]], column: Column, sweep: Sweep, dial: str, look: Look
) -> None:
    """One line of a panel; where the dial has names, points without a line."""
    name, scale = column.metric.name, column.metric.scale
    shown = [(x, row) for x, row in points if row.cells[name].comparable]
    if not shown:
        return
    xs, ys = [x for x, _ in shown], [scale * (row.cells[name].value or 0.0) for _, row in shown]
    errors = [scale * (row.cells[name].error or 0.0) for _, row in shown]
    dash = look.dash if _numeric(sweep, dial) else "none"
    panel.errorbar(xs, ys, errors, ls=dash, color=look.colour, lw=1.4, elinewidth=1, capsize=2)
    on = [row in sweep.front for _, row in shown]
    for front, face in ((False, "white"), (True, look.colour)):
        some = [(x, y) for x, y, found in zip(xs, ys, on, strict=True) if found == front]
        if some:
            panel.plot(*zip(*some, strict=True), look.marker, color=look.colour, mfc=face, ms=5, mew=1.3, zorder=5)


def _numeric(sweep: Sweep, dial: str) -> bool:
    return all(number(value) is not None for value in sweep.axes[dial])


def _finish(panel: Axes, column: Column, points: Sequence[tuple[float, Row]], sweep: Sweep, dial: str) -> None:
    """Title, axes and ticks; an axis is logarithmic where its values span more than a decade or so."""
    cells = [row.cells[column.metric.name] for _, row in points]
    values = [cell.value for cell in cells if cell.value is not None and cell.comparable]
    if values and min(values) > 0 and max(values) / min(values) > 10:
        panel.set_yscale("log")
        panel.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        panel.yaxis.set_major_formatter("{x:g}")
    panel.minorticks_off()
    unit = f", {column.metric.unit}" if column.metric.unit else ""
    panel.set_title(f"{column.title}{unit} {column.metric.arrow}", fontsize=10, loc="left", parse_math=False)
    panel.set_xlabel(against(dial))
    if not _numeric(sweep, dial):
        panel.set_xticks(range(len(sweep.axes[dial])), [str(value) for value in sweep.axes[dial]])
        panel.set_xlim(-0.5, len(sweep.axes[dial]) - 0.5)
        return
    xs = sorted({x for x, _ in points})
    if xs[0] > 0 and xs[-1] / xs[0] >= 8:
        panel.set_xscale("log")
        panel.minorticks_off()
    place = panel.xaxis.get_transform().transform
    ends = place([xs[0], xs[-1]])
    ticks: list[float] = []
    for x in xs:  # each value has its tick where its words have room
        if not ticks or place([x])[0] - place([ticks[-1]])[0] > 0.1 * (ends[1] - ends[0]):
            ticks.append(x)
    panel.set_xticks(ticks, [f"{x:g}" for x in ticks])


def _legend(sweep: Sweep, others: Sequence[str], looks: dict[tuple[str, ...], Look]) -> list[Line2D]:
    """What colours, dashes and filled marks stand for."""
    handles = []
    coloured = _coloured(sweep, others)
    if coloured:
        colours = _colours(sweep.axes[coloured])
        for value in sweep.axes[coloured]:
            handles.append(Line2D([], [], color=colours[str(value)], lw=3, label=said({coloured: value})))
    rest = [i for i, name in enumerate(others) if name != coloured]
    styles = {tuple(key[i] for i in rest): look for key, look in looks.items()}
    if len(styles) > 1:
        for style, look in styles.items():
            values = {others[i]: text for i, text in zip(rest, style, strict=True)}
            label = said({name: next(v for v in sweep.axes[name] if str(v) == text) for name, text in values.items()})
            handles.append(
                Line2D([], [], color=_GREY, ls=look.dash, marker=look.marker, ms=5, mfc="white", lw=1.4, label=label)
            )
    filled = Line2D([], [], color=_GREY, ls="none", marker="o", ms=5, label="on the Pareto front")
    hollow = Line2D([], [], color=_GREY, ls="none", marker="o", ms=5, mfc="white", label="off it")
    return [*handles, filled, hollow]
