"""The judge: what it says of two figures, and that it says the same of them the other way round."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trilemma.evaluations import Evaluation
from trilemma.evaluations.judge import LIMIT, beats, front, judge, leaders, unlike
from trilemma.metrics import METRICS

FIGURES = {
    **{"frechet_distance": 2.0, "frechet_distance_se": 0.3, "kid": 0.004, "kid_se": 0.001, "precision": 0.8},
    **{"recall": 0.7, "recognised": 0.9, "memorisation": 0.01, "inception_score": 5.0, "inception_score_se": 0.1},
    **{"images_per_second": 80.0, "images_per_second_range": [78.0, 84.0], "speed_batch": 50},
    **{"network_evaluations": 10, "multiply_adds": 1e9, "peak_memory_bytes": 2e9, "peak_memory_kind": "resident"},
}
AGAINST = {"frechet_distance", "kid", "precision", "recall", "memorisation"}
LOOKED = {*AGAINST, "recognised", "inception_score"}
TIMED = {"images_per_second", "peak_memory_bytes"}


def evaluation(sha256: str = "a", figures: dict[str, Any] | None = None, **changes: Any) -> Evaluation:
    """One of samples of its own; `changes` are dotted paths with `__` for the dots."""
    content: dict[str, Any] = {
        **{"format": "trilemma-evaluation/1", "label": sha256, "subject": {"kind": "run"}, "neighbours": 3},
        "samples": {"count": 500, "classes": "balanced", "sha256": sha256},
        "features": {"name": "digits", "sha256": "cd" * 32, "dim": 128, "resize": "none"},
        "reference": {"data": "mnist5k", "split": "train", "count": 4500, "sha256": "ef" * 32},
        "environment": {"device": "cpu", "hardware": "CPU", "threads": 2, "processes": 1},
        "metrics": FIGURES | (figures or {}),
    }
    for path, value in changes.items():
        *parents, last = path.split("__")
        place = content
        for part in parents:
            place = place[part]
        place[last] = value
    return Evaluation.model_validate(content)


def distances(a: float, se_a: float, b: float, se_b: float) -> tuple[Evaluation, Evaluation]:
    pair = (
        (name, {"frechet_distance": d, "frechet_distance_se": se}) for name, d, se in (("a", a, se_a), ("b", b, se_b))
    )
    first, second = (evaluation(name, figures) for name, figures in pair)
    return first, second


@given(
    st.sampled_from(sorted(METRICS)),
    st.floats(0.1, 10),
    st.floats(0.1, 10),
    st.floats(1e-3, 3),
    st.floats(1e-3, 3),
)
def test_the_other_way_round_it_says_the_mirror_image(name: str, a: float, b: float, se_a: float, se_b: float) -> None:
    first, second = (evaluation(k, {name: v, f"{name}_se": se}) for k, v, se in (("a", a, se_a), ("b", b, se_b)))
    there, back = judge(name, first, second), judge(name, second, first)
    mirror = {"better": "worse", "worse": "better"}
    assert back.outcome == mirror.get(there.outcome, there.outcome)
    assert there.difference is not None and back.difference == -there.difference
    assert there.error == back.error and (there.z is None or back.z == -there.z)
    if a == b:
        assert there.outcome == "level"
    elif METRICS[name].exact:
        assert there.outcome != "level"
    else:
        assert (there.outcome == "level") == (abs(a - b) < LIMIT * math.hypot(se_a, se_b))
        assert there.outcome == "level" or (there.outcome == "better") == ((a < b) == (METRICS[name].better == "lower"))


@pytest.mark.parametrize(
    ("distance", "z", "outcome"), [(1.25, -1.5, "level"), (0.5, -3.0, "better"), (3.0, 2.0, "worse")]
)
def test_a_difference_in_its_standard_errors(distance: float, z: float, outcome: str) -> None:
    said = judge("frechet_distance", *distances(distance, 0.4, 2.0, 0.3))
    assert (said.difference, said.error, said.z) == pytest.approx((distance - 2, math.hypot(0.3, 0.4), z))
    assert said.outcome == outcome


@pytest.mark.parametrize(
    ("changes", "where", "reason"),
    [
        ({"samples__count": 300}, {"frechet_distance", "precision", "recall", "inception_score"},
         "other N: 300 against 500"),
        ({"reference__sha256": "00" * 32, "reference__split": "test"}, AGAINST,
         "other reference: mnist5k:test, 4500 images against mnist5k:train, 4500 images"),
        ({"reference__sha256": "00" * 32}, AGAINST,
         "other reference: mnist5k:train, 4500 images (sha256 000000000000) against mnist5k:train, 4500 images "
         "(sha256 efefefefefef)"),
        ({"reference__sha256": None}, AGAINST,
         "other reference: mnist5k:train, 4500 images (sha256 not recorded) against mnist5k:train, 4500 images "
         "(sha256 efefefefefef)"),
        ({"features__sha256": "00" * 32, "features__name": "inception"}, LOOKED,
         "other features: inception, 128 dimensions against digits, 128 dimensions"),
        ({"features__resize": "clean-fid"}, LOOKED, "other resize: clean-fid against none"),
        ({"neighbours": 5}, {"precision", "recall"}, "other k (nearest neighbours): 5 against 3"),
        ({"samples__classes": "0"}, {"recognised"}, "other classes asked for: 0 against balanced"),
        ({"environment__hardware": "Other"}, TIMED, "other hardware: Other against CPU"),
        ({"environment__device": "cuda"}, TIMED, "other device: cuda against cpu"),
        ({"environment__threads": 8}, TIMED, "other threads: 8 against 2"),
        ({"environment__processes": 2}, TIMED, "other processes: 2 against 1"),
        ({"metrics": FIGURES | {"speed_batch": 1}}, TIMED, "other batch: 1 against 50"),
        ({"metrics": {k: v for k, v in FIGURES.items() if k != "speed_batch"}}, TIMED,
         "other batch: not recorded against 50"),
        ({"metrics": FIGURES | {"peak_memory_kind": "allocated"}}, {"peak_memory_bytes"},
         "other kind of memory: allocated against resident"),
        ({"reference__holdout": {"split": "test", "count": 10, "sha256": "1"}}, {"memorisation"},
         "other held-out images: test, 10 images against not recorded"),
    ],
)  # fmt: skip
def test_what_depended_on_something_else_is_not_comparable_and_both_are_named(
    changes: dict[str, Any], where: set[str], reason: str
) -> None:
    odd, usual = evaluation("odd", **changes), evaluation("a")
    assert {name for name in METRICS if name in FIGURES and unlike(name, odd, usual)} == where
    for name in where:
        said = judge(name, odd, usual)
        assert (said.outcome, said.reason, said.z) == ("not comparable", reason, None)


@pytest.mark.parametrize(
    "changes",
    [
        {"sampler": {"precision": "bf16"}},
        {"subject": {"kind": "run", "weights": "raw", "parameters": 1}},
        {"neighbours": None},
        {"reference__data": "elsewhere"},  # the same content under another name
        {"environment__torch": "0"},
    ],
)
def test_what_is_compared_is_no_reason_not_to(changes: dict[str, Any]) -> None:
    assert not [name for name in METRICS if unlike(name, evaluation("a"), evaluation("b", **changes))]


def test_without_hashes_a_reference_is_known_by_data_split_and_count() -> None:
    bare = {"data": "x", "split": "train", "count": 7}
    a = evaluation("a", reference=bare)
    assert not unlike("kid", a, evaluation("b", reference=bare))
    for part, value in (("data", "y"), ("split", "test"), ("count", 8)):
        assert unlike("kid", a, evaluation("b", reference=bare | {part: value}))


def test_k_is_three_where_a_file_is_from_before_it_was_recorded() -> None:
    content = evaluation("a").content()
    del content["neighbours"]
    old = Evaluation.model_validate(content)
    assert unlike("recall", old, evaluation("b", neighbours=5)) == ("other k (nearest neighbours): 3 against 5",)


def test_the_same_samples_are_not_independent() -> None:
    said = judge("kid", evaluation("a"), evaluation("a", {"kid": 0.1}))
    assert said.outcome == "not comparable" and "not independent" in said.reason
    assert judge("kid", evaluation("a"), evaluation("a")).outcome == "level", "equal is equal"


def test_without_a_standard_error_nothing_is_better_unless_it_is_a_count() -> None:
    a, b = evaluation("a"), evaluation("b", {"recall": 0.2, "network_evaluations": 50, "kid": 0.1, "kid_se": None})
    for name in ("recall", "kid"):
        said = judge(name, a, b)
        assert (said.outcome, said.reason) == ("not comparable", "no standard error known")
    assert judge("network_evaluations", a, b).outcome == "better"
    assert judge("sfid", a, b).reason == "“a” has no sFID"


def test_errors_of_files_from_before_they_were_recorded() -> None:
    said = judge("recognised", evaluation("a"), evaluation("b", {"recognised": 0.8}, samples__count=400))
    assert said.error == pytest.approx(math.sqrt(0.9 * 0.1 / 500 + 0.8 * 0.2 / 400))
    recorded = evaluation("b", {"recognised_se": 0.5})
    assert recorded.error("recognised") == 0.5
    assert evaluation().error("images_per_second") == 3.0, "half of the range over batches"
    sure = judge("recognised", evaluation("a", {"recognised": 0.0}), evaluation("b", {"recognised": 1.0}))
    assert (sure.outcome, sure.error, sure.z) == ("worse", 0.0, None)


def test_leaders_are_the_best_and_all_level_with_it_or_nobody() -> None:
    a, b = distances(1.0, 0.3, 1.5, 0.3)
    far = evaluation("c", {"frechet_distance": 9.0})
    assert leaders("frechet_distance", [far, a, b]) == [1, 2]
    assert leaders("frechet_distance", [a]) == []
    assert leaders("recall", [a, b, evaluation("c", {"recall": 0.9})]) == [], "no errors: undecided"
    assert leaders("recall", [a, b]) == [0, 1], "equal"
    assert leaders("network_evaluations", [a, evaluation("b", {"network_evaluations": 5})]) == [1]


AXES = ("frechet_distance", "recall", "network_evaluations")


def point(name: str, distance: float, recall: float, count: int, error: float = 0.0) -> Evaluation:
    figures = {"frechet_distance": distance, "recall": recall, "network_evaluations": count}
    return evaluation(name, figures | {"frechet_distance_se": error, "recall_se": error / 10})


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(1, 4)), min_size=1, max_size=12))
def test_without_errors_the_front_is_the_usual_one(found: list[tuple[int, int, int]]) -> None:
    points = [point(str(i), float(d), float(r), n) for i, (d, r, n) in enumerate(found)]
    costs = np.array([(d, -r, n) for d, r, n in found])
    below = (costs[:, None] <= costs[None]).all(2) & (costs[:, None] < costs[None]).any(2)
    assert front(AXES, points) == np.flatnonzero(~below.any(0)).tolist()


@given(st.lists(st.tuples(st.floats(0, 4), st.floats(0, 1), st.integers(1, 4)), min_size=1, max_size=12))
def test_with_errors_the_front_has_more_and_is_never_empty(found: list[tuple[float, float, int]]) -> None:
    exact = [point(str(i), *one) for i, one in enumerate(found)]
    noisy = [point(str(i), *one, error=0.7) for i, one in enumerate(found)]
    assert front(AXES, exact) and {*front(AXES, exact)} <= {*front(AXES, noisy)}


def test_a_point_is_beaten_only_beyond_the_errors_and_where_it_compares() -> None:
    good = point("a", 1.0, 0.8, 10, error=0.1)
    assert beats(AXES, good, point("b", 2.0, 0.8, 10, error=0.1))
    assert not beats(AXES, good, point("b", 1.1, 0.8, 10, error=0.1)), "level"
    assert not beats(AXES, good, point("b", 2.0, 0.9, 10, error=0.1)), "better in one"
    assert not beats(AXES, good, point("b", 2.0, 0.8, 5, error=0.1)), "cheaper"
    other = point("b", 2.0, 0.8, 10, error=0.1)
    other = other.model_copy(update={"samples": other.samples.model_copy(update={"count": 100})})
    assert not beats(AXES, good, other), "another N"
    assert front(AXES, [good, other]) == [0, 1]


def test_without_a_figure_a_point_is_on_no_front() -> None:
    lacking = evaluation("b", {"recall": None})
    assert front(AXES, [point("a", 1.0, 0.8, 10), lacking]) == [0]
