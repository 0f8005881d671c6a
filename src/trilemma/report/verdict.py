"""Which way won on which axis, said from the figures of a table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from trilemma.report.tables import AXES, Cell, Column, Row, Table, lookup

DECIDES = {
    "quality": ("frechet_distance", "recognised", "precision"),
    "coverage": ("recall", "balance_kl"),
    "speed": ("images_per_second", "network_evaluations"),
}
"""What decides an axis: the first of these figures that can be compared between at least two ways."""

MARGIN = 0.05
"""Figures without a known error that lie closer than this share of the better one are called level."""


@dataclass(frozen=True)
class AxisVerdict:
    """Who leads on one axis: `leaders` are level with the best; `figure` is the best's, as it is read."""

    axis: str
    leaders: tuple[str, ...]
    figure: str
    detail: str


def _shown(column: Column, cell: Cell) -> str:
    if column.key == "images_per_second":
        return f"{cell.text} images/s"
    if column.key == "network_evaluations":
        return f"{cell.text} network evaluation{'' if cell.value == 1 else 's'}"
    return f"{cell.text} % recognised" if column.key == "recognised" else f"{column.title} {cell.text}"


def _level(column: Column, best: Row, other: Row) -> bool:
    """Whether two figures are too close to call: shares by two standard errors of their difference (binomial, over the
    sample count), other figures by MARGIN; counts only when equal."""
    a, b = (row.cells[column.key].value or 0.0 for row in (best, other))
    if column.key == "network_evaluations":
        return a == b
    counts = [lookup(row.evaluation, "samples.count") for row in (best, other)]
    if column.key in ("recognised", "precision", "recall") and all(isinstance(n, int) and n > 0 for n in counts):
        variance = sum(max(0.0, p * (1 - p)) / n for p, n in zip((a, b), counts, strict=True))
        return abs(a - b) <= 2 * math.sqrt(variance)
    return abs(a - b) <= MARGIN * abs(a)


def deciding_column(table: Table, axis: str) -> Column | None:
    """The figure that decides an axis in this table, None where no model has any."""
    columns = [column for key in DECIDES[axis] if (column := table.column(key)) and comparable(table, column)]
    several = [column for column in columns if len(comparable(table, column)) > 1]
    return next(iter([*several, *columns]), None)


def comparable(table: Table, column: Column) -> list[Row]:
    """The model rows whose figure in a column can be compared."""
    return [row for row in table.models if row.cells[column.key].value is not None and row.cells[column.key].comparable]


def axis_verdicts(table: Table) -> list[AxisVerdict]:
    """One verdict an axis that has figures, in the order quality, coverage, speed."""
    verdicts = []
    for axis in AXES:
        column = deciding_column(table, axis)
        if column is None:
            continue
        rows = comparable(table, column)
        sign = 1 if column.better == "low" else -1
        rows = sorted(rows, key=lambda row: sign * (row.cells[column.key].value or 0.0))
        leaders = [row for row in rows if _level(column, rows[0], row)]
        others = [row for row in rows if row not in leaders]
        if len(leaders) > 1:
            detail = "too close to call" if len(leaders) == len(rows) else "level: too close to call between them"
        elif others:
            detail = f"next: {_names([others[0].label])}, {others[0].cells[column.key].text}"
        else:
            detail = "the only way measured"
        figure = _shown(column, rows[0].cells[column.key])
        worst = leaders[-1].cells[column.key].text
        if worst != rows[0].cells[column.key].text:
            figure += f" (down to {worst})" if column.better == "high" else f" (up to {worst})"
        verdicts.append(AxisVerdict(axis, tuple(row.label for row in leaders), figure, detail))
    return verdicts


def _names(labels: Sequence[str]) -> str:
    quoted = [f"“{label}”" for label in labels]
    if len(quoted) > 4:
        quoted = [*quoted[:3], f"{len(quoted) - 3} others"]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} and {quoted[-1]}"


def verdict(table: Table) -> list[str]:
    """Up to three sentences: who leads where, what the fastest way costs in quality, and how far real images are."""
    if not table.models:
        return []
    verdicts = axis_verdicts(table)
    sentences = [_who_leads(verdicts, table)] if len(table.models) > 1 and verdicts else []
    if len(table.models) == 1:
        row = table.models[0]
        shown = [_shown(c, row.cells[c.key]) for c in table.columns if row.cells[c.key].value is not None]
        sentences = [f"{row.label}: {', '.join(shown)}."] if shown else []
    return [sentence for sentence in (*sentences, _price_of_speed(table), _distance_to_real(table)) if sentence]


def _who_leads(verdicts: Sequence[AxisVerdict], table: Table) -> str:
    groups: dict[tuple[str, ...], list[str]] = {}
    for v in verdicts:
        groups.setdefault(v.leaders, []).append(v.axis)
    if len(groups) == 1 and len(verdicts) == len(AXES):
        leaders = next(iter(groups))
        return f"{_names(leaders)} {'wins' if len(leaders) == 1 else 'are level'} on all three axes."
    parts = []
    for leaders, axes in groups.items():
        where = " and ".join(axes)
        if len(leaders) == len(table.models):
            parts.append(f"all ways are level on {where}")
        else:
            parts.append(f"{_names(leaders)} {'wins' if len(leaders) == 1 else 'are level'} on {where}")
    sentence = "; ".join(parts)
    return f"{sentence[0].upper()}{sentence[1:]}."


def _price_of_speed(table: Table) -> str:
    speed, quality = table.column("images_per_second"), deciding_column(table, "quality")
    if speed is None or quality is None:
        return ""
    both = [row for row in comparable(table, speed) if row in comparable(table, quality)]
    if len(both) < 2:
        return ""
    sign = 1 if quality.better == "low" else -1
    fastest = max(both, key=lambda row: row.cells[speed.key].value or 0.0)
    finest = min(both, key=lambda row: sign * (row.cells[quality.key].value or 0.0))
    fast, slow = fastest.cells[speed.key].value, finest.cells[speed.key].value
    if fastest is finest or not fast or not slow or fast < (1 + MARGIN) * slow:
        return ""
    times = f"{fast / slow:.1f}" if fast / slow < 10 else f"{fast / slow:.0f}"
    paid, best = _shown(quality, fastest.cells[quality.key]), finest.cells[quality.key].text
    price = f"at {paid} against {best}" if fastest.cells[quality.key].text != best else f"at the same {paid}"
    return (
        f"{_names([fastest.label])} makes {times} times as many images a second as {_names([finest.label])}, {price}."
    )


def _distance_to_real(table: Table) -> str:
    for row in table.yardsticks:
        shown = [
            _shown(column, cell)
            for column in table.columns
            if (cell := row.cells[column.key]).value is not None and cell.comparable and column.axis != "speed"
            and column.key in ("frechet_distance", "recognised", "recall")
        ]  # fmt: skip
        if shown:
            return f"The yardstick, {_names([row.label])}, stands at {', '.join(shown)}."
    return ""
