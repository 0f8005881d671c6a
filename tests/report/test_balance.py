"""Shares of classes: held against what was asked for, under their names."""

from __future__ import annotations

import pytest

from trilemma.report.balance import MOST, balance
from trilemma.report.tables import build_table


def table(evaluation, *counts, **changes):
    return build_table([evaluation(f"way {i}", metrics__class_counts=one, **changes) for i, one in enumerate(counts)])


def test_shares_are_held_against_even_ones_where_these_were_asked_for(evaluation):
    shown = balance(table(evaluation, [10, 30], [20, 20]), lambda _: ["cat", "dog"])
    assert (shown.classes, shown.expected, shown.more) == (["cat", "dog"], "the even share", 0)
    assert shown.models == {"way 0": [(25.0, -0.5), (75.0, 0.5)], "way 1": [(50.0, 0.0), (50.0, 0.0)]}


def test_else_against_real_images_or_nothing(evaluation):
    real = evaluation("real", subject={"kind": "data", "path": "x"}, metrics__class_counts=[30, 10])
    free = evaluation("free", samples__classes=None, metrics__class_counts=[15, 25])
    shown = balance(build_table([free, real]))
    assert shown.expected == "“real”" and list(shown.yardsticks) == ["real"]
    assert [off for _, off in shown.models["free"]] == pytest.approx([-0.5, 1.0])
    assert balance(build_table([free])).models == {"free": [(37.5, 0.0), (62.5, 0.0)]}


def test_of_many_classes_the_farthest_are_shown_in_their_order(evaluation):
    counts = [10] * 50
    counts[7], counts[44] = 0, 30
    shown = balance(table(evaluation, counts))
    assert (len(shown.classes), shown.more) == (MOST, 50)
    assert {"7", "44"} <= set(shown.classes) and shown.classes == sorted(shown.classes, key=int)


def test_there_is_none_without_counts(evaluation):
    assert balance(table(evaluation, None, [])) is None
