"""What a figure of an evaluation depends on, and so which figures of a measure can be compared with one another.

What a figure depends on is its column's `basis`: dotted paths in the evaluation. One measured otherwise than the first
of its column is kept, marked with the letter of the reason, and never the best.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from trilemma.metrics import METRICS
from trilemma.report.tables import AXES, DASH, Column, Evaluation, _figure, is_yardstick, lookup, significant

_WITH = ("features", "features.resize")
_AGAINST = ("reference", *_WITH)
_MACHINE = tuple(f"environment.{part}" for part in ("device", "hardware", "threads", "processes"))
_TIMED = (*_MACHINE, "metrics.speed_batch")
_BASIS = {
    # Unbiased, extrapolated, or the mean over generated images of something that each has by itself: N does not matter.
    "kid": _AGAINST,
    "frechet_infinity": _AGAINST,
    "memorisation": (*_AGAINST, "reference.holdout"),
    "recognised": (*_WITH, "samples.classes"),
    "confidence": (*_WITH, "samples.classes"),
    "inception_score": (*_WITH, "samples.count"),
    "precision": (*_AGAINST, "samples.count", "neighbours"),
    "recall": (*_AGAINST, "samples.count", "neighbours"),
    "images_per_second": _TIMED,
}
_NOUNS = {
    "samples.count": "N",
    "samples.classes": "classes asked for",
    "neighbours": "k (nearest neighbours)",
    "features.resize": "resize",
    "metrics.speed_batch": "batch",
    "metrics.peak_memory_kind": "kind of memory",
    "reference.holdout": "held-out images",
}
_WHERE_RECORDED = ("samples.classes", "neighbours")
_TITLES = {
    "frechet_distance": "Fréchet distance",
    "frechet_infinity": "Fréchet, N → ∞",
    "sfid": "sFID",
    "kid": "KID",
    "balance_kl": "balance KL",
    "images_per_second": "images/s",
}
_SHARES = ("precision", "recall", "density", "coverage", "recognised", "confidence", "memorisation")


@dataclass(frozen=True)
class Figure:
    """One figure: its value (None where it was not measured), its standard error if that is known, whether it can be
    compared with its column's, the letters of the reasons why not, and whether it is the best of those that can."""

    value: float | None
    error: float | None
    text: str
    best: bool = False
    letters: tuple[str, ...] = ()

    @property
    def comparable(self) -> bool:
        """Whether it was measured, and as the baseline's was."""
        return self.value is not None and not self.letters


@cache
def all_columns() -> tuple[Column, ...]:
    """Every measure of `METRICS` as a column, and what the timing of a sampler gives, in the order of the axes."""
    columns = [
        Column(
            name,
            metric.axis,
            _TITLES.get(name, name.replace("_", " ")),
            "low" if metric.better == "lower" else "high",
            "{:.3f}".format if name in _SHARES else significant,
            metric.description,
            _BASIS.get(name, (*_AGAINST, "samples.count")),
        )
        for name, metric in METRICS.items()
    ]
    columns += [
        Column("network_evaluations", "speed", "network evaluations", "low", "{:g}".format, "passes for one image", (),
               short="NFE"),
        Column("multiply_adds", "speed", "multiply-adds", "low", "{:.3g}".format, "for one image", ()),
        Column("peak_memory_bytes", "speed", "peak memory, bytes", "low", "{:.3g}".format, "while sampling",
               (*_TIMED, "metrics.peak_memory_kind"), short="peak memory, B"),
    ]  # fmt: skip
    return tuple(sorted(columns, key=lambda column: AXES.index(column.axis)))


EXACT = ("network_evaluations", "multiply_adds")
"""Counts: they have no error, and depend on nothing that was measured."""


def column_figures(column: Column, evaluations: Sequence[Evaluation], reasons: dict[str, str]) -> list[Figure] | None:
    """A column's figures, None where nobody has any. New reasons are added to `reasons`."""
    values = [_value(evaluation, column) for evaluation in evaluations]
    first = next((e for e, value in zip(evaluations, values, strict=True) if value is not None), None)
    if first is None:
        return None
    made = []
    for evaluation, value in zip(evaluations, values, strict=True):
        error = _error(evaluation, column, value)
        letters = () if value is None else tuple(_letter(why, reasons) for why in _unlike(column, evaluation, first))
        made.append(Figure(value, error, shown(column, value, error), False, letters))
    return _best_marked(column, made, [is_yardstick(evaluation) for evaluation in evaluations])


def _value(evaluation: Evaluation, column: Column) -> float | None:
    value = _figure(evaluation, column.key)
    if value is None and column.key == "network_evaluations":
        count = lookup(evaluation, "sampler.network_evaluations")
        return float(count) if isinstance(count, int) else None
    return value


def _error(evaluation: Evaluation, column: Column, value: float | None) -> float | None:
    """The standard error: as recorded, binomial for the share recognised, else None."""
    if value is None:
        return None
    error, count = _figure(evaluation, f"{column.key}_se"), lookup(evaluation, "samples.count")
    if error is not None and error >= 0:
        return error
    if column.key == "recognised" and isinstance(count, int) and count > 0 and 0 <= value <= 1:
        return math.sqrt(value * (1 - value) / count)
    return None


def shown(column: Column, value: float | None, error: float | None) -> str:
    """A figure with two digits of its standard error and as many decimals."""
    if value is None:
        return DASH
    if not error:
        return column.show(value) + (" ± 0" if error == 0 else "")
    decimals = max(0, 1 - math.floor(math.log10(error)))
    return f"{value:.{decimals}f} ± {error:.{decimals}f}" if decimals < 8 else f"{value:.3g} ± {error:.1e}"


def _best_marked(column: Column, figures: Sequence[Figure], yardsticks: Sequence[bool]) -> list[Figure]:
    """With the best marked, and those that read the same, among two or more models that can be compared."""
    models = [f for f, real in zip(figures, yardsticks, strict=True) if f.comparable and not real]
    if len(models) < 2:
        return list(figures)
    top = (min if column.better == "low" else max)(models, key=lambda figure: figure.value or 0.0)
    read = top.text.split(" ±")[0]
    best = [figure.value == top.value or figure.text.split(" ±")[0] == read for figure in figures]
    return [
        replace(f, best=f.comparable and not real and is_best)
        for f, real, is_best in zip(figures, yardsticks, best, strict=True)
    ]


def _letter(reason: str, reasons: dict[str, str]) -> str:
    """The letter of a reason: a new one for a reason that has none."""
    for letter, known in reasons.items():
        if known == reason:
            return letter
    turn, place = divmod(len(reasons), 25)
    letter = "abcdefghijklmnoprstuvwxyz"[place] * (turn + 1)  # no q: it has no superscript
    reasons[letter] = reason
    return letter


def _unlike(column: Column, evaluation: Evaluation, first: Evaluation) -> list[str]:
    """What a figure depends on that is not as it is for the first of its column, each naming both."""
    found = []
    for path in column.basis:
        a, b = lookup(evaluation, path), lookup(first, path)
        if not _alike(path, a, b):
            mine, others = _words(path, a), _words(path, b)
            if mine == others:
                mine, others = (f"{text} ({_digest(fact)})" for text, fact in ((mine, a), (others, b)))
            found.append(f"other {_NOUNS.get(path, path.split('.')[-1])}: {mine} against {others}")
    return found


def _alike(path: str, a: Any, b: Any) -> bool:
    if path in _WHERE_RECORDED and (a is None or b is None):
        return True
    if not (isinstance(a, Mapping) and isinstance(b, Mapping)):
        return bool(a == b)
    hashed = any(one.get("sha256") for one in (a, b))
    names = ("name",) if path == "features" else ("data", "split", "count")
    parts = (("sha256",) if hashed else names) + (("dim",) if path == "features" else ())
    return all(a.get(part) == b.get(part) for part in parts)


def _words(path: str, fact: Any) -> str:
    if fact is None:
        return "not recorded"
    if path == "features" and isinstance(fact, Mapping):
        return f"{fact.get('name')}, {fact.get('dim')} dimensions"
    if isinstance(fact, Mapping):
        name = ":".join(str(fact[part]) for part in ("data", "split") if fact.get(part))
        return f"{name}, {fact.get('count')} images"
    return str(fact)


def _digest(fact: Any) -> str:
    digest = fact.get("sha256") if isinstance(fact, Mapping) else None
    return f"sha256 {str(digest)[:12]}" if digest else "sha256 not recorded"
