"""Where the labels of points stand, so that none hides a point, another label or a line."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from trilemma.report.svg import Box, Point

HEIGHT = 16.0
"""Of a label, in pixels."""

_GAPS = (5, 14, 26, 40, 56, 74, 92, 110)
_SIDES = ((1, 0), (-1, 0), (0, -1), (0, 1), (1, -1), (1, 1), (-1, -1), (-1, 1))
_ANCHORS = {1: "start", -1: "end", 0: "middle"}


@dataclass(frozen=True)
class Label:
    """Where a point's label stands: its box, the offset from the point to the box's nearest corner or edge, how text is
    anchored there, and whether it hides nothing."""

    box: Box
    dx: float
    dy: float
    anchor: str
    free: bool

    @property
    def baseline(self) -> Point:
        """Where the text begins, ends or has its middle, as it is anchored."""
        share = {"start": 0.0, "middle": 0.5, "end": 1.0}[self.anchor]
        return self.box.x + share * self.box.width, self.box.y + 0.75 * self.box.height


def place_labels(
    points: Sequence[Point],
    radii: Sequence[float],
    widths: Sequence[float],
    frame: Box,
    taken: Sequence[Box] = (),
    *,
    reach: float = 110,
) -> list[Label]:
    """A label for each point, beside it where there is room, else up to `reach` away; near places are tried first.

    points, radii and widths are in pixels inside `frame`; a label is one line high. A place that overlaps a marker,
    another label, the line from one to its point, or a box in `taken`, or leaves the frame, is used only where there is
    no other; one whose line crosses another marker or label, only where none is free."""
    # Three pixels of air keep a label from seeming to belong to the next marker.
    markers = [Box(x - r - 3, y - r - 3, 2 * r + 6, 2 * r + 6) for (x, y), r in zip(points, radii, strict=True)]
    placed: dict[int, Label] = {}
    lines: list[Box] = []
    for i in sorted(range(len(points)), key=lambda k: (points[k][1], points[k][0])):
        others = [*markers[:i], *markers[i + 1 :]]
        boxes = [label.box for label in placed.values()]
        covered = [*others, *taken, *boxes, *lines]
        best, least = None, (math.inf, 0)
        for label in _places(points[i], radii[i], widths[i], reach):
            outside = widths[i] * HEIGHT - label.box.overlap(frame)
            hidden = round(3 * outside + sum(label.box.overlap(other) for other in covered), 3)
            if hidden > least[0]:
                continue
            line = _line(points[i], radii[i], label)
            cost = (hidden, sum(piece.overlap(other) > 0 for piece in line for other in (*others, *boxes)))
            if cost < least:
                best, least = label, cost
            if least == (0, 0):
                break
        assert best is not None
        placed[i] = Label(best.box, best.dx, best.dy, best.anchor, least == (0, 0))
        lines += _line(points[i], radii[i], best)
    return [placed[i] for i in range(len(points))]


def _places(point: Point, radius: float, width: float, reach: float) -> Iterator[Label]:
    x, y = point
    for gap in _GAPS:
        if gap > reach:
            return
        for side_x, side_y in _SIDES:
            away = (radius + gap) * (math.sqrt(0.5) if side_x and side_y else 1.0)
            dx, dy = side_x * away, side_y * away
            left = x + dx - width * (1 - side_x) / 2
            top = y + dy - HEIGHT * (1 - side_y) / 2
            yield Label(Box(left, top, width, HEIGHT), dx, dy, _ANCHORS[side_x], False)


def leads(radius: float, label: Label) -> bool:
    """Whether a label is so far from its point, of this radius, that a line has to lead there."""
    return math.hypot(label.dx, label.dy) > radius + 6


def _line(point: Point, radius: float, label: Label) -> list[Box]:
    """The line from a point's rim to its label, in pieces."""
    away = math.hypot(label.dx, label.dy)
    if not leads(radius, label):
        return []
    count = max(2, math.ceil((away - radius) / 5))
    shares = [(radius + (away - radius) * (k + 0.5) / count) / away for k in range(count)]
    return [Box(point[0] + s * label.dx - 1, point[1] + s * label.dy - 1, 2, 2) for s in shares]
