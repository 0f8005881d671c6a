"""The trilemma chart: where its marks stand, what is written beside them, and what it leaves out."""

from __future__ import annotations

import itertools
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass

import pytest

from trilemma.report.axes import Axis
from trilemma.report.chart import NARROW, WIDE, Chart, left_out, trilemma_chart
from trilemma.report.tables import build_table, natural

NS = "{http://www.w3.org/2000/svg}"
SIZES = pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])


@dataclass(frozen=True)
class Mark:
    """A way's circle, and what a pointer over it shows."""

    x: float
    y: float
    radius: float
    fill: str
    edge: float
    said: list[str]


def marks(chart: Chart) -> dict[int, Mark]:
    found = {}
    for group in ElementTree.fromstring(chart.svg).iter(f"{NS}g"):
        if (way := group.get("data-way")) is not None:
            circle, title = group.find(f"{NS}circle"), group.find(f"{NS}title")
            numbers = (float(circle.get(key)) for key in ("cx", "cy", "r"))
            found[int(way)] = Mark(
                *numbers, circle.get("fill"), float(circle.get("stroke-width")), title.text.split("\n")
            )
    return found


def texts(chart: Chart) -> list[str]:
    return ["".join(node.itertext()) for node in ElementTree.fromstring(chart.svg).iter(f"{NS}text")]


def boxes(chart: Chart) -> list[tuple[float, float, float, float]]:
    """About where each label's text is, with 6.2 pixels a character."""
    found = []
    for group in ElementTree.fromstring(chart.svg).iter(f"{NS}g"):
        if group.get("data-label") is not None:
            node = group.find(f"{NS}text")
            wide, x, y = 6.2 * len(node.text), float(node.get("x")), float(node.get("y"))
            x -= {"start": 0, "middle": wide / 2, "end": wide}[node.get("text-anchor")]
            found.append((x, y - 11, x + wide, y + 3))
    return found


def without(evaluation, metric):
    kept = {key: value for key, value in evaluation.metrics.items() if not key.startswith(metric)}
    return evaluation.model_copy(update={"metrics": kept})


@SIZES
def test_draws_every_way_with_better_upwards_faster_right_and_the_yardstick_as_a_line(evaluations, size):
    chart = trilemma_chart(build_table(evaluations), layout=size)
    full, respaced, few = (marks(chart)[way] for way in (1, 2, 3))
    assert full.x < respaced.x < few.x, "4.1, 40.6 and 79.8 images a second"
    assert full.y < few.y < respaced.y, "FD 9.87, 11.6 and 14.2"
    assert full.radius > respaced.radius > few.radius, "recall 0.861, 0.80 and 0.742"
    (yard,) = (line for line in ElementTree.fromstring(chart.svg).iter(f"{NS}line") if line.get("stroke-dasharray"))
    assert float(yard.get("y1")) < full.y, "FD 1.93"
    assert {*(one.label for one in evaluations[:3]), "Real held-out digits: 1.93"} <= set(texts(chart))
    assert chart.key == {}
    assert full.said[:2] == ["Ancestral, 200 steps", "FD-500 9.87"]


def test_an_axis_places_values_by_their_logarithm_or_evenly_and_has_its_ticks():
    log = Axis.over([1.0, 100.0], 0.0, 132.0, log=True)
    assert log.place(10.0) == pytest.approx(66)
    assert list(log.ticks()) == ["0.5", "1", "2", "5", "10", "20", "50", "100", "200"]
    even = Axis.over([0.0, 10.0], 132.0, 0.0, log=False)
    assert even.place(5.0) == pytest.approx(66) and even.ticks()["10"] < even.ticks()["0"]
    assert len(Axis.over([52.0, 58.0], 0, 1, log=True).ticks()) >= 3, "none of 1, 2 and 5"
    assert "10 000" in Axis.over([1.0, 1e5], 0, 1, log=True).ticks()


def test_shows_recognition_upwards_where_there_is_no_distance(evaluations):
    chart = trilemma_chart(build_table([without(one, "frechet_distance") for one in evaluations]))
    found = marks(chart)
    assert found[1].y < found[3].y < found[2].y, "91.6, 90.8 and 85.2 %"
    assert "recognised, % (up is better)" in texts(chart)


def test_a_way_without_recall_is_white_and_small(evaluations):
    evaluations[1] = without(evaluations[1], "recall")
    chart = trilemma_chart(build_table(evaluations))
    found = marks(chart)
    assert [way for way, mark in found.items() if mark.fill == "#fff"] == [2]
    assert found[2].radius < min(found[1].radius, found[3].radius)
    assert "not measured" in texts(chart)


def test_a_front_alone_is_named_and_ringed(evaluations):
    table = build_table(evaluations)
    chart = trilemma_chart(table, front=table.models[:1])
    assert evaluations[0].label in texts(chart) and evaluations[1].label not in texts(chart)
    assert [marks(chart)[way].edge for way in (1, 2, 3)] == [2, 1, 1]


def test_leaves_out_what_cannot_be_compared_and_says_so(evaluations):
    other = evaluations[1].environment.model_copy(update={"hardware": "Other GPU"})
    evaluations[1] = evaluations[1].model_copy(update={"environment": other})
    table = build_table(evaluations)
    assert sorted(marks(trilemma_chart(table))) == [1, 3]
    assert left_out(table) == ["Ancestral, 20 steps"]


def test_escapes_labels_and_needs_quality_and_speed(evaluation):
    assert "<b>x</b>" in texts(trilemma_chart(build_table([evaluation("<b>x</b>")])))
    assert trilemma_chart(build_table([evaluation("a", metrics={"recall": 0.5})])) is None
    assert trilemma_chart(build_table([evaluation("a", metrics={"images_per_second": 5.0})])) is None


@SIZES
def test_labels_of_29_ways_do_not_overlap_and_are_numbers_of_names_in_order(evaluation, size):
    ways = [
        evaluation(
            f"{name}, {steps} steps",
            metrics__frechet_distance=1 + 8 / steps + i / 50,
            metrics__images_per_second=800 / steps * (1 + i / 20),
        )
        for i, name in enumerate(("ddim", "heun", "a solver with a long name", "unipc"))
        for steps in (100, 10, 2, 5, 50, 20, 3)
    ]
    ways.append(evaluation("zero"))
    chart = trilemma_chart(build_table(sorted(ways, key=lambda one: natural(one.label))), layout=size)
    assert list(chart.key) == list(range(1, 30))
    assert [label for label in chart.key.values() if label.startswith("ddim")] == [
        f"ddim, {steps} steps" for steps in (2, 3, 5, 10, 20, 50, 100)
    ]
    found = boxes(chart)
    assert len(found) == 29 and {str(number) for number in chart.key} <= set(texts(chart))
    for a, b in itertools.combinations(found, 2):
        assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
    assert all(left >= 0 and right <= size.width for left, _, right, _ in found)
