"""Which way won on which axis, said from what the judge says of a table's figures; and where a run stands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from trilemma.evaluations.advice import standing
from trilemma.evaluations.judge import judge
from trilemma.evaluations.record import Evaluation
from trilemma.evaluations.statements import Standing, Statement
from trilemma.metrics import AXES
from trilemma.report.sources import RunFiles
from trilemma.report.tables import Column, Row, Table
from trilemma.training import checkpoint


@dataclass(frozen=True)
class AxisVerdict:
    """Who leads on one axis: `leaders` are the best and all level with it, none where it is undecided; `figure` is the
    best's, as it is read."""

    axis: str
    leaders: tuple[str, ...]
    figure: str
    detail: str


def deciding_column(table: Table, axis: str) -> Column | None:
    """The figure that decides an axis in this table: the first that several models have and the judge can tell apart
    or call level, else the first that most of them have; None where no model has any."""
    columns = [column for column in table.columns if column.metric.axis == axis and table.comparable(column)]
    return max(columns, key=lambda c: (bool(table.leaders(c)), len(table.comparable(c)) > 1), default=None)


def ranked(table: Table, column: Column) -> list[Row]:
    """The models whose figure in a column can be compared, the best first."""
    sign = 1 if column.metric.better == "lower" else -1
    return sorted(table.comparable(column), key=lambda row: sign * (row.cells[column.metric.name].value or 0.0))


def axis_verdicts(table: Table) -> list[AxisVerdict]:
    """One verdict an axis that has figures, in the order quality, coverage, speed."""
    verdicts = []
    for axis in AXES:
        column = deciding_column(table, axis)
        if column is None:
            continue
        rows = ranked(table, column)
        leaders = [row for row in rows if row.cells[column.metric.name].best]
        behind = [row for row in rows if row not in leaders]
        if not leaders:
            detail = "no standard error known" if len(rows) > 1 else "the only way measured"
        elif not behind:
            detail = "all within their standard errors"
        else:
            detail = f"next: {_names([behind[0].label])}, {column.text(behind[0].cells[column.metric.name])}"
        figure = column.said(rows[0].cells[column.metric.name])
        if len(leaders) > 1:
            last = column.text(leaders[-1].cells[column.metric.name])
            figure += f" ({'up' if column.metric.better == 'lower' else 'down'} to {last})"
        verdicts.append(AxisVerdict(axis, tuple(row.label for row in leaders), figure, detail))
    return verdicts


def _names(labels: Sequence[str]) -> str:
    quoted = [f"“{label}”" for label in labels]
    if len(quoted) > 4:
        quoted = [*quoted[:3], f"{len(quoted) - 3} others"]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} and {quoted[-1]}"


def verdict(table: Table, *, single: bool = True) -> list[str]:
    """Up to three sentences: who leads where, what the fastest way costs in quality, and how far real images are. Of a
    `single` way its figures, if wished."""
    if not table.models or not table.columns:
        return []
    first = _who_leads(axis_verdicts(table), table)
    if len(table.models) == 1:
        row = table.models[0]
        said = [
            column.said(cell) for column in table.columns if (cell := row.cells[column.metric.name]).value is not None
        ]
        first = f"{row.label}: {', '.join(said)}." if said and single else ""
    return [sentence for sentence in (first, _price_of_speed(table), _distance_to_real(table)) if sentence]


def _who_leads(verdicts: Sequence[AxisVerdict], table: Table) -> str:
    groups: dict[tuple[str, ...], list[str]] = {}
    for one in verdicts:
        groups.setdefault(one.leaders, []).append(one.axis)
    parts = []
    for leaders, axes in groups.items():
        where = "all three axes" if len(axes) == len(AXES) else " and ".join(axes)
        if not leaders:
            parts.append(f"{where} {'is' if len(axes) == 1 else 'are'} undecided")
        elif len(leaders) == len(table.models):
            parts.append(f"all ways are level on {where}")
        else:
            parts.append(f"{_names(leaders)} {'wins' if len(leaders) == 1 else 'are level'} on {where}")
    sentence = "; ".join(parts)
    return f"{sentence[0].upper()}{sentence[1:]}." if sentence else ""


def _price_of_speed(table: Table) -> str:
    speed, quality = table.column("images_per_second"), deciding_column(table, "quality")
    if speed is None or quality is None:
        return ""
    both = [row for row in ranked(table, speed) if row in table.comparable(quality)]
    if len(both) < 2:
        return ""
    fastest, finest = both[0], next(row for row in ranked(table, quality) if row in both)
    if judge(speed.metric.name, fastest.evaluation, finest.evaluation).outcome != "better":
        return ""
    fast, slow = (row.cells[speed.metric.name].value or 0.0 for row in (fastest, finest))
    times = f"{fast / slow:.1f}" if fast / slow < 10 else f"{fast / slow:.0f}"
    paid, best = (row.cells[quality.metric.name] for row in (fastest, finest))
    outcome = judge(quality.metric.name, fastest.evaluation, finest.evaluation).outcome
    level = {"level": ", which is level", "not comparable": ", undecided"}.get(outcome, "")
    return (
        f"{_names([fastest.label])} makes {times} times as many images a second as {_names([finest.label])}, "
        f"at {quality.said(paid)} against {quality.text(best)}{level}."
    )


def _distance_to_real(table: Table) -> str:
    for row in table.yardsticks:
        cells = [(column, row.cells[column.metric.name]) for column in table.columns if column.metric.axis != "speed"]
        said = [column.said(cell) for column, cell in cells if cell.comparable]
        if said:
            return f"The yardstick, {_names([row.label])}, stands at {', '.join(said)}."
    return ""


def standing_of(run: RunFiles, evaluations: Sequence[Evaluation]) -> Standing:
    """Where a run stands by its log, recipe and checkpoints, and by these evaluations, which are its own."""
    return standing(run.log, evaluations, run.values, str(run.path), checkpoint.steps(run.path / "checkpoints"))


def rested_on(standing: Sequence[Statement]) -> set[str]:
    """The names of the figures that these statements rest on."""
    return {figure.name for one in standing for figure in one.figures}


def standing_lines(runs: Sequence[RunFiles], evaluations: Sequence[Evaluation], *, named: bool) -> list[Statement]:
    """Where each run stands, by those of the evaluations that lie in it, in one statement, after its name if `named`;
    and what to try next with it, up to three."""
    lines = []
    for run in runs:
        folder = run.path.resolve()
        own = [one for one in evaluations if one.path is not None and one.path.resolve().parent.parent == folder]
        found = standing_of(run, own)
        if found.sentences:
            figures = tuple(figure for one in found.sentences for figure in one.figures)
            lines.append(Statement(f"{run.name}: {found.text}" if named else found.text, figures))
        for which, one in zip(("Next", "Then", "Then"), found.advice, strict=False):
            lines.append(replace(one, text=f"{which}: {one.text}"))
    return lines
