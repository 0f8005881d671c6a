"""Evaluations side by side: one table with its columns grouped by axis (quality, coverage, speed).

Two figures are compared only where they were measured alike: each column names what its figures depend on, and a
figure with another basis than most of its column is kept, but marked with a footnote and never the best.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

Evaluation = Mapping[str, Any]
"""One `trilemma-evaluation/1` object, as `json.load` gives it."""

AXES = ("quality", "coverage", "speed")
DASH = "–"


@dataclass(frozen=True)
class Column:
    """One figure of the table: where it stands in `metrics`, which way is better, and what it depends on (`basis`:
    dotted paths in the evaluation). `short` is the title for the terminal, in lines."""

    key: str
    axis: Literal["quality", "coverage", "speed"]
    title: str
    better: Literal["low", "high"]
    show: Callable[[float], str]
    meaning: str
    basis: tuple[str, ...]
    unit: str = ""
    short: str = ""

    @property
    def arrow(self) -> str:
        """The way that is better."""
        return "↓" if self.better == "low" else "↑"


@dataclass(frozen=True)
class Cell:
    """A figure: its value (None where it was not measured), its text, and how it stands in its column."""

    value: float | None
    text: str
    best: bool = False
    comparable: bool = True
    note: int | None = None


@dataclass(frozen=True)
class Row:
    """One evaluation's figures, by column key. `yardstick`: it measures real images, not a model's."""

    label: str
    yardstick: bool
    cells: dict[str, Cell]
    evaluation: Evaluation


@dataclass(frozen=True)
class Table:
    """Columns, rows in the order given with yardsticks last, and numbered footnotes (the first is 1)."""

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]

    @property
    def models(self) -> tuple[Row, ...]:
        """The rows that measure a model."""
        return tuple(row for row in self.rows if not row.yardstick)

    @property
    def yardsticks(self) -> tuple[Row, ...]:
        """The rows that measure real images."""
        return tuple(row for row in self.rows if row.yardstick)

    def column(self, key: str) -> Column | None:
        """The column of that key, or None where no row has the figure."""
        return next((column for column in self.columns if column.key == key), None)


def significant(value: float) -> str:
    """Three significant digits, without an exponent: 0.0123, 1.23, 123, 12 345."""
    if value and abs(value) < 0.001:
        return f"{value:.1e}"
    digits = max(0, 2 - math.floor(math.log10(abs(value)))) if value else 2
    return f"{value:,.{digits}f}".replace(",", " ")


def count_name(count: int) -> str:
    """A sample count as results are named by it: 500, 5k, 50k."""
    return f"{count // 1000}k" if count and count % 1000 == 0 else str(count)


def lookup(evaluation: Evaluation, path: str) -> Any:
    """The value at a dotted path, None where any part is missing."""
    value: Any = evaluation
    for part in path.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


_SET = ("features.sha256", "features.resize", "reference.sha256")
_MACHINE = ("environment.device", "environment.hardware", "environment.threads", "environment.processes")


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


COLUMNS = (
    Column("frechet_distance", "quality", "FD", "low", significant,
           "Fréchet distance between Gaussians fitted to the features of the samples and of the reference images",
           (*_SET, "samples.count")),
    Column("recognised", "quality", "recognised", "high", _percent,
           "share of the samples that a classifier takes for the class that was asked for",
           ("features.sha256", "features.resize"), unit="%", short="recog-\nnised %"),
    Column("precision", "quality", "precision", "high", "{:.3f}".format,
           "share of the samples that lie within the reference images' manifold", (*_SET, "samples.count"),
           short="preci-\nsion"),
    Column("recall", "coverage", "recall", "high", "{:.3f}".format,
           "share of the reference images that lie within the samples' manifold", (*_SET, "samples.count")),
    Column("balance_kl", "coverage", "balance KL", "low", "{:.3f}".format,
           "Kullback-Leibler divergence of the samples' classes from the reference's, in nats", _SET,
           short="balance\nKL"),
    Column("images_per_second", "speed", "images/s", "high", significant,
           "images sampled in a second on the machine named below", _MACHINE, short="images\n/s"),
    Column("network_evaluations", "speed", "network evaluations", "low", lambda value: f"{value:g}",
           "passes through the network for one image", (), short="NFE"),
)  # fmt: skip


def _figure(evaluation: Evaluation, key: str) -> float | None:
    value = lookup(evaluation, f"metrics.{key}")
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def is_yardstick(evaluation: Evaluation) -> bool:
    """Whether an evaluation measures real images, not a model's."""
    return lookup(evaluation, "subject.kind") == "data"


def _basis(evaluation: Evaluation, column: Column) -> tuple[Any, ...]:
    return tuple(lookup(evaluation, path) for path in column.basis)


def _usual(evaluations: Sequence[Evaluation], column: Column) -> Evaluation | None:
    """The first evaluation with the basis that most figures of a column have; models decide where there are any."""
    measured = [e for e in evaluations if _figure(e, column.key) is not None]
    voters = [e for e in measured if not is_yardstick(e)] or measured
    counts = Counter(_basis(e, column) for e in voters)
    return max(voters, key=lambda e: counts[_basis(e, column)]) if voters else None


def _difference(evaluation: Evaluation, usual: Evaluation, column: Column) -> str:
    """In words, what a figure was measured with that the rest of its column was not."""
    parts = []
    for path in column.basis:
        if lookup(evaluation, path) == lookup(usual, path):
            continue
        noun = path.split(".")[0]
        if path == "samples.count":
            parts.append(f"N = {lookup(evaluation, path)} samples")
        elif noun == "features":
            parts.append(f"other features ({lookup(evaluation, 'features.name')})")
        elif noun == "reference":
            data, split, count = (lookup(evaluation, f"reference.{part}") for part in ("data", "split", "count"))
            parts.append(f"other reference ({data}{f':{split}' if split else ''}, {count} images)")
        else:
            hardware = lookup(evaluation, "environment.hardware") or lookup(evaluation, "environment.device")
            threads = lookup(evaluation, "environment.threads")
            parts.append(f"other machine ({hardware}{f', {threads} threads' if threads else ''})")
    return ", ".join(dict.fromkeys(parts))


def _unique_labels(evaluations: Sequence[Evaluation]) -> list[str]:
    """Labels, told apart by what they measured, and by a number where that is the same too."""
    labels = [str(e["label"]) for e in evaluations]
    repeated = {label for label, times in Counter(labels).items() if times > 1}
    for i, evaluation in enumerate(evaluations):
        path = str(lookup(evaluation, "subject.path") or "").rstrip("/")
        if labels[i] in repeated and path:
            labels[i] = f"{labels[i]} ({path.rsplit('/', 1)[-1]})"
    seen: Counter[str] = Counter()
    for i, label in enumerate(labels):
        seen[label] += 1
        if seen[label] > 1:
            labels[i] = f"{label} #{seen[label]}"
    return labels


def build_table(evaluations: Sequence[Evaluation]) -> Table:
    """One row an evaluation, one column a figure that at least one of them has.

    The best figure of a column (and any that reads the same) is marked among comparable model rows, where there are at
    least two. Raises KeyError for an evaluation without a label.
    """
    order = sorted(range(len(evaluations)), key=lambda i: is_yardstick(evaluations[i]))
    ordered, labels = [evaluations[i] for i in order], _unique_labels(evaluations)
    notes: list[str] = []
    columns: list[Column] = []
    cells: list[dict[str, Cell]] = [{} for _ in ordered]
    for column in COLUMNS:
        usual = _usual(ordered, column)
        if usual is None:
            continue
        columns.append(_named(column, usual))
        values = [_figure(e, column.key) for e in ordered]
        alike = [_basis(e, column) == _basis(usual, column) for e in ordered]
        compared = [
            v for e, v, ok in zip(ordered, values, alike, strict=True) if v is not None and ok and not is_yardstick(e)
        ]
        top = column.show((min if column.better == "low" else max)(compared)) if len(compared) > 1 else None
        for i, (evaluation, value) in enumerate(zip(ordered, values, strict=True)):
            if value is None:
                cells[i][column.key] = Cell(None, DASH)
                continue
            note = None
            if not alike[i]:
                text = f"not comparable with the rest of its column: {_difference(evaluation, usual, column)}"
                if text not in notes:
                    notes.append(text)
                note = notes.index(text) + 1
            text = column.show(value)
            best = alike[i] and not is_yardstick(evaluation) and text == top
            cells[i][column.key] = Cell(value, text, best, alike[i], note)
    rows = tuple(
        Row(labels[order[i]], is_yardstick(evaluation), cells[i], evaluation) for i, evaluation in enumerate(ordered)
    )
    return Table(tuple(columns), rows, tuple(notes))


def _named(column: Column, usual: Evaluation) -> Column:
    """A column with what its title has to say: a Fréchet distance is named by its sample count and features."""
    if column.key != "frechet_distance":
        return column
    features = lookup(usual, "features.name")
    count = lookup(usual, "samples.count")
    name = "FID" if str(features).startswith("inception") else "FD"
    title = f"{name}-{count_name(count)}" if isinstance(count, int) else name
    return replace(column, title=title, unit=f"{features} features" if features else "")
