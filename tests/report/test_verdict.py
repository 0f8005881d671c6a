"""The verdict is what the figures say, and no more."""

from __future__ import annotations

from trilemma.report import axis_verdicts, build_table, verdict


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
        "The yardstick, “Real held-out digits”, stands at FD-500 1.93, 99.2 % recognised, recall 0.942.",
    ]


def test_one_way_may_win_everything(evaluation):
    good = evaluation("good", metrics__frechet_distance=1.0, metrics__recall=0.9, metrics__images_per_second=200.0)
    assert verdict(build_table([evaluation("bad"), good])) == ["“good” wins on all three axes."]


def test_shares_within_two_standard_errors_are_level_and_beyond_are_not(evaluation):
    # p = 0.5, N = 500: the difference of two shares has a standard error of sqrt(2 · 0.25 / 500) = 0.0316.
    for recall, leaders in ((0.560, ("a", "b")), (0.565, ("a",))):
        table = build_table([evaluation("a", metrics__recall=recall), evaluation("b", metrics__recall=0.5)])
        assert {v.axis: v.leaders for v in axis_verdicts(table)}["coverage"] == leaders


def test_figures_without_an_error_are_level_within_five_percent(evaluation):
    for distance, leaders in ((10.4, ("a", "b")), (10.6, ("a",))):
        pair = [evaluation("a", metrics__frechet_distance=10.0), evaluation("b", metrics__frechet_distance=distance)]
        assert axis_verdicts(build_table(pair))[0].leaders == leaders


def test_equal_ways_are_level_on_all_axes(evaluation):
    assert verdict(build_table([evaluation("a"), evaluation("b")])) == ["“a” and “b” are level on all three axes."]


def test_a_figure_that_cannot_be_compared_does_not_win(evaluation):
    other = evaluation("other", features__sha256="00", metrics__frechet_distance=0.1)
    quality = axis_verdicts(build_table([evaluation("a"), other, evaluation("c", metrics__frechet_distance=13.9)]))[0]
    assert quality.leaders == ("a",)


def test_recognised_decides_where_there_is_no_distance(evaluation):
    pair = [evaluation("a", metrics={"recognised": 0.7}), evaluation("b", metrics={"recognised": 0.9})]
    verdicts = axis_verdicts(build_table(pair))
    assert [(v.axis, v.leaders, v.figure) for v in verdicts] == [("quality", ("b",), "90.0 % recognised")]


def test_a_single_way_is_described_not_ranked(evaluation):
    (sentence,) = verdict(build_table([evaluation("DDIM, 10 steps")]))
    assert sentence.startswith("DDIM, 10 steps: FD-500 12.3, 87.4 % recognised")
    assert "81.2 images/s, 10 network evaluations" in sentence


def test_without_models_there_is_no_verdict(evaluations):
    assert verdict(build_table(evaluations[3:])) == []
    assert verdict(build_table([])) == []
