"""The table: what is compared with what, what is marked, and how it is shown."""

from __future__ import annotations

import io

from rich.console import Console

from trilemma.report.html import render
from trilemma.report.table_views import to_markdown, to_rich
from trilemma.report.tables import DASH, build_table, natural


def best(table):
    return {c.metric.name: [row.label for row in table.leaders(c)] for c in table.columns}


def test_best_of_each_column_is_a_model_and_all_level_with_it(evaluations):
    assert best(build_table(evaluations)) == {
        "frechet_distance": ["Ancestral, 200 steps"],
        "recognised": ["Ancestral, 200 steps", "DDIM, 10 steps"],  # 0.5 standard errors apart
        "precision": ["DDIM, 10 steps"],
        "recall": ["Ancestral, 200 steps"],
        "balance_kl": ["Ancestral, 200 steps", "Ancestral, 20 steps", "DDIM, 10 steps"],
        "images_per_second": ["DDIM, 10 steps"],
        "network_evaluations": ["DDIM, 10 steps"],
    }


def test_a_lone_figure_is_no_best_and_nor_is_one_without_an_error(evaluation):
    a = evaluation("a", metrics={"recall": 0.8, "precision": 0.9, "kid": 0.1, "kid_se": 0.01})
    b = evaluation("b", metrics={"recall": 0.7, "kid": 0.2, "kid_se": 0.01})
    table = build_table([a, b], every=True)
    assert best(table) == {"kid": ["a"], "precision": [], "recall": [], "network_evaluations": ["a", "b"]}
    assert table.column("precision").text(table.rows[1].cells["precision"]) == DASH
    shown = [column.metric.name for column in build_table([a, b]).columns]
    assert shown == ["precision", "recall", "network_evaluations"]


def test_a_column_that_nobody_measured_is_left_out(evaluation):
    table = build_table([evaluation("a", metrics={"recall": 0.5}, sampler=None)])
    assert [column.metric.name for column in table.columns] == ["recall"]


def test_yardstick_stands_last_and_is_never_best(evaluations):
    table = build_table([evaluations[3], *evaluations[:3]])
    assert [row.evaluation.yardstick for row in table.rows] == [False, False, False, True]
    assert not any(cell.best for cell in table.rows[3].cells.values())
    assert table.rows[3].cells["frechet_distance"].value < min(r.cells["frechet_distance"].value for r in table.models)


def test_what_was_measured_otherwise_is_marked_and_never_best(evaluation):
    better = {"metrics__frechet_distance": 0.1, "metrics__images_per_second": 1e4, "metrics__recall": 0.99}
    table = build_table([evaluation("odd", samples__count=300, **better), evaluation("a"), evaluation("c")])
    odd, *others = table.rows
    marked = {name for name, cell in odd.cells.items() if not cell.comparable}
    assert marked == {"frechet_distance", "precision", "recall", "balance_kl"}
    assert table.reasons == {"a": "other N: 300 against 500"}, "most of a column decide, not the first"
    assert all(odd.cells[name].letters == ("a",) and not odd.cells[name].best for name in marked)
    assert all(cell.comparable for row in others for cell in row.cells.values())
    html = render([], [row.evaluation for row in table.rows])
    assert html.count('href="#note-a"') == len(marked) and 'id="note-a"' in html
    assert "<sup>a</sup> not comparable: other N: 300 against 500" in to_markdown(table)


def test_several_reasons_have_a_letter_each_and_share_them(evaluation):
    odd = {"samples__count": 300, "features__resize": "clean"}
    ways = [evaluation("a"), evaluation("b", **odd), evaluation("c", **odd), evaluation("d", samples__count=200)]
    table = build_table(ways, baseline=True)
    letters = [row.cells["frechet_distance"].letters for row in table.rows]
    assert list(table.reasons) == ["a", "b", "c"] and letters[0] == ()
    assert letters[1] == letters[2] and (len(letters[1]), len(letters[3])) == (2, 1)


def test_equal_labels_are_told_apart(evaluation):
    same = [evaluation("DDIM"), evaluation("DDIM", subject__path="runs/other/"), evaluation("DDIM"), evaluation("x")]
    assert [row.label for row in build_table(same).rows] == ["DDIM (demo)", "DDIM (other)", "DDIM (demo) #2", "x"]


def test_rows_of_one_name_are_told_apart_by_how_they_were_measured(evaluation):
    pixels = {"features__name": "pixels", "features__sha256": None}
    ways = [evaluation("a"), evaluation("a", samples__count=20), evaluation("a", **pixels), evaluation("a", **pixels)]
    assert [row.label for row in build_table(ways).rows] == [
        "a (demo), N 500, digits", "a (demo), N 20, digits", "a (demo), N 500, pixels", "a (demo), N 500, pixels #2",
    ]  # fmt: skip


def text_of(table, width=100):
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(to_rich(table))
    return console.export_text()


def test_terminal_table_holds_every_figure_and_fits_100_columns(evaluation, evaluations):
    table = build_table([*evaluations, evaluation("odd", samples__count=300)])
    text = text_of(table)
    assert max(map(len, text.splitlines())) <= 100
    for column in table.columns:
        line = next(line for line in text.splitlines() if line.strip().startswith(column.title))
        for row in table.rows:
            cell = row.cells[column.metric.name]
            mark = "*" if cell.best else "ᵃ" if cell.letters else ""
            assert column.text(cell, errors=True).replace("± ", "±") + mark in line
    assert "ᵃ not comparable: other N: 300 against 500" in text
    assert text.count("FD-500") == 1 < text_of(build_table([*evaluations] * 2)).count("FD-500")


def test_html_table_groups_axes_and_escapes(evaluation):
    html = render([], [evaluation('<script>alert("x")</script>'), evaluation("b")])
    assert '<th colspan="3" scope="colgroup" class="axis quality">' in html
    assert '<th colspan="2" scope="colgroup" class="axis coverage">' in html
    assert "<script>alert" not in html
    assert "&lt;script&gt;" in html


def test_labels_sort_as_numbers():
    labels = ["ddim, 2 steps", "ddim, 10 steps", "ddim, 10 steps, guidance 0.5", "ddim, 10 steps, guidance 2"]
    labels += ["DDIM, 10 steps, guidance 10", "ddim, 100 steps", "heun, 5 steps"]
    assert sorted(reversed(labels), key=natural) == labels
