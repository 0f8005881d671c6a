"""Evaluations against a baseline: which figures differ beyond their standard errors, where they can be compared."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from trilemma.errors import InputError, unknown
from trilemma.report.comparability import EXACT, Figure, all_columns, column_figures, shown
from trilemma.report.sources import FORMAT, Measured, read_evaluation
from trilemma.report.tables import Column, Evaluation, _unique_labels, is_yardstick, lookup

Outcome = Literal["better", "worse", "within the noise", "equal", "no standard error known", "the same samples"]

LIMIT = 2.0
"""Differences of fewer standard errors than this are within the noise."""


@dataclass(frozen=True)
class Entry:
    """One evaluation: what the table calls it, where it was read, and its figures by column key."""

    label: str
    path: Path
    evaluation: Evaluation
    figures: dict[str, Figure]


@dataclass(frozen=True)
class Difference:
    """A figure less the baseline's. `error`: √(se₁² + se₂²), None where it is not known or, for exact counts, nil;
    `z`: the difference in such errors. `words` say all of it."""

    entry: int
    key: str
    value: float
    error: float | None
    z: float | None
    outcome: Outcome
    words: str


@dataclass(frozen=True)
class Comparison:
    """Entries, the baseline first; columns by axis; `reasons` by letter; differences from the baseline; and `remarks`
    that a reader must know."""

    columns: tuple[Column, ...]
    entries: tuple[Entry, ...]
    reasons: dict[str, str]
    differences: tuple[Difference, ...]
    remarks: tuple[str, ...]


def read_compared(sources: Sequence[Path]) -> list[Measured]:
    """The evaluations named: files, folders of them, and run directories (theirs, in the order they were made).

    Raises InputError for one that cannot be read or is of another format, a folder without any, one named twice, and
    fewer than two.
    """
    found: dict[Path, Measured] = {}
    for source in sources:
        for path in _files(source):
            if path.resolve() in found:
                raise InputError(f"{path}: named twice, expected different evaluations")
            measured = read_evaluation(path)
            if measured.evaluation["format"] != f"{FORMAT}1":
                raise InputError(
                    f"{path}: its format is {measured.evaluation['format']!r}, expected '{FORMAT}1': measure it again "
                    "with `trilemma evaluate`"
                )
            found[path.resolve()] = measured
    if len(found) < 2:
        given = next(iter(found.values())).path if found else "none"
        raise InputError(f"evaluations to compare: {given} alone, expected two or more")
    return list(found.values())


def _files(source: Path) -> list[Path]:
    if not source.is_dir():
        return [source]
    folder = source / "evaluations" if (source / "evaluations").is_dir() else source
    files = sorted(folder.glob("*.json"))
    if not files:
        raise InputError(f"{source}: no *.json there, expected evaluations, or a run directory that has some")
    return sorted(files, key=lambda path: str(read_evaluation(path).evaluation.get("created") or ""))


def compare(measured: Sequence[Measured], *, baseline: str | None = None, strict: bool = False) -> Comparison:
    """Two or more evaluations against one of them: the first, or the one with the label or file `baseline`.

    Raises InputError where there is no such baseline or several, where nothing can be compared with it, and, if
    `strict`, for the first figure that cannot be.
    """
    ordered = _baseline_first(measured, baseline)
    evaluations = [one.evaluation for one in ordered]
    reasons: dict[str, str] = {}
    columns, figures = [], []
    for column in all_columns():
        row = column_figures(column, evaluations, reasons)
        if row is not None:
            columns.append(column)
            figures.append(row)
    labels = _unique_labels(evaluations)
    entries = tuple(
        Entry(labels[i], one.path, one.evaluation, {c.key: row[i] for c, row in zip(columns, figures, strict=True)})
        for i, one in enumerate(ordered)
    )
    _refuse(columns, entries, reasons, strict)
    differences = tuple(
        difference
        for i in range(1, len(entries))
        for column in columns
        if (difference := _difference(column, entries, i)) is not None
    )
    return Comparison(tuple(columns), entries, reasons, differences, tuple(_remarks(entries)))


def _baseline_first(measured: Sequence[Measured], baseline: str | None) -> list[Measured]:
    if baseline is None:
        return list(measured)
    labels = _unique_labels([one.evaluation for one in measured])
    names = [{label, str(one.path), one.path.name} for label, one in zip(labels, measured, strict=True)]
    chosen = [i for i, known in enumerate(names) if baseline in known]
    chosen = chosen or [i for i, one in enumerate(measured) if one.evaluation["label"] == baseline]
    chosen = chosen or [i for i, one in enumerate(measured) if one.path.resolve() == Path(baseline).resolve()]
    if not chosen:
        raise unknown("baseline", baseline, labels)
    if len(chosen) > 1:
        paths = ", ".join(str(measured[i].path) for i in chosen)
        raise InputError(f"baseline {baseline!r}: may be any of {paths}; name one of these")
    return [measured[chosen[0]], *(one for i, one in enumerate(measured) if i != chosen[0])]


def _refuse(columns: Sequence[Column], entries: Sequence[Entry], reasons: Mapping[str, str], strict: bool) -> None:
    """Refuse a comparison of nothing with the baseline, and, if `strict`, one with a figure that cannot be compared."""
    rows = [(column, [entry.figures[column.key] for entry in entries]) for column in columns]
    marked = [(entries[i], column, figure) for column, row in rows for i, figure in enumerate(row) if figure.letters]
    entry, why = entries[1], "they have no figure in common"
    if marked:
        entry, column, figure = marked[0]
        why = f"{column.title}: {reasons[figure.letters[0]]}"
    if not any(
        row[0].comparable and any(figure.comparable for figure in row[1:])
        for column, row in rows
        if column.key not in EXACT
    ):
        raise InputError(f"{entry.path}: nothing can be compared with {entries[0].path} ({why})")
    if strict and marked:
        raise InputError(f"{entry.path}: not comparable with {entries[0].path}: {why}")


def _difference(column: Column, entries: Sequence[Entry], i: int) -> Difference | None:
    """Entry i's figure less the baseline's, None where either lacks it or they cannot be compared."""
    mine, base = entries[i].figures[column.key], entries[0].figures[column.key]
    if not (mine.comparable and base.comparable) or mine.value is None or base.value is None:
        return None
    value, error, z = mine.value - base.value, None, None
    better: Outcome = "better" if (value < 0) == (column.better == "low") else "worse"
    outcome: Outcome = "no standard error known"
    if value == 0:
        outcome = "equal"
    elif column.key in EXACT:
        outcome = better
    elif mine.error is not None and base.error is not None:
        if same_samples(entries[0].evaluation, entries[i].evaluation):
            outcome = "the same samples"
        else:
            error = math.hypot(mine.error, base.error)
            z = value / error if error else None
            outcome = better if z is None or abs(z) >= LIMIT else "within the noise"
    return Difference(i, column.key, value, error, z, outcome, _difference_words(column, value, error, z, outcome))


def _difference_words(column: Column, value: float, error: float | None, z: float | None, outcome: Outcome) -> str:
    if outcome == "equal":
        return "equal"
    text = f"{'lower' if value < 0 else 'higher'} by {shown(column, abs(value), error)}"
    if z is not None:
        text += f" ({abs(z):.1f} standard errors)"
    return f"{text}: {outcome}" + (", so not independent: no error known" if outcome == "the same samples" else "")


def same_samples(a: Evaluation, b: Evaluation) -> bool:
    """Whether two evaluations measured the very same samples, by hash."""
    digest = lookup(a, "samples.sha256")
    return bool(digest) and digest == lookup(b, "samples.sha256")


def _same_noise(a: Evaluation, b: Evaluation) -> bool:
    if is_yardstick(b) or same_samples(a, b) or lookup(a, "samples.seeds") is None:
        return False
    return all(str(lookup(a, path)) == str(lookup(b, path)) for path in ("samples.seeds", "samples.classes"))


def _remarks(entries: Sequence[Entry]) -> list[str]:
    """What standard errors cannot say, and the evaluations' own warnings, each once."""
    remarks = []
    digests = [lookup(entry.evaluation, "samples.sha256") for entry in entries]
    for digest in dict.fromkeys(d for d in digests if d):
        labels = [f"“{entry.label}”" for entry, d in zip(entries, digests, strict=True) if d == digest]
        if len(labels) > 1:
            remarks.append(f"{' and '.join(labels)} measured the same samples: their figures are not independent")
    first = entries[0].evaluation
    shared = [] if is_yardstick(first) else [entry for entry in entries[1:] if _same_noise(first, entry.evaluation)]
    if shared:
        who = "all" if len(shared) == len(entries) - 1 else ", ".join(f"“{entry.label}”" for entry in shared)
        remarks.append(
            f"same seeds as the baseline's ({who}): samples that begin from the same noise are alike; the standard "
            "error of a difference takes them as independent, and is likely too large"
        )
    about: dict[str, list[str]] = {}
    for entry in entries:
        warnings = lookup(entry.evaluation, "warnings")
        for warning in warnings if isinstance(warnings, list) else ():
            about.setdefault(str(warning), []).append(f"“{entry.label}”")
    for text, labels in about.items():
        remarks.append(f"{text} ({'all' if len(labels) == len(entries) else ', '.join(labels)})")
    return remarks
