"""Labels of points: near them, inside the frame, and none over another."""

from __future__ import annotations

import itertools

import pytest

from trilemma.report.labels import HEIGHT, leads, place_labels
from trilemma.report.svg import Box


def test_do_not_overlap_even_where_points_nearly_coincide():
    frame = Box(0, 0, 520, 360)
    points = [(250.0 + 9 * (i % 3), 180.0 + 8 * (i // 3)) for i in range(9)]
    labels = place_labels(points, [9.0] * 9, [110.0] * 9, frame, [Box(0, 40, 520, 2)])
    for a, b in itertools.combinations(labels, 2):
        assert a.box.overlap(b.box) == 0
    for label in labels:
        assert label.box.overlap(frame) == pytest.approx(110 * HEIGHT)
        assert label.box.overlap(Box(0, 40, 520, 2)) == 0
        assert all(label.box.overlap(Box(x - 9, y - 9, 18, 18)) == 0 for x, y in points)


def test_stand_beside_a_lone_point_and_on_its_other_side_at_the_edge():
    frame = Box(0, 0, 500, 300)
    (label,) = place_labels([(100.0, 100.0)], [8.0], [60.0], frame)
    assert (label.dx, label.dy, label.anchor, label.free) == (13, 0, "start", True)
    assert not leads(8.0, label) and label.baseline[0] == 113
    (label,) = place_labels([(480.0, 100.0)], [8.0], [60.0], frame)
    assert (label.dx, label.anchor, label.baseline[0]) == (-13, "end", 467)


def test_are_not_free_where_there_is_no_room_within_reach():
    row = [(150.0 + 20 * i, 150.0) for i in range(8)]
    near, far = (place_labels(row, [8.0] * 8, [100.0] * 8, Box(0, 0, 500, 300), reach=reach) for reach in (5, 110))
    assert sum(label.free for label in near) < sum(label.free for label in far)
    assert all(abs(label.dx) <= 13 for label in near)
