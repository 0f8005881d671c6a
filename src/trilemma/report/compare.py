"""Evaluations against a baseline: which figures differ beyond their standard errors, where they can be compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.table import Table as RichTable
from rich.text import Text

from trilemma.errors import InputError, unknown
from trilemma.evaluations.judge import LIMIT, Judgement, judge, same_samples
from trilemma.evaluations.record import Evaluation
from trilemma.report.provenance import facts
from trilemma.report.table_views import ARROWS, KEY, to_markdown, to_rich
from trilemma.report.tables import Column, Row, Table, build_table, unique_labels, warnings_of

CHANCE = f"better, worse: {LIMIT:g} standard errors or more apart; chance alone does that once in about 20 comparisons"
_STYLES = {"better": "green", "worse": "red"}


@dataclass(frozen=True)
class Difference:
    """What the judge says of a row's figure in a column, held against the baseline's."""

    row: Row
    column: Column
    judgement: Judgement

    @property
    def words(self) -> str:
        """All of it, in words."""
        said = self.judgement
        if said.difference is None or said.difference == 0:
            return "equal" if said.difference == 0 else said.reason
        text = self.column.metric.text(abs(said.difference), said.error)
        text = f"{'lower' if said.difference < 0 else 'higher'} by {text}"
        text += f" ({abs(said.z):.1f} standard errors)" if said.z is not None else ""
        return f"{text}: {said.outcome}" + (f", {said.reason}" if said.reason else "")


@dataclass(frozen=True)
class Comparison:
    """A table with the baseline first; the differences from it that can be judged or lack only an error; and `remarks`
    that a reader must know."""

    table: Table
    differences: tuple[Difference, ...]
    remarks: tuple[str, ...]

    @property
    def baseline(self) -> Row:
        """What the others are held against."""
        return self.table.rows[0]


def compare(evaluations: Sequence[Evaluation], *, baseline: str | None = None, strict: bool = False) -> Comparison:
    """Evaluations against one of them: the first, or the one with the label or file `baseline`. One alone is shown.

    Raises InputError where there is no such baseline or several, where nothing can be compared with it, and, if
    `strict`, for the first figure that was measured otherwise."""
    table = build_table(_baseline_first(evaluations, baseline), every=True, baseline=True)
    _refuse(table, strict)
    first, *others = table.rows
    differences = [
        Difference(row, column, judge(column.metric.name, row.evaluation, first.evaluation))
        for row in others
        for column in table.columns
        if row.cells[column.metric.name].comparable and first.cells[column.metric.name].comparable
    ]
    return Comparison(table, tuple(differences), tuple(_remarks(table)))


def _baseline_first(evaluations: Sequence[Evaluation], baseline: str | None) -> list[Evaluation]:
    if baseline is None:
        return list(evaluations)
    labels = unique_labels(evaluations)
    known = [(label, str(one.path), one.path and one.path.name) for label, one in zip(labels, evaluations, strict=True)]
    chosen = [i for i, names in enumerate(known) if baseline in names]
    chosen = chosen or [i for i, one in enumerate(evaluations) if one.label == baseline]
    chosen = chosen or [
        i for i, one in enumerate(evaluations) if one.path and one.path.resolve() == Path(baseline).resolve()
    ]
    if not chosen:
        raise unknown("baseline", baseline, labels)
    if len(chosen) > 1:
        paths = ", ".join(str(evaluations[i].path) for i in chosen)
        raise InputError(f"baseline {baseline!r}: may be any of {paths}; name one of these")
    return [evaluations[chosen[0]], *(one for i, one in enumerate(evaluations) if i != chosen[0])]


def _refuse(table: Table, strict: bool) -> None:
    """Refuse a comparison of nothing with the baseline, and, if `strict`, one with a figure measured otherwise."""
    first, *others = table.rows
    if not others:
        return
    marked = [
        (row, f"{column.title}: {table.reasons[letter]}")
        for column in table.columns
        for row in others
        for letter in row.cells[column.metric.name].letters
    ]
    row, why = marked[0] if marked else (others[0], "they have no figure in common")
    measured = [column.metric.name for column in table.columns if not column.metric.exact]
    if not any(first.cells[name].comparable and other.cells[name].comparable for name in measured for other in others):
        raise InputError(f"{row.evaluation.path}: nothing can be compared with {first.evaluation.path} ({why})")
    if strict and marked:
        raise InputError(f"{row.evaluation.path}: not comparable with {first.evaluation.path}: {why}")


def _remarks(table: Table) -> list[str]:
    """What standard errors cannot say, and the evaluations' own warnings, each once."""
    first, *others = table.rows
    remarks = []
    digests = dict.fromkeys(row.evaluation.samples.sha256 for row in table.rows)
    for digest in filter(None, digests):
        labels = [f"“{row.label}”" for row in table.rows if row.evaluation.samples.sha256 == digest]
        if len(labels) > 1:
            remarks.append(f"{' and '.join(labels)} measured the same samples: their figures are not independent")
    shared = [row for row in others if _same_noise(first.evaluation, row.evaluation)]
    if shared:
        who = "all" if len(shared) == len(others) else ", ".join(f"“{row.label}”" for row in shared)
        remarks.append(
            f"same seeds as the baseline's ({who}): samples that begin from the same noise are alike; the standard "
            "error of a difference takes them as independent, and is likely too large"
        )
    for text, about in warnings_of(table.rows).items():
        who = "all" if len(about) == len(table.rows) else ", ".join(f"“{label}”" for label in about)
        remarks.append(f"{text} ({who})")
    return remarks


def _same_noise(a: Evaluation, b: Evaluation) -> bool:
    if a.yardstick or b.yardstick or same_samples(a, b) or a.samples.seeds is None:
        return False
    return (a.samples.seeds, a.samples.classes) == (b.samples.seeds, b.samples.classes)


def comparison_table(comparison: Comparison) -> Group:
    """For the terminal: the table, then each evaluation's differences from the baseline in words."""
    parts: list[Any] = [to_rich(comparison.table), Text(""), Text(_against(comparison), style="bold")]
    for row in comparison.table.rows[1:]:
        lines = RichTable.grid(padding=(0, 2, 0, 0))
        for one in _of(comparison, row):
            lines.add_row(f"  {one.column.title}", Text(one.words, style=_STYLES.get(one.judgement.outcome, "")))
        if not lines.row_count:
            lines.add_row("  nothing that can be compared")
        parts += [Text(row.label, style="bold"), lines]
    return Group(*parts, *(Text(line) for line in _below(comparison)))


def comparison_markdown(comparison: Comparison) -> str:
    """In Markdown: the table, then the differences as lists."""
    parts = [to_markdown(comparison.table, whole=True), f"{ARROWS}; ± one standard error; bold: {KEY}"]
    parts.append(_against(comparison) + (":" if len(comparison.table.rows) > 1 else ""))
    for row in comparison.table.rows[1:]:
        parts += [f"{row.label}:", "\n".join(f"- {one.column.title} {one.words}" for one in _of(comparison, row))]
    return "\n\n".join(part.strip() for part in (*parts, *_below(comparison))) + "\n"


def _of(comparison: Comparison, row: Row) -> list[Difference]:
    return [one for one in comparison.differences if one.row is row]


def _against(comparison: Comparison) -> str:
    known = facts(comparison.baseline.evaluation)
    with_ = "; ".join(f"{name.lower()}: {known[name]}" for name in ("Features", "Reference") if name in known)
    if len(comparison.table.rows) == 1:
        return f"One evaluation, which nothing is held against; {with_}"
    return f"Against “{comparison.baseline.label}”, {with_}"


def _below(comparison: Comparison) -> list[str]:
    """The lines below: what the words mean, where there are any, and the remarks."""
    return [*([CHANCE] if len(comparison.table.rows) > 1 else []), *comparison.remarks]


def comparison_json(comparison: Comparison) -> dict[str, Any]:
    """As plain JSON values: rows with every figure, reasons by letter, and every difference with its verdict."""
    table = comparison.table
    return {
        "format": "trilemma-comparison/1",
        "baseline": comparison.baseline.label,
        "metrics": {c.metric.name: {"axis": c.metric.axis, "better": c.metric.better} for c in table.columns},
        "rows": [
            {
                "label": row.label,
                "file": str(row.evaluation.path),
                **{
                    part: value
                    for part, value in row.evaluation.content().items()
                    if part in ("samples", "sampler", "features", "reference")
                },
                "figures": {
                    name: {
                        **{"value": cell.value, "standard_error": cell.error, "best": cell.best},
                        **{"comparable": cell.comparable, "reasons": list(cell.letters)},
                    }
                    for name, cell in row.cells.items()
                },
            }
            for row in table.rows
        ],
        "reasons": table.reasons,
        "differences": [
            {
                **{"label": one.row.label, "metric": one.column.metric.name, "difference": one.judgement.difference},
                **{"standard_error": one.judgement.error, "z": one.judgement.z, "verdict": one.judgement.outcome},
                **{"reason": one.judgement.reason or None, "words": one.words},
            }
            for one in comparison.differences
        ],
        "remarks": list(comparison.remarks),
    }
