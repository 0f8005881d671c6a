"""The verdict is what the figures say, and no more."""

from __future__ import annotations

import json
import re
from pathlib import Path

from trilemma.report.compare import compare
from trilemma.report.html import build_report, render
from trilemma.report.sources import read_compared, read_sources
from trilemma.report.table_views import to_markdown
from trilemma.report.tables import build_table
from trilemma.report.verdict import axis_verdicts, deciding_column, ranked, standing_lines, verdict


def test_each_axis_has_its_leader_and_the_price_of_speed_is_named(evaluations):
    table = build_table(evaluations)
    assert [(v.axis, v.leaders) for v in axis_verdicts(table)] == [
        ("quality", ("Ancestral, 200 steps",)),
        ("coverage", ("Ancestral, 200 steps",)),
        ("speed", ("DDIM, 10 steps",)),
    ]
    assert verdict(table) == [
        "“Ancestral, 200 steps” wins on quality and coverage; “DDIM, 10 steps” wins on speed.",
        "“DDIM, 10 steps” makes 19 times as many images a second as “Ancestral, 200 steps”, "
        "at FD-500 11.6 against 9.87.",
        "The yardstick, “Real held-out digits”, stands at FD-500 1.93, recognised 99.2 %, precision 0.930, "
        "recall 0.942, balance KL 0.000.",
    ]


def test_one_way_may_win_everything(evaluation):
    good = evaluation("good", metrics__frechet_distance=1.0, metrics__recall=0.9, metrics__images_per_second=200.0)
    assert verdict(build_table([evaluation("bad"), good])) == ["“good” wins on all three axes."]


def test_ways_within_two_standard_errors_are_level_and_beyond_are_not(evaluation):
    # Both recalls have a standard error of 0.01, their difference one of 0.0141.
    for recall, leaders in ((0.528, ("a", "b")), (0.529, ("a",))):
        table = build_table([evaluation("a", metrics__recall=recall), evaluation("b", metrics__recall=0.5)])
        assert {v.axis: v.leaders for v in axis_verdicts(table)}["coverage"] == leaders


def test_without_a_known_error_an_axis_is_undecided_unless_another_figure_decides_it(evaluation):
    figures = {"recall": 0.5, "balance_kl": 0.1, "balance_kl_se": 0.01}
    a, b = evaluation("a", metrics=figures), evaluation("b", metrics=figures | {"recall": 0.9, "balance_kl": 0.2})
    assert axis_verdicts(build_table([a, b]))[0].leaders == ("a",), "by the balance"
    del figures["balance_kl"]
    a, b = (
        evaluation("a", metrics=figures, sampler=None),
        evaluation("b", metrics=figures | {"recall": 0.9}, sampler=None),
    )
    (undecided,) = axis_verdicts(build_table([a, b]))
    assert (undecided.leaders, undecided.figure) == ((), "recall 0.900")
    assert undecided.detail == "no standard error known"
    assert verdict(build_table([a, b])) == ["Coverage is undecided."]


def test_equal_ways_are_level_on_all_axes(evaluation):
    assert verdict(build_table([evaluation("a"), evaluation("b")])) == ["All ways are level on all three axes."]


def test_a_figure_that_cannot_be_compared_does_not_win(evaluation):
    other = evaluation("other", features__sha256="00", metrics__frechet_distance=0.1)
    quality = axis_verdicts(build_table([evaluation("a"), other, evaluation("c", metrics__frechet_distance=13.9)]))[0]
    assert quality.leaders == ("a",)


def test_recognised_decides_where_there_is_no_distance(evaluation):
    pair = [evaluation(label, metrics={"recognised": share}, sampler=None) for label, share in (("a", 0.7), ("b", 0.9))]
    verdicts = axis_verdicts(build_table(pair))
    assert [(v.axis, v.leaders, v.figure) for v in verdicts] == [("quality", ("b",), "recognised 90.0 %")]


def test_a_single_way_is_described_not_ranked(evaluation):
    (sentence,) = verdict(build_table([evaluation("DDIM, 10 steps")]))
    assert sentence.startswith("DDIM, 10 steps: FD-500 12.3, recognised 87.4 %")
    assert "images/s 81.2, network evaluations 10" in sentence


def test_without_models_there_is_no_verdict(evaluations):
    assert verdict(build_table(evaluations[3:])) == []
    assert verdict(build_table([])) == []


def test_what_speed_costs_is_said_to_be_level_where_it_is(evaluation):
    fine = evaluation("fine", metrics__frechet_distance=12.0)
    fast = evaluation("fast", metrics__images_per_second=200.0)
    assert verdict(build_table([fine, fast]))[1] == (
        "“fast” makes 2.5 times as many images a second as “fine”, at FD-500 12.3 against 12.0, which is level."
    )
    assert len(verdict(build_table([fine, evaluation("no faster", metrics__images_per_second=81.4)]))) == 1


def test_verdict_bold_and_comparison_say_the_same_of_the_demos_figures():
    evaluations = read_compared([Path(__file__).parents[2] / "results" / "demo"])
    table = build_table(evaluations)
    bold = {column.metric.name: {row.label for row in table.leaders(column)} for column in table.columns}
    for v in axis_verdicts(table):
        assert bold[deciding_column(table, v.axis).metric.name] == set(v.leaders)
    for column in table.columns:
        best = ranked(table, column)[0]
        comparison = compare(evaluations, baseline=best.label)
        said = {
            one.row.label: one.judgement.outcome
            for one in comparison.differences
            if one.column.metric is column.metric and not one.row.evaluation.yardstick
        }
        level = {best.label, *(label for label, outcome in said.items() if outcome == "level")}
        assert bold[column.metric.name] == (set() if "not comparable" in said.values() else level)
        assert "better" not in said.values()
    text = to_markdown(table)
    assert "**0.802**" in text and "**0.804**" in text, "0.1 standard errors apart"
    assert verdict(table)[0].startswith(
        "“DDIM, 16 steps, guidance 0.5” wins on quality and speed; “Ancestral, 32 steps” and"
    )


def test_where_a_run_stands_is_said_under_its_own_name_by_what_lies_in_it(run, tmp_path, evaluation):
    """The directory's name, whatever the recipe and the evaluations' subjects are called."""
    products = run.rename(tmp_path / "products")
    runs, evaluations = read_sources([products])
    stands, *advice = standing_lines(runs, evaluations, named=True)
    assert stands.text.startswith("products: 5.11 ± 0.54 times as far from the training images as held-out images are")
    assert "by “Ancestral, 200 steps”, against 1.93 ± 0.20" in stands.text
    assert advice[0].text.startswith("Next: ") and len(advice) <= 3
    assert all(one.command == "" or "products" in one.command for one in advice)
    elsewhere = evaluation("elsewhere", metrics__frechet_distance=0.1)
    assert standing_lines(runs, [*evaluations, elsewhere], named=True)[0] == stands
    page = build_report([products]).read_text()
    assert f'<p title="{"; ".join(map(str, stands.figures))}">5.11 ± 0.54 times as far' in page
    assert f"<br><code>{advice[0].command}</code>" in page
    assert page.index('id="standing"') < page.index('id="verdict"')


def test_the_table_has_every_figure_that_the_standing_rests_on(run):
    file = next((run / "evaluations").glob("*.json"))
    content = json.loads(file.read_text())
    content["metrics"] |= {"memorisation": 0.02, "memorisation_se": 0.01}
    file.write_text(json.dumps(content))
    page = build_report([run]).read_text()
    assert "sign of memorising: 2.0 ± 1.0 %" in page
    assert re.search(r"<span>memorisation</span>", page) and ">0.020<" in page, "and in the table"


def test_a_page_tells_of_a_line_only_where_it_is_drawn(run, evaluation):
    real = evaluation("real", subject={"kind": "data"}, sampler=None, samples__count=20)
    dashed = "The dashed line is what real images measure"
    assert dashed in render([], [evaluation("a"), real.model_copy(update={"samples": evaluation("b").samples})])
    assert dashed not in render([], [evaluation("a"), real]), "other N"


def test_the_folder_of_a_runs_evaluations_is_the_run(run):
    assert build_report([run / "evaluations"]) == run / "report.html"
    assert read_sources([run / "evaluations"])[1] == read_sources([run])[1]


def test_a_recipe_that_cannot_be_read_costs_no_report(run):
    (run / "recipe.yaml").write_text("learner: {name: of a package that is not here}\nimages: 3")
    runs, evaluations = read_sources([run])
    assert standing_lines(runs, evaluations, named=False)[0].text.startswith("5.11")
    (run / "recipe.yaml").write_text("[")
    assert read_sources([run])[0][0].values == {}
