"""A sweep as it is shown: its axes, read off the evaluations, its table, and which of its points are on the Pareto
front."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Group
from rich.padding import Padding
from rich.table import Table as RichTable
from rich.text import Text

from trilemma.evaluations.judge import front
from trilemma.evaluations.record import Evaluation
from trilemma.metrics import METRICS
from trilemma.metrics.metric import number
from trilemma.recipes.sampling import FOLLOWED, given, said
from trilemma.report.table_views import ARROWS, KEY, MARK
from trilemma.report.tables import Column, Row, Table, build_table
from trilemma.report.verdict import deciding_column

DIAL = ("frechet_distance", "inception_score", "precision", "recall", "recognised")
"""What is drawn against a dial unless metrics were named: B's figure 4, and the share of the class asked for."""


@dataclass(frozen=True)
class Sweep:
    """The settings that have several values, and these, in the order of the grid; the table, a row a point, labelled by
    them; the metrics to draw; the columns that decide the axes quality, coverage and speed, and the rows that are on
    the Pareto front of these."""

    axes: dict[str, list[Any]]
    table: Table
    dials: tuple[Column, ...]
    deciding: tuple[Column, ...]
    front: tuple[Row, ...]

    @staticmethod
    def of(evaluations: Sequence[Evaluation], metrics: Sequence[str] | None = None) -> Sweep:
        """A sweep's evaluations, put in the order of its grid. `metrics`: those asked for by name, shown instead of the
        usual ones."""
        axes = _axes(evaluations)
        evaluations = sorted(evaluations, key=lambda one: _place(one, axes))
        labelled = [
            one.model_copy(update={"label": label})
            for one in evaluations
            if (label := said({name: value for name in axes if (value := settings(one).get(name)) is not None}))
            or (label := one.label)
        ]
        usual = {*DIAL, *(name for name, metric in METRICS.items() if metric.column)}
        table = build_table(labelled, names={*metrics, "network_evaluations"} if metrics else usual)
        drawn = [table.column(name) for name in metrics or DIAL]
        dials = tuple(column for column in drawn if column is not None and column.metric.axis != "speed")
        columns = (deciding_column(table, "quality"), deciding_column(table, "coverage"), _speed(table))
        deciding = tuple(column for column in columns if column is not None)
        best = front([column.metric.name for column in deciding], [row.evaluation for row in table.rows])
        return Sweep(axes, table, dials, deciding, tuple(table.rows[i] for i in best))

    @property
    def name(self) -> str:
        """A file's name: the axes, and a hash of which evaluations these are."""
        files = "".join(sorted(row.evaluation.path.name for row in self.table.rows if row.evaluation.path))
        return "-".join([*self.axes, hashlib.sha256(files.encode()).hexdigest()[:8]])

    @property
    def verdict(self) -> str:
        """Which points are on the front, in a sentence."""
        if not self.deciding:
            return ""
        names = [f"“{row.label}”" for row in self.front]
        names = names if len(names) <= 6 else [*names[:5], f"{len(names) - 5} others"]
        what = " and ".join(filter(None, [", ".join(c.title for c in self.deciding[:-1]), self.deciding[-1].title]))
        count = f"{len(self.front)} of {len(self.table.rows)} points"
        return f"{count} {'is' if len(self.front) == 1 else 'are'} on the Pareto front of {what}: {', '.join(names)}."


FRONT = "a point is off it if another is at least as good in all of these and better beyond standard errors in one"


def settings(evaluation: Evaluation) -> dict[str, Any]:
    """The sampling settings that an evaluation states, where its walks began and what guided them; of a cascade those
    that may have been given for it."""
    if evaluation.sampler is None:
        return {}
    stated = given(evaluation.sampler.model_dump(mode="json"))
    found = {key: value for key, value in stated.items() if key not in FOLLOWED and value is not None}
    if begun := stated.get("surrogate"):
        found |= {key: value for key in ("t_mid", "handover") if (value := begun.get(key)) is not None}
        found |= {"surrogate": begun.get("name")}
    if guide := stated.get("guide"):
        found |= {str(guide.get("kind")): guide.get("name")}
    return found


def _axes(evaluations: Sequence[Evaluation]) -> dict[str, list[Any]]:
    """The settings that several values are stated of, and these in their order, numbers in theirs; what changes fastest
    is last."""
    values: dict[str, list[Any]] = {}
    changed: list[str] = []
    for evaluation in evaluations:
        for name, value in settings(evaluation).items():
            if value not in (known := values.setdefault(name, [])):
                known.append(value)
                changed += [name] * (len(known) == 2)
    numeric = {name for name in changed if all(number(value) is not None for value in values[name])}
    return {name: sorted(values[name]) if name in numeric else values[name] for name in reversed(changed)}


def _place(evaluation: Evaluation, axes: Mapping[str, Sequence[Any]]) -> list[int]:
    """Where in the grid an evaluation stands; before the values of a setting that it does not state."""
    made = settings(evaluation)
    return [values.index(made[name]) if made.get(name) in values else -1 for name, values in axes.items()]


def _speed(table: Table) -> Column | None:
    """Network evaluations, which are exact, where they differ; else what decides speed."""
    counts = {row.cells["network_evaluations"].value for row in table.rows if "network_evaluations" in row.cells}
    return table.column("network_evaluations") if len(counts) > 1 else deciding_column(table, "speed")


def sweep_table(sweep: Sweep) -> Group:
    """The sweep's table for the terminal, a line a point."""
    rich = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    rich.add_column("")
    for name in sweep.axes:
        rich.add_column(Text(name.replace("_", " ")), justify="right", vertical="bottom")
    columns = sweep.table.columns
    for column in columns:
        unit = f", {column.metric.unit}" if column.metric.unit else ""
        rich.add_column(Text(f"{column.title}{unit} {column.metric.arrow}"), justify="right", vertical="bottom")
    for row in sweep.table.rows:
        made = settings(row.evaluation)
        cells = [row.cells[column.metric.name] for column in columns]
        rich.add_row(
            Text(MARK if row in sweep.front else "", style="bold cyan"),
            *(Text("" if (value := made.get(name)) is None else _short(value)) for name in sweep.axes),
            *(
                Text(column.text(cell) + ("*" if cell.best else ""), style="bold green" if cell.best else "")
                for column, cell in zip(columns, cells, strict=True)
            ),
        )
    below = [f"{MARK} on the Pareto front of {', '.join(c.title for c in sweep.deciding)}: {FRONT}"] * bool(sweep.front)
    below += [f"* {KEY}; {ARROWS}"]
    below += [f"not comparable: {reason}" for reason in sweep.table.reasons.values()]
    return Group(rich, *(Padding(Text(line), (0, 0, 0, 2)) for line in below))


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
