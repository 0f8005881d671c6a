"""How many samples a classifier puts in each class, a row a way of sampling, beside what was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trilemma.report.pictures import ClassNames, named
from trilemma.report.tables import Row, Table

MOST = 20
"""Classes that are shown, at most."""

Cells = list[tuple[float, float]]
"""A class's share of the images, in %, and how far that is from the share expected, from −1 to 1."""


@dataclass(frozen=True)
class Balance:
    """Shares by way and class; `expected` says what they are held against, `more` how many classes there are where not
    all are shown."""

    classes: list[str]
    models: dict[str, Cells]
    yardsticks: dict[str, Cells]
    expected: str = ""
    more: int = 0


def balance(table: Table, names: ClassNames = lambda _: ()) -> Balance | None:
    """The table's class counts of the classes that most of it knows; None without any.

    Shares are held against even ones where classes were asked for evenly, else against a yardstick's, if there is one.
    Of many classes those are shown that are farthest from it, over all ways."""
    shares = {row.label: found for row in table.rows if (found := _shares(row)) is not None}
    if not shares:
        return None
    sizes = [len(found) for found in shares.values()]
    size = max(sizes, key=sizes.count)
    rows = [row for row in table.rows if row.label in shares and len(shares[row.label]) == size]
    models = [row for row in rows if not row.evaluation.yardstick]
    yardsticks = [row for row in rows if row.evaluation.yardstick]
    even = {row.evaluation.samples.classes for row in models} == {"balanced"}
    against = np.full(size, 100 / size) if even else shares[yardsticks[0].label] if yardsticks else None
    off = {
        row.label: np.zeros(size)
        if against is None
        else np.clip(shares[row.label] / np.maximum(against, 1e-9) - 1, -1, 1)
        for row in rows
    }
    far = np.max([np.abs(off[row.label]) for row in models or rows], axis=0)
    chosen = np.sort(np.argsort(-far, kind="stable")[:MOST])

    def cells(some: Sequence[Row]) -> dict[str, Cells]:
        return {row.label: [(float(shares[row.label][c]), float(off[row.label][c])) for c in chosen] for row in some}

    known = next((found for found in (names(row.evaluation) for row in models) if len(found) == size), ())
    expected = "" if against is None else "the even share" if even else f"“{yardsticks[0].label}”"
    classes = named(known, [int(c) for c in chosen])
    return Balance(classes, cells(models), cells(yardsticks), expected, size if size > MOST else 0)


def _shares(row: Row) -> np.ndarray | None:
    counts = row.evaluation.metrics.get("class_counts")
    if not isinstance(counts, list) or not counts:
        return None
    values = np.asarray(counts, dtype=float)
    return 100 * values / max(values.sum(), 1)
