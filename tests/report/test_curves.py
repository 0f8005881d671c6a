"""Curves over training: every one named, at both widths, and small however long the log is."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree

import pytest

from trilemma.report.curves import NARROW, loss_figure, progress_figure

NS = "{http://www.w3.org/2000/svg}"


def svg_texts(svg: str) -> list[str]:
    return ["".join(e.itertext()).strip() for e in ElementTree.fromstring(svg).iter(f"{NS}text")]


def test_loss_figure_names_every_curve_and_is_the_same_twice():
    log = [{"step": s, **{f"loss_t{q}": q / s for q in range(1, 5)}, "loss": 1 / s} for s in range(1, 90)]
    log.append({"step": 90, "validation_loss": 0.1})
    svg = loss_figure(log)
    texts = svg_texts(svg)
    for name in ("1st quarter of t (cleanest)", "4th quarter (noisiest)", "training loss, all t", "validation loss"):
        assert name in texts
    assert loss_figure(log) == svg


def test_loss_figure_takes_gaps_negative_losses_and_one_point():
    assert "loss" in svg_texts(loss_figure([{"step": 1, "loss": -0.5}, {"step": 2, "loss": math.nan}, {"step": 3}]))
    texts = svg_texts(loss_figure([{"step": 5, "loss_t2": 0.5}]))
    assert "2nd quarter" in texts
    assert "3rd quarter" not in texts
    assert loss_figure([]) is None
    assert loss_figure([{"step": 1, "loss": None}]) is None


def test_the_distance_during_training_is_drawn_with_its_error_where_these_were_measured():
    log = [{"step": 10, "loss": 1.0}, {"step": 10, "frechet_distance": 4.0, "frechet_distance_se": 0.5}]
    assert progress_figure(log[:1]) is None
    svg = ElementTree.fromstring(progress_figure([*log, {"step": 20, "frechet_distance": 2.0}]))
    first, second = ([float(c.get(key)) for key in ("cx", "cy")] for c in svg.iter(f"{NS}circle"))
    assert first[0] < second[0] and first[1] < second[1], "later is to the right, less is below"
    curve = next(svg.iter(f"{NS}polyline")).get("points").split()
    assert [float(x) for x in curve[0].split(",")] == pytest.approx(first, abs=0.1)
    (bar,) = (line for line in svg.iter(f"{NS}line") if line.get("stroke") == "#0b7a75")
    low, high = float(bar.get("y1")), float(bar.get("y2"))
    assert float(bar.get("x1")) == pytest.approx(first[0], abs=0.1) and low > first[1] > high


def test_a_long_log_makes_a_figure_no_larger_than_a_shorter_one():
    def size(steps: int) -> int:
        return len(loss_figure([{"step": s, "loss": 1 + math.sin(s)} for s in range(1, steps)]))

    assert size(9000) < 1.3 * size(900)


def test_a_narrow_figure_has_the_same_curves_and_is_as_wide_as_a_telephone():
    log = [{"step": s, "loss": 1 / s, "loss_t1": 2 / s} for s in range(1, 9)]
    svg = loss_figure(log, NARROW)
    assert set(svg_texts(svg)) >= {"training loss, all t", "1st quarter of t (cleanest)", "training step"}
    assert float(ElementTree.fromstring(svg).get("width")) <= 388
