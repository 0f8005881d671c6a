"""Evaluations side by side: one table with its columns grouped by axis (quality, coverage, speed).

Two figures are compared only where they depended on the same. One that did not is kept, marked with the letter of the
reason, and never the best; what is best, the judge says.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from trilemma.evaluations.judge import leaders, unlike
from trilemma.evaluations.record import Evaluation
from trilemma.metrics import AXES, METRICS, Metric

DASH = "–"


@dataclass(frozen=True)
class Cell:
    """A figure (None where it was not measured) and its standard error (None where that is not known); whether it is
    the best of its column or level with it, and the letters of the reasons why it cannot be compared."""

    value: float | None
    error: float | None = None
    best: bool = False
    letters: tuple[str, ...] = ()

    @property
    def comparable(self) -> bool:
        """Whether it was measured, and as its column was."""
        return self.value is not None and not self.letters


@dataclass(frozen=True)
class Column:
    """A metric as it is called in this table."""

    metric: Metric
    title: str
    unit: str

    def text(self, cell: Cell, *, errors: bool = False) -> str:
        """The figure in words, with its standard error if wished."""
        return DASH if cell.value is None else self.metric.text(cell.value, cell.error if errors else None)

    def said(self, cell: Cell) -> str:
        """The figure as a sentence has it: with its title and unit."""
        return f"{self.title} {self.text(cell)} {self.metric.unit}".rstrip()


@dataclass(frozen=True)
class Row:
    """One evaluation: what the table calls it, and its figures by the metrics' names."""

    label: str
    evaluation: Evaluation
    cells: dict[str, Cell]


@dataclass(frozen=True)
class Table:
    """Columns by axis, rows, and the reasons by letter."""

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    reasons: dict[str, str]

    @property
    def models(self) -> tuple[Row, ...]:
        """The rows that measure a model."""
        return tuple(row for row in self.rows if not row.evaluation.yardstick)

    @property
    def yardsticks(self) -> tuple[Row, ...]:
        """The rows that measure real images."""
        return tuple(row for row in self.rows if row.evaluation.yardstick)

    def column(self, name: str) -> Column | None:
        """The metric's column, or None where no row has the figure."""
        return next((column for column in self.columns if column.metric.name == name), None)

    def comparable(self, column: Column) -> list[Row]:
        """The models whose figure in a column can be compared."""
        return [row for row in self.models if row.cells[column.metric.name].comparable]

    def leaders(self, column: Column) -> list[Row]:
        """The models with the best figure of a column or one level with it."""
        return [row for row in self.models if row.cells[column.metric.name].best]


def build_table(
    evaluations: Sequence[Evaluation],
    *,
    every: bool = False,
    names: Collection[str] | None = None,
    also: Collection[str] = (),
    baseline: bool = False,
) -> Table:
    """One row an evaluation, models first; one column a metric that at least one of them has and that tables show
    unasked, or `every` one, or those of `names`; `also` these.

    Figures are held against the way most of their column were measured (models decide where there are any), or, with
    `baseline`, the first evaluation of the column; the rows then stay in their order."""
    ordered = list(evaluations) if baseline else sorted(evaluations, key=lambda one: one.yardstick)
    letters: dict[str, str] = {}
    columns: list[Column] = []
    cells: list[dict[str, Cell]] = [{} for _ in ordered]
    for metric in sorted(METRICS.values(), key=lambda metric: AXES.index(metric.axis)):
        measured = [one for one in ordered if one.figure(metric.name) is not None]
        asked = metric.column if names is None else metric.name in names
        if not measured or not (every or asked or metric.name in also):
            continue
        against = measured[0] if baseline else _usual(metric.name, measured)
        features, count = against.features.name, against.samples.count
        unit = f"{features} features" if metric.heading and features else metric.unit
        columns.append(Column(metric, metric.called(features, count), unit))
        why = [unlike(metric.name, one, against) if one in measured else () for one in ordered]
        rivals = [i for i, one in enumerate(ordered) if one in measured and not (why[i] or one.yardstick)]
        best = {rivals[i] for i in leaders(metric.name, [ordered[i] for i in rivals])}
        for i, one in enumerate(ordered):
            marks = tuple(letters.setdefault(reason, _letter(len(letters))) for reason in why[i])
            cells[i][metric.name] = Cell(one.figure(metric.name), one.error(metric.name), i in best, marks)
    rows = zip(unique_labels(ordered), ordered, cells, strict=True)
    return Table(tuple(columns), tuple(Row(*row) for row in rows), {letter: why for why, letter in letters.items()})


def _usual(name: str, measured: Sequence[Evaluation]) -> Evaluation:
    """The first of those that most of a column were measured like."""
    voters = [one for one in measured if not one.yardstick] or measured
    if not any(unlike(name, other, voters[0]) for other in voters):
        return voters[0]
    return max(voters, key=lambda one: sum(not unlike(name, other, one) for other in voters))


def _letter(count: int) -> str:
    """The letter after so many others."""
    turn, place = divmod(count, 25)
    return "abcdefghijklmnoprstuvwxyz"[place] * (turn + 1)  # no q: it has no superscript


def natural(label: str) -> tuple[str | float, ...]:
    """By which labels are sorted so that their numbers count as numbers: 5 steps, 10 steps, 100 steps."""
    parts = re.split(r"(\d+(?:\.\d+)?)", label.casefold())
    return tuple(float(part) if i % 2 else part for i, part in enumerate(parts))


def unique_labels(evaluations: Sequence[Evaluation]) -> list[str]:
    """Labels, told apart by what they measured, by how where that differs, and by a number where all is the same."""
    labels = [one.label for one in evaluations]
    repeated = {label for label, times in Counter(labels).items() if times > 1}
    for i, one in enumerate(evaluations):
        path = (one.subject.path or "").rstrip("/")
        if labels[i] in repeated and path:
            labels[i] = f"{labels[i]} ({path.rsplit('/', 1)[-1]})"
    for label in [label for label, times in Counter(labels).items() if times > 1]:
        alike = [i for i, one in enumerate(labels) if one == label]
        ways = [_way(evaluations[i]) for i in alike]
        told = [key for key in ways[0] if len({way[key] for way in ways}) > 1]
        for i, way in zip(alike, ways, strict=True):
            labels[i] = ", ".join([label, *(way[key] for key in told if way[key])])
    seen: Counter[str] = Counter()
    for i, label in enumerate(labels):
        seen[label] += 1
        if seen[label] > 1:
            labels[i] = f"{label} #{seen[label]}"
    return labels


def _way(one: Evaluation) -> dict[str, str]:
    """How it was measured, in the words of a label."""
    step, checked = one.subject.checkpoint_step, one.reference.spec
    return {
        "count": f"N {one.samples.count}",
        "features": one.features.name or "",
        "reference": f"against {checked}" if checked else "",
        "step": "" if step is None else f"step {step}",
        "classes": "" if one.samples.classes is None else f"classes {one.samples.classes}",
        "seeds": "" if one.samples.seeds is None else f"seeds {one.samples.seeds_in_words}",
    }


def warnings_of(rows: Iterable[Row]) -> dict[str, list[str]]:
    """Every warning of the evaluations, once, with the labels of those that it is about."""
    about: dict[str, list[str]] = {}
    for row in rows:
        for warning in row.evaluation.warnings:
            about.setdefault(warning, []).append(row.label)
    return about
