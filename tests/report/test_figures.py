"""Figures: the chart's labels and axes, and pictures put together pixel by pixel."""

from __future__ import annotations

import itertools
import math
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from trilemma.report.chart import Box, left_out, place_labels, trilemma_chart
from trilemma.report.figures import balance_figure, by_class, loss_figure, progress_figure, thin_strip, tile
from trilemma.report.tables import build_table


def annotation_texts(figure):
    return [a.text for a in figure.layout.annotations]


def test_tile_puts_each_image_in_the_middle_of_its_cell():
    images = np.arange(6, dtype=np.uint8).reshape(2, 3, 1, 1, 1) * np.ones((2, 3, 4, 5, 3), dtype=np.uint8)
    picture = tile(images, gap=2)
    assert picture.shape == (2 * 6, 3 * 7, 3)
    for row, column in itertools.product(range(2), range(3)):
        cell = picture[6 * row : 6 * row + 6, 7 * column : 7 * column + 7]
        assert (cell[1:5, 1:6] == 3 * row + column).all()
        assert (cell[0] == 255).all()
        assert (cell[:, 6] == 255).all()


def test_by_class_keeps_the_order_and_fills_up_with_white():
    images = np.arange(7, dtype=np.uint8).reshape(7, 1, 1, 1)
    table, classes = by_class(images, np.array([5, 2, 5, 2, 5, 2, 9]), columns=2)
    assert classes == [2, 5, 9]
    np.testing.assert_array_equal(table[..., 0, 0, 0], [[1, 3], [0, 2], [6, 255]])
    with pytest.raises(ValueError, match="7 images, but 3 labels"):
        by_class(images, np.array([1, 2, 3]), columns=2)


def test_a_thinned_strip_keeps_both_ends():
    images = np.arange(101, dtype=np.uint8).reshape(1, 101, 1, 1, 1)
    thin, times = thin_strip(images, list(range(101)), most=6)
    assert times == [0, 20, 40, 60, 80, 100]
    assert thin.ravel().tolist() == times
    assert thin_strip(images[:, :3], [0, 1, 2], most=6)[1] == [0, 1, 2]


def test_labels_do_not_overlap_even_where_points_nearly_coincide():
    frame = Box(0, 0, 520, 360)
    points = [(250 + 9 * (i % 3), 180 + 8 * (i // 3)) for i in range(9)]
    labels = place_labels(points, [9.0] * 9, [110.0] * 9, frame, [Box(0, 40, 520, 42)])
    for a, b in itertools.combinations(labels, 2):
        assert a.box.overlap(b.box) == 0
    for label in labels:
        assert label.box.overlap(frame) == pytest.approx(110 * 16)
        assert all(label.box.overlap(Box(x - 9, y - 9, x + 9, y + 9)) == 0 for x, y in points)


def test_a_lone_point_has_its_label_beside_it():
    (label,) = place_labels([(100.0, 100.0)], [8.0], [60.0], Box(0, 0, 500, 300))
    assert (label.dx, label.dy, label.xanchor, label.yanchor) == (13, 0, "left", "middle")


def without(evaluation, metric):
    kept = {key: value for key, value in evaluation.metrics.items() if not key.startswith(metric)}
    return evaluation.model_copy(update={"metrics": kept})


def test_chart_draws_every_way_with_better_upwards_and_the_yardstick_as_a_line(evaluations):
    figure = trilemma_chart(build_table(evaluations))
    (trace,) = figure.data
    assert list(trace.x) == [4.1, 40.6, 79.8]
    assert list(trace.y) == [9.87, 14.2, 11.6]
    assert list(trace.marker.color) == [0.861, 0.80, 0.742]
    assert figure.layout.xaxis.type == "log"
    low, high = figure.layout.yaxis.range
    assert low > 14.2 > 9.87 > 1.93 > high
    assert [shape.y0 for shape in figure.layout.shapes] == [1.93]
    assert annotation_texts(figure) == [*[e.label for e in evaluations[:3]], "Real held-out digits: 1.93"]
    left, right = figure.layout.xaxis.range
    assert left < math.log10(4.1) < math.log10(79.8) < right


def test_chart_shows_recognition_upwards_in_percent_where_there_is_no_distance(evaluations):
    figure = trilemma_chart(build_table([without(one, "frechet_distance") for one in evaluations]))
    np.testing.assert_allclose(figure.data[0].y, [91.6, 85.2, 90.8])
    low, high = figure.layout.yaxis.range
    assert low < 85.2 < 99.2 < high


def test_a_way_without_recall_is_drawn_white_and_small(evaluations):
    evaluations[1] = without(evaluations[1], "recall")
    known, unknown = trilemma_chart(build_table(evaluations)).data
    assert len(known.x) == 2
    assert (list(unknown.x), unknown.marker.color) == ([40.6], "white")
    assert unknown.marker.size[0] < min(known.marker.size)


def test_chart_leaves_out_what_cannot_be_compared_and_says_so(evaluations):
    other = evaluations[1].environment.model_copy(update={"hardware": "Other GPU"})
    evaluations[1] = evaluations[1].model_copy(update={"environment": other})
    table = build_table(evaluations)
    assert len(trilemma_chart(table).data[0].x) == 2
    assert left_out(table) == ["Ancestral, 20 steps"]


def test_chart_escapes_labels_and_needs_quality_and_speed(evaluation):
    assert annotation_texts(trilemma_chart(build_table([evaluation("<b>x</b>")]))) == ["&lt;b&gt;x&lt;/b&gt;"]
    assert trilemma_chart(build_table([evaluation("a", metrics={"recall": 0.5})])) is None
    assert trilemma_chart(build_table([evaluation("a", metrics={"images_per_second": 5.0})])) is None


def svg_texts(svg: str) -> list[str]:
    return ["".join(e.itertext()).strip() for e in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def test_loss_figure_names_every_curve_and_is_the_same_twice():
    log = [{"step": s, **{f"loss_t{q}": q / s for q in range(1, 5)}, "loss": 1 / s} for s in range(1, 90)]
    log.append({"step": 90, "validation_loss": 0.1})
    svg = loss_figure(log)
    texts = svg_texts(svg)
    for name in ("1st quarter of t (cleanest)", "4th quarter (noisiest)", "training loss, all t", "validation loss"):
        assert name in texts
    assert "DejaVu" not in svg
    assert loss_figure(log) == svg


def test_loss_figure_takes_gaps_negative_losses_and_one_point():
    assert "loss" in svg_texts(loss_figure([{"step": 1, "loss": -0.5}, {"step": 2, "loss": math.nan}, {"step": 3}]))
    texts = svg_texts(loss_figure([{"step": 5, "loss_t2": 0.5}]))
    assert "2nd quarter" in texts
    assert "3rd quarter" not in texts
    assert loss_figure([]) is None
    assert loss_figure([{"step": 1, "loss": None}]) is None


def test_balance_figure_has_a_panel_for_each_way_with_its_label_as_written():
    svg = balance_figure({"a $x$ <b>": [10, 20], "b": [5, 5], "empty": [0, 0]})
    texts = svg_texts(svg)
    assert {"a $x$ <b>", "b", "empty"} <= set(texts)
    assert balance_figure({}) is None
    assert balance_figure({"a": []}) is None


def test_a_label_far_from_its_point_has_a_leader_that_ends_at_it(evaluation):
    crowd = [
        evaluation(
            f"a way with a name {i}", metrics__images_per_second=50 + 0.1 * i, metrics__frechet_distance=9 + 0.01 * i
        )
        for i in range(8)
    ]
    crowd.append(evaluation("far away", metrics__images_per_second=1.0, metrics__frechet_distance=20.0))
    figure = trilemma_chart(build_table(crowd))
    points = set(zip(figure.data[0].x, figure.data[0].y, strict=True))
    leaders = list(figure.layout.shapes)
    assert leaders
    for leader in leaders:
        # It starts on the rim of one of the crowd's markers, 13 pixels across, and leads away from it.
        near = min(points, key=lambda p: math.hypot(math.log(p[0] / leader.x0) * 60, (p[1] - leader.y0) * 20))
        assert near[0] >= 50
        assert abs(leader.y1 - near[1]) + abs(math.log(leader.x1 / near[0])) > abs(leader.y0 - near[1]) + abs(
            math.log(leader.x0 / near[0])
        )


def test_the_distance_during_training_is_drawn_where_it_was_measured() -> None:
    log = [{"step": 10, "loss": 1.0}, {"step": 10, "frechet_distance": 4.0, "frechet_distance_se": 0.5}]
    assert progress_figure(log[:1]) is None
    svg = progress_figure([*log, {"step": 20, "frechet_distance": 2.0}])
    assert svg is not None
    assert "training step" in svg
