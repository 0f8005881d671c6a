"""The table: what is compared with what, what is marked, and how it is shown."""

from __future__ import annotations

import io
import math

import pytest
from rich.console import Console

from trilemma.report import build_table, to_html, to_rich
from trilemma.report.tables import DASH, count_name, significant


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0.00"), (0.01234, "0.0123"), (1.234, "1.23"), (12.34, "12.3"), (123.4, "123"), (12345.6, "12 346"),
     (0.00012, "1.2e-04"), (-1.234, "-1.23")],
)  # fmt: skip
def test_three_significant_digits(value, text):
    assert significant(value) == text


def test_a_result_is_named_by_its_sample_count():
    assert [count_name(n) for n in (500, 5000, 50_000, 49_984, 0)] == ["500", "5k", "50k", "49984", "0"]


def test_best_of_each_column_is_a_model_and_follows_the_arrow(evaluations):
    table = build_table(evaluations)
    best = {c.key: [r.label for r in table.rows if r.cells[c.key].best] for c in table.columns}
    assert best == {
        "frechet_distance": ["Ancestral, 200 steps"],
        "recognised": ["Ancestral, 200 steps"],
        "precision": ["DDIM, 10 steps"],
        "recall": ["Ancestral, 200 steps"],
        "balance_kl": ["Ancestral, 200 steps"],
        "images_per_second": ["DDIM, 10 steps"],
        "network_evaluations": ["DDIM, 10 steps"],
    }


def test_figures_that_read_the_same_are_both_best_and_a_lone_one_is_not(evaluation):
    a = evaluation("a", metrics__recall=0.80004, metrics__precision=0.9)
    b = evaluation("b", metrics__recall=0.79996)
    del b["metrics"]["precision"]
    table = build_table([a, b])
    assert [row.cells["recall"].best for row in table.rows] == [True, True]
    assert [row.cells["precision"].best for row in table.rows] == [False, False]
    assert table.rows[1].cells["precision"].text == DASH


@pytest.mark.parametrize("missing", [None, math.nan, math.inf, "n/a", True])
def test_what_is_not_a_finite_number_is_missing(evaluation, missing):
    table = build_table([evaluation("a"), evaluation("b", metrics__recall=missing)])
    assert table.rows[1].cells["recall"].value is None
    assert table.rows[1].cells["recall"].text == DASH


def test_a_column_that_nobody_measured_is_left_out(evaluation):
    table = build_table([evaluation("a", metrics={"recall": 0.5})])
    assert [column.key for column in table.columns] == ["recall"]


def test_yardstick_stands_last_and_is_never_best(evaluations):
    table = build_table([evaluations[3], *evaluations[:3]])
    assert [row.yardstick for row in table.rows] == [False, False, False, True]
    assert not any(cell.best for cell in table.rows[3].cells.values())
    assert table.rows[3].cells["frechet_distance"].value < min(r.cells["frechet_distance"].value for r in table.models)


@pytest.mark.parametrize(
    ("change", "marked", "words"),
    [
        ({"samples__count": 300}, {"frechet_distance", "precision", "recall"}, "N = 300"),
        ({"reference__sha256": "00", "reference__split": "test", "reference__count": 500},
         {"frechet_distance", "precision", "recall", "balance_kl"}, "other reference (mnist5k:test, 500 images)"),
        ({"features__sha256": "00", "features__name": "pixels"},
         {"frechet_distance", "precision", "recall", "balance_kl", "recognised"}, "other features (pixels)"),
        ({"environment__hardware": "Other GPU"}, {"images_per_second"}, "other machine (Other GPU, 2 threads)"),
    ],
)  # fmt: skip
def test_what_is_not_comparable_is_marked_and_never_best(evaluation, change, marked, words):
    better = {"metrics__frechet_distance": 0.1, "metrics__images_per_second": 1e4, "metrics__recall": 0.99}
    table = build_table([evaluation("a"), evaluation("odd", **change, **better), evaluation("c")])
    odd = table.rows[1]
    assert {key for key, cell in odd.cells.items() if not cell.comparable} == marked
    assert all(odd.cells[key].note == 1 and not odd.cells[key].best for key in marked)
    assert len(table.notes) == 1
    assert words in table.notes[0]
    assert all(cell.comparable for row in (table.rows[0], table.rows[2]) for cell in row.cells.values())
    html = to_html(table)
    assert html.count('href="#note-1"') == len(marked)
    assert '<li id="note-1">' in html


def test_title_of_the_frechet_distance_names_count_and_features(evaluation):
    column = build_table([evaluation("a")]).column("frechet_distance")
    assert (column.title, column.unit) == ("FD-500", "digits features")
    inception = evaluation("a", features__name="inception", samples__count=50_000)
    assert build_table([inception]).column("frechet_distance").title == "FID-50k"


def test_equal_labels_are_told_apart(evaluation):
    same = [evaluation("DDIM"), evaluation("DDIM", subject__path="runs/other/"), evaluation("DDIM"), evaluation("x")]
    assert [row.label for row in build_table(same).rows] == ["DDIM (demo)", "DDIM (other)", "DDIM (demo) #2", "x"]


def test_terminal_table_holds_every_figure_and_fits_90_columns(evaluations):
    evaluations[1]["samples"]["count"] = 300
    table = build_table(evaluations)
    console = Console(width=90, record=True, file=io.StringIO())
    console.print(to_rich(table))
    text = console.export_text()
    for row in table.rows:
        line = next(line for line in text.splitlines() if line.strip().startswith(row.label))
        shown = [row.cells[c.key].text + ("¹" if row.cells[c.key].note else "") for c in table.columns]
        assert line.split()[-len(shown) :] == shown
    assert "1 not comparable with the rest of its column: N = 300 samples" in text


def test_html_table_groups_axes_and_escapes(evaluation):
    html = to_html(build_table([evaluation('<script>alert("x")</script>'), evaluation("b")]))
    assert '<th colspan="3" scope="colgroup" class="axis quality">' in html
    assert '<th colspan="2" scope="colgroup" class="axis coverage">' in html
    assert "<script" not in html
    assert "&lt;script&gt;" in html
