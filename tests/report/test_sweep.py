"""A sweep as it is shown: its axes read off the records, the front marked, every figure drawn where it belongs."""

from __future__ import annotations

import itertools
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from matplotlib.colors import to_hex
from rich.console import Console

from trilemma.evaluations import Evaluation
from trilemma.report import sweep_figure
from trilemma.report.sweep import Sweep, settings, sweep_table
from trilemma.report.sweep_figure import dial_figure, dials
from trilemma.report.sweep_page import render, write_page

Make = Callable[..., Evaluation]


def points(evaluation: Make, **axes: list[Any]) -> list[Evaluation]:
    """The evaluations of a grid: better with more steps, and less covered with more η."""
    made = []
    for i, values in enumerate(itertools.product(*axes.values())):
        own = dict(zip(axes, values, strict=True))
        steps, eta, name = own.get("steps", 10), own.get("eta", 0.0), own.get("sampler", "ddim")
        count = 2 * steps - 1 if name == "heun" else steps
        one = evaluation(
            "DDIM", samples__sha256=f"{i:064d}", sampler__name=name, sampler__eta=eta, sampler__steps=steps,
            sampler__network_evaluations=count, metrics__network_evaluations=count,
            metrics__frechet_distance=100 / steps + eta, metrics__recall=0.7 - eta / 10,
        )  # fmt: skip
        one = one.model_copy(update={"path": Path(f"evaluations/{name}-{steps}-{eta}.json")})
        made.append(one)
    return made


def words(svg: str) -> list[str]:
    return [
        text for node in ElementTree.fromstring(svg).iter() if node.tag.endswith("text") for text in node.itertext()
    ]


class TestAxes:
    def test_are_the_settings_with_several_values_the_fastest_last(self, evaluation: Make) -> None:
        sweep = Sweep.of(points(evaluation, steps=[20, 5], sampler=["ddim", "heun"]))
        assert sweep.axes == {"steps": [5, 20], "sampler": ["ddim", "heun"]}, "numbers in their order"
        assert [row.label for row in sweep.table.rows] == [
            f"{steps} steps, {name}" for steps in (5, 20) for name in ("ddim", "heun")
        ]

    def test_are_none_of_one_point(self, evaluation: Make) -> None:
        sweep = Sweep.of([evaluation("DDIM, 10 steps")])
        assert sweep.axes == {} and sweep.table.rows[0].label == "DDIM, 10 steps"
        assert dials(sweep) == [] and len(sweep.front) == 1
        assert "one point" in render(sweep)

    def test_where_walks_begin_is_a_setting(self, evaluation: Make) -> None:
        begun = [evaluation("a", sampler__surrogate={"name": "s.npz", "t_mid": t}) for t in (5.0, 9.0)]
        assert settings(begun[0])["t_mid"] == 5.0
        assert Sweep.of(begun).axes == {"t_mid": [5.0, 9.0]}


class TestFront:
    def test_is_of_quality_coverage_and_the_cost(self, evaluation: Make) -> None:
        sweep = Sweep.of(points(evaluation, steps=[5, 10], eta=[0.0, 5.0]))
        assert [column.metric.name for column in sweep.deciding] == [
            "frechet_distance",
            "recall",
            "network_evaluations",
        ]
        assert [row.label for row in sweep.front] == ["5 steps, eta 0", "10 steps, eta 0"]
        assert sweep.verdict == (
            "2 of 4 points are on the Pareto front of FD-500, recall and network evaluations: “5 steps, eta 0”, "
            "“10 steps, eta 0”."
        )

    def test_the_speed_decides_where_the_cost_is_one(self, evaluation: Make) -> None:
        sweep = Sweep.of(points(evaluation, eta=[0.0, 5.0]))
        assert sweep.deciding[-1].metric.name == "images_per_second"

    def test_the_metrics_that_were_asked_for(self, evaluation: Make) -> None:
        sweep = Sweep.of(points(evaluation, steps=[5, 10]), ["precision"])
        assert [column.metric.name for column in sweep.table.columns] == ["precision", "network_evaluations"]
        assert [column.metric.name for column in sweep.dials] == ["precision"]
        assert [column.metric.name for column in sweep.deciding] == ["precision", "network_evaluations"]


def test_the_terminals_table_has_a_line_a_point_and_marks_the_front(evaluation: Make) -> None:
    console = Console(width=140, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(sweep_table(Sweep.of(points(evaluation, steps=[5, 10], eta=[0.0, 5.0]))))
    lines = [line.split() for line in console.export_text().splitlines()]
    rows = [line for line in lines if line and line[0] in ("◆", "5", "10") and len(line) > 6 and line[1] != "on"]
    assert [row[: 2 + (row[0] == "◆")] for row in rows] == [["◆", "5", "0"], ["5", "5"], ["◆", "10", "0"], ["10", "5"]]
    assert rows[0][3] == "20.0" and rows[-1][2] == "15.0"


class TestFigure:
    def test_draws_each_metric_with_its_errors(self, evaluation: Make, monkeypatch: pytest.MonkeyPatch) -> None:
        drawn: list[Any] = []
        original = sweep_figure.svg_text
        monkeypatch.setattr(sweep_figure, "svg_text", lambda figure: drawn.append(figure) or original(figure))
        sweep = Sweep.of(points(evaluation, steps=[10, 5], sampler=["ddim", "heun"]))
        assert dials(sweep) == ["steps"]
        svg = dial_figure(sweep, "steps")
        assert svg is not None
        panels = [panel for panel in drawn[0].axes if panel.get_title(loc="left")]
        assert [panel.get_title(loc="left") for panel in panels] == [
            "FD-500 ↓",
            "precision ↑",
            "recall ↑",
            "recognised, % ↑",
        ]
        lines = panels[0].containers
        assert [container.lines[0].get_xydata().tolist() for container in lines] == [
            [[5.0, 20.0], [10.0, 10.0]], [[9.0, 20.0], [19.0, 10.0]],
        ]  # fmt: skip
        bars = lines[0].lines[2][0].get_segments()
        assert [bar[:, 1].tolist() for bar in bars] == [[19.8, 20.2], [9.8, 10.2]]
        assert len({to_hex(container.lines[0].get_color()) for container in lines}) == 2
        marks = [line for line in panels[0].lines if line.get_marker() in ("o", "s") and line.get_linestyle() == "None"]
        filled = [line for line in marks if to_hex(line.get_markerfacecolor()) != "#ffffff"]
        assert [line.get_xydata()[:, 0].tolist() for line in filled] == [[5.0, 10.0]], "on the front"
        assert {"network evaluations", "ddim", "heun", "on the Pareto front", "off it"} <= set(words(svg))

    def test_one_for_each_dial_of_numbers(self, evaluation: Make) -> None:
        sweep = Sweep.of(points(evaluation, sampler=["ddim", "heun"], eta=[0.0, 0.5, 1.0], steps=[5, 10]))
        assert dials(sweep) == ["eta", "steps"]
        against_eta, against_steps = (dial_figure(sweep, dial) for dial in dials(sweep))
        assert against_eta is not None and against_steps is not None
        assert {"5 steps", "10 steps", "ddim", "heun"} <= set(words(against_eta))
        assert {"eta 0", "eta 0.5", "eta 1", "ddim", "heun"} <= set(words(against_steps))

    def test_a_setting_of_names_is_drawn_where_there_is_no_other(self, evaluation: Make) -> None:
        sweep = Sweep.of(points(evaluation, sampler=["ddim", "heun"]))
        assert dials(sweep) == ["sampler"]
        svg = dial_figure(sweep, "sampler")
        assert svg is not None and {"ddim", "heun", "sampler"} <= set(words(svg))

    def test_many_lines_still_have_their_looks(self, evaluation: Make) -> None:
        sweep = Sweep.of(points(evaluation, eta=[i / 4 for i in range(5)], sampler=list("abcdef"), steps=[1, 2]))
        assert {"eta 0.25", "f"} <= set(words(str(dial_figure(sweep, "steps"))))

    def test_none_where_nothing_is_measured_but_speed(self, evaluation: Make) -> None:
        sweep = Sweep.of(points(evaluation, steps=[5, 10]), ["images_per_second"])
        assert dial_figure(sweep, "steps") is None
        assert "Pareto front of network evaluations" in sweep.verdict


class TestPage:
    def test_is_whole_and_needs_no_network(self, evaluation: Make, tmp_path: Path) -> None:
        sweep = Sweep.of(points(evaluation, eta=[0.0, 5.0], steps=[5, 10]))
        page, figures = write_page(sweep, tmp_path / "sweeps")
        assert page == tmp_path / "sweeps" / f"{sweep.name}.html"
        assert [figure.name for figure in figures] == [f"{sweep.name}-eta.svg", f"{sweep.name}-steps.svg"]
        text = page.read_text()
        found = re.findall(r'<section id="([\w-]+)"', text)
        assert found == ["verdict", "dial-eta", "dial-steps", "trilemma", "figures", "provenance"]
        assert "<h1>demo: eta × steps</h1>" in text and "4 points of 500 images" in text
        assert not re.search(r'(src|href)="https?:', text)
        assert re.findall(r'<th scope="row">([^<]*)&nbsp;◆</th>', text) == ["eta 0, 5 steps", "eta 0, 10 steps"]
        for label in ("eta 0, 5 steps", "eta 0, 10 steps"):
            assert f">{label}</text>" in text
        assert ">eta 5, 5 steps</text>" not in text
        assert text.count("trilemma evaluate runs/demo --") == 4

    def test_other_points_have_another_page(self, evaluation: Make) -> None:
        some = points(evaluation, steps=[5, 10])
        assert Sweep.of(some).name != Sweep.of(points(evaluation, steps=[5, 20])).name
        assert Sweep.of(some).name == Sweep.of(points(evaluation, steps=[5, 10])).name

    def test_what_is_asked_for_by_name_is_escaped(self, evaluation: Make) -> None:
        text = render(Sweep.of(points(evaluation, sampler=["<b>x", "heun"])))
        assert "<b>x" not in text and "&lt;b&gt;x" in text
