"""Comparing evaluations: what is comparable with what, what differs beyond its error, what is refused."""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from trilemma.report.comparability import all_columns

from trilemma.errors import InputError
from trilemma.metrics import METRICS
from trilemma.report import Comparison, compare, comparison_json, comparison_markdown, comparison_table, read_compared
from trilemma.report.compare import Difference
from trilemma.report.sources import Measured

FIGURES = {
    **{"frechet_distance": 2.0, "frechet_distance_se": 0.3, "kid": 0.004, "kid_se": 0.001, "precision": 0.8},
    **{"recall": 0.7, "recognised": 0.9, "memorisation": 0.01, "inception_score": 5.0, "inception_score_se": 0.1},
    **{"images_per_second": 80.0, "speed_batch": 50, "network_evaluations": 10, "multiply_adds": 1e9},
    **{"peak_memory_bytes": 2e9, "peak_memory_kind": "resident"},
}
AGAINST = {"frechet_distance", "kid", "precision", "recall", "memorisation"}
TIMED = {"images_per_second", "peak_memory_bytes"}
Make = Callable[..., Measured]


@pytest.fixture
def one(evaluation: Callable[..., dict[str, Any]]) -> Make:
    """An evaluation with FIGURES, of samples and seeds of its own; `figures` change those."""

    def make(label: str, figures: dict[str, Any] | None = None, **changes: Any) -> Measured:
        own = {"samples__sha256": label * 3, "samples__seeds": label, "neighbours": 3}
        metrics = FIGURES | (figures or {})
        return Measured(evaluation(label, **own | {"metrics": metrics} | changes), Path(f"{label}.json"))

    return make


def difference(comparison: Comparison, key: str, entry: int = 1) -> Difference:
    (found,) = (d for d in comparison.differences if (d.key, d.entry) == (key, entry))
    return found


def marked(comparison: Comparison, entry: int) -> set[str]:
    return {key for key, figure in comparison.entries[entry].figures.items() if figure.letters}


def best(comparison: Comparison, key: str) -> list[str]:
    return [entry.label for entry in comparison.entries if entry.figures[key].best]


def text_of(comparison: Comparison, width: int = 100) -> str:
    out = io.StringIO()
    Console(file=out, width=width, highlight=False).print(comparison_table(comparison))
    return out.getvalue()


def test_columns_are_the_metrics_by_axis_each_with_its_better_direction() -> None:
    columns = all_columns()
    axes = [column.axis for column in columns]
    assert axes == sorted(axes, key=("quality", "coverage", "speed").index)
    known = {column.key: (column.axis, {"low": "lower", "high": "higher"}[column.better]) for column in columns}
    assert known.items() >= {name: (metric.axis, metric.better) for name, metric in METRICS.items()}.items()


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
        ({"features__sha256": "00" * 32, "features__name": "inception"}, {*AGAINST, "recognised", "inception_score"},
         "other features: inception, 128 dimensions against digits, 128 dimensions"),
        ({"features__resize": "clean-fid"}, {*AGAINST, "recognised", "inception_score"},
         "other resize: clean-fid against none"),
        ({"neighbours": 5}, {"precision", "recall"}, "other k (nearest neighbours): 5 against 3"),
        ({"samples__classes": "0"}, {"recognised"}, "other classes asked for: 0 against balanced"),
        ({"environment__hardware": "Other"}, TIMED, "other hardware: Other against Example CPU @ 2.5 GHz"),
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
def test_what_is_not_comparable_is_marked_and_named(
    one: Make, changes: dict[str, Any], where: set[str], reason: str
) -> None:
    pair = [one("a"), one("odd", **changes)]
    comparison = compare(pair)
    assert marked(comparison, 1) == where
    assert not marked(comparison, 0)
    assert comparison.reasons == {"a": reason}
    assert not {d.key for d in comparison.differences} & where
    assert f"ᵃ not comparable: {reason}" in " ".join(text_of(comparison, 200).split())
    assert f"<sup>a</sup> not comparable: {reason}" in comparison_markdown(comparison)
    with pytest.raises(InputError, match=re.escape(f": {reason}")) as refused:
        compare(pair, strict=True)
    assert str(refused.value).startswith("odd.json: not comparable with a.json: ")


@pytest.mark.parametrize(
    "changes",
    [
        {"sampler__precision": "bf16"},
        {"subject__weights": "raw"},
        {"subject__parameters": 1},
        {"sampler": None},
        {"neighbours": None},
        {"reference__data": "elsewhere"},  # the same content under another name
        {"environment__torch": "0"},
    ],
)
def test_what_is_compared_is_no_reason_not_to(one: Make, changes: dict[str, Any]) -> None:
    comparison = compare([one("a"), one("b", **changes)], strict=True)
    assert not comparison.reasons


def test_without_hashes_a_reference_is_known_by_data_split_and_count(one: Make) -> None:
    bare = {"data": "x", "split": "train", "count": 7}
    a, same = one("a", reference=bare), one("b", reference=dict(bare))
    assert not compare([a, same]).reasons
    for part, value in (("data", "y"), ("split", "test"), ("count", 8)):
        assert marked(compare([a, one("c", reference=bare | {part: value})]), 1) == AGAINST


def test_several_reasons_have_a_letter_each_and_share_them(one: Make) -> None:
    odd = {"samples__count": 300, "features__resize": "clean"}
    comparison = compare([one("a"), one("b", **odd), one("c", **odd), one("d", samples__count=200)])
    assert list(comparison.reasons) == ["a", "b", "c"]
    letters = [entry.figures["frechet_distance"].letters for entry in comparison.entries]
    assert letters[0] == ()
    assert letters[1] == letters[2]
    assert len(letters[1]) == 2
    assert len(letters[3]) == 1
    assert "ᵃ,ᵇ" in text_of(comparison)


def test_best_is_of_what_is_comparable_and_no_yardstick(one: Make) -> None:
    entries = [
        one("a", {"frechet_distance": 2.0, "recall": 0.7}),
        one("b", {"frechet_distance": 1.0, "recall": 0.9}),
        one("odd", {"frechet_distance": 0.1, "recall": 0.1}, samples__count=300),
        one("real", {"frechet_distance": 0.01, "recall": 0.99}, subject={"kind": "data"}),
    ]
    comparison = compare(entries)
    assert best(comparison, "frechet_distance") == best(comparison, "recall") == ["b"]
    assert {d.entry for d in comparison.differences if d.key == "frechet_distance"} == {1, 3}
    assert best(compare(entries[::2]), "frechet_distance") == []  # nobody left to be better than


def test_ties_are_both_best_and_equal(one: Make) -> None:
    comparison = compare([one("a"), one("b"), one("c", {"precision": 0.79996})])
    assert best(comparison, "precision") == ["a", "b", "c"]  # 0.800, all of them
    assert difference(comparison, "precision").words == "equal"
    assert difference(comparison, "frechet_distance").outcome == "equal"
    assert difference(comparison, "precision", 2).words == "lower by 0.000: no standard error known"


def test_differences_in_standard_errors(one: Make) -> None:
    # sqrt(0.3^2 + 0.4^2) = 0.5
    for distance, z, words in (
        (1.25, -1.5, "lower by 0.75 ± 0.50 (1.5 standard errors): within the noise"),
        (0.5, -3.0, "lower by 1.50 ± 0.50 (3.0 standard errors): better"),
        (3.0, 2.0, "higher by 1.00 ± 0.50 (2.0 standard errors): worse"),
    ):
        figures = {"frechet_distance": distance, "frechet_distance_se": 0.4}
        found = difference(compare([one("a"), one("b", figures)]), "frechet_distance")
        assert (found.value, found.error, found.z) == pytest.approx((distance - 2, 0.5, z))
        assert found.words == words
    higher = difference(compare([one("a"), one("b", {"inception_score": 6.0})]), "inception_score")
    assert higher.outcome == "better"
    assert higher.z == pytest.approx(1 / math.sqrt(0.02))


def test_the_share_recognised_is_binomial_and_no_other_share_is(one: Make) -> None:
    comparison = compare([one("a"), one("b", {"recognised": 0.8, "precision": 0.1}, samples__count=400)])
    found = difference(comparison, "recognised")
    assert found.error == pytest.approx(math.sqrt(0.9 * 0.1 / 500 + 0.8 * 0.2 / 400))
    assert found.words == "lower by 0.100 ± 0.024 (4.2 standard errors): worse"
    assert all(e.figures[key].error is None for e in comparison.entries for key in ("precision", "recall"))


def test_without_a_known_error_nothing_is_said_to_be_better(one: Make) -> None:
    comparison = compare([one("a"), one("b", {"recall": 0.2, "kid": 0.1, "kid_se": None})])
    assert difference(comparison, "recall").words == "lower by 0.500: no standard error known"
    assert difference(comparison, "kid").outcome == "no standard error known"
    assert comparison.entries[1].figures["kid"].text == "0.100"


def test_counts_are_exact_and_shares_without_spread_too(one: Make) -> None:
    comparison = compare([one("a", {"recognised": 0.0}), one("b", {"network_evaluations": 50, "recognised": 1.0})])
    assert difference(comparison, "network_evaluations").words == "higher by 40: worse"
    assert difference(comparison, "recognised").words == "higher by 1.000 ± 0: better"
    assert difference(comparison, "recognised").z is None


def test_the_same_samples_are_not_independent(one: Make) -> None:
    comparison = compare([one("a"), one("b", {"frechet_distance": 1.0}, samples__sha256="aaa")])
    found = difference(comparison, "frechet_distance")
    assert (found.outcome, found.z, found.error) == ("the same samples", None, None)
    assert "not independent" in found.words
    assert comparison.remarks == ("“a” and “b” measured the same samples: their figures are not independent",)
    assert comparison.remarks[0] in text_of(comparison)
    assert comparison.remarks[0] in comparison_markdown(comparison)


def test_the_same_seeds_and_warnings_are_said(one: Make) -> None:
    few = "few samples"
    comparison = compare([one("a", warnings=[few]), one("b", samples__seeds="a"), one("c", warnings=[few])])
    assert [remark.split(":")[0] for remark in comparison.remarks] == [
        "same seeds as the baseline's (“b”)",
        "few samples (“a”, “c”)",
    ]
    assert not compare([one("a"), one("b")]).remarks


@pytest.mark.parametrize("missing", [None, math.nan, math.inf, "n/a", True, [1.0]])
def test_what_was_not_measured_is_a_dash_and_not_compared(one: Make, missing: Any) -> None:
    comparison = compare([one("a"), one("b", {"frechet_distance": missing}), one("c", {"frechet_distance": 3.0})])
    assert comparison.entries[1].figures["frechet_distance"].text == "–"
    assert [d.entry for d in comparison.differences if d.key == "frechet_distance"] == [2]
    assert best(comparison, "frechet_distance") == ["a"]
    turned = compare([one("b", {"frechet_distance": missing}), one("a"), one("c", {"frechet_distance": 3.0})])
    assert not [d for d in turned.differences if d.key == "frechet_distance"]
    assert best(turned, "frechet_distance") == ["a"]
    assert not turned.reasons


def test_the_order_of_files_changes_only_the_baseline(one: Make) -> None:
    a, b = one("a"), one("b", {"frechet_distance": 1.0, "frechet_distance_se": 0.2})
    there, back = compare([a, b]), compare([b, a])
    assert compare([a, b], baseline="b") == back
    assert compare([a, b], baseline="b.json") == back
    assert {e.label: e for e in there.entries} == {e.label: e for e in back.entries}
    assert there.columns == back.columns
    assert there.reasons == back.reasons
    one_way, other = (difference(c, "frechet_distance") for c in (there, back))
    assert (one_way.value, one_way.z, one_way.error) == (-other.value, -(other.z or 0), other.error)
    assert (one_way.outcome, other.outcome) == ("better", "worse")


def test_a_baseline_must_be_one_of_them_and_only_one(one: Make) -> None:
    with pytest.raises(InputError, match="unknown baseline 'DDIM': did you mean 'DDIM 5'"):
        compare([one("DDIM 5"), one("b")], baseline="DDIM")
    twins = [one("a"), Measured(one("a").evaluation, Path("other/a.json"))]
    with pytest.raises(InputError, match=r"may be any of a\.json, other/a\.json"):
        compare(twins, baseline="a")
    assert compare(twins, baseline="other/a.json").entries[0].path == Path("other/a.json")


def test_nothing_comparable_is_refused(one: Make) -> None:
    odd = one("b", features__sha256="0", reference__sha256="0", environment__device="cuda")
    with pytest.raises(InputError, match=r"b\.json: nothing can be compared with a\.json \(Fréchet distance: other"):
        compare([one("a"), odd])
    empty = one("b", metrics={"network_evaluations": 10})
    with pytest.raises(InputError, match="no figure in common"):
        compare([one("a"), empty])


def test_six_evaluations_fit_a_hundred_columns_and_a_seventh_goes_below(one: Make) -> None:
    entries = [one(f"DPM-Solver++ 2M, {i}", {"frechet_distance": 2.3456 + i}) for i in range(7)]
    text = text_of(compare(entries[:6]))
    assert max(map(len, text.splitlines())) <= 100
    assert all(f"{i + 2.35:.2f}" in text for i in range(6))
    assert all(word in text for word in ("Fréchet distance ↓", "inception score ↑", "peak memory, B ↓", "±0.30*"))
    assert text.count("Fréchet distance ↓") == 1
    text = text_of(compare(entries))
    assert text.count("Fréchet distance ↓") == 2
    assert "8.35" in text


def test_markdown(one: Make) -> None:
    metrics = {"frechet_distance": 2.0, "frechet_distance_se": 0.3, "recall": 0.7, "network_evaluations": 10}
    a = one("A | 1", metrics=metrics)
    b = one("b", metrics=metrics | {"frechet_distance": 0.8, "frechet_distance_se": 0.4, "recall": 0.9})
    odd = one("odd", metrics=metrics, samples__count=300)
    assert comparison_markdown(compare([a, b, odd])).splitlines() == [
        "|  | N | sampler | Fréchet distance ↓ | recall ↑ | network evaluations ↓ |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
        "| A \\| 1 | 500 | ddim, 10 steps | 2.00 ± 0.30 | 0.700 | **10** |",
        "| b | 500 | ddim, 10 steps | **0.80 ± 0.40** | **0.900** | **10** |",
        "| odd | 300 | ddim, 10 steps | 2.00 ± 0.30<sup>a</sup> | 0.700<sup>a</sup> | **10** |",
        "",
        "↓ lower is better, ↑ higher is better; ± one standard error; bold: best of those without a letter",
        "",
        "<sup>a</sup> not comparable: other N: 300 against 500",
        "",
        "Against “A | 1” (features: digits, 128 dimensions, resize: none, sha256 cdcdcdcdcdcd; reference: "
        "mnist5k:train, 4 500 images, 28×28, 1 channel, sha256 efefefefefef):",
        "",
        "b:",
        "",
        "- Fréchet distance lower by 1.20 ± 0.50 (2.4 standard errors): better",
        "- recall higher by 0.200: no standard error known",
        "- network evaluations equal",
        "",
        "odd:",
        "",
        "- network evaluations equal",
        "",
        "better, worse: 2 standard errors or more apart; chance alone does that once in about 20 comparisons",
    ]


def test_json_has_rows_reasons_and_verdicts(one: Make) -> None:
    comparison = compare([one("a"), one("b", {"frechet_distance": 0.5}, neighbours=5), one("real", sampler=None)])
    held = json.loads(json.dumps(comparison_json(comparison), allow_nan=False))
    assert held["format"] == "trilemma-comparison/1"
    assert held["baseline"] == "a"
    assert [row["file"] for row in held["rows"]] == ["a.json", "b.json", "real.json"]
    assert held["rows"][1]["figures"]["recall"] == {
        **{"value": 0.7, "standard_error": None, "best": False, "comparable": False, "reasons": ["a"]}
    }
    assert held["reasons"] == {"a": "other k (nearest neighbours): 5 against 3"}
    (found,) = (d for d in held["differences"] if (d["label"], d["metric"]) == ("b", "frechet_distance"))
    assert found["verdict"] == "better"
    assert found["z"] == pytest.approx(-1.5 / math.hypot(0.3, 0.3))
    assert held["metrics"]["frechet_distance"] == {"axis": "quality", "better": "lower"}


def write(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_reads_files_folders_and_runs(tmp_path: Path, evaluation: Callable[..., dict[str, Any]]) -> None:
    write(tmp_path / "run/evaluations/a.json", evaluation("late", created="2026-02-01"))
    write(tmp_path / "run/evaluations/b.json", evaluation("early", created="2026-01-01"))
    write(tmp_path / "run/evaluations/likelihood/c.json", "{}")
    write(tmp_path / "folder/d.json", evaluation("d"))
    alone = write(tmp_path / "e.json", evaluation("e"))
    read = read_compared([alone, tmp_path / "run", tmp_path / "folder"])
    assert [one.evaluation["label"] for one in read] == ["e", "early", "late", "d"]
    with pytest.raises(InputError, match=r"a\.json: named twice"):
        read_compared([tmp_path / "run", tmp_path / "run" / "evaluations" / ".." / "evaluations" / "a.json"])
    with pytest.raises(InputError, match=r"e\.json alone, expected two or more"):
        read_compared([alone])
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty: no \*\.json there"):
        read_compared([alone, tmp_path / "empty"])


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "no valid JSON"),
        ('{"format": ', "no valid JSON"),
        ("[]", "holds a list, not an object"),
        ("{}", "key 'format' is missing"),
        ({"format": "trilemma-samples/1", "label": "x", "subject": {"kind": "run"}, "samples": {"count": 1},
          "metrics": {}}, "'format' is 'trilemma-samples/1'"),
        ({"format": "trilemma-evaluation/0", "label": "x", "subject": {"kind": "run"}, "samples": {"count": 1},
          "metrics": {}}, "its format is 'trilemma-evaluation/0', expected 'trilemma-evaluation/1'"),
        ({"format": "trilemma-evaluation/1", "label": "x", "subject": {"kind": "run"}, "samples": {"count": 1},
          "metrics": []}, "'metrics' is [], expected an object"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_evaluation_is_named_with_what_is_wrong(
    tmp_path: Path, evaluation: Callable[..., dict[str, Any]], content: object, says: str
) -> None:
    good, bad = write(tmp_path / "good.json", evaluation("a")), write(tmp_path / "in" / "bad.json", content)
    for source in (bad, bad.parent):
        with pytest.raises(InputError, match=r"bad\.json: .*" + re.escape(says)):
            read_compared([good, source])


def test_seeds_as_a_list_are_compared_too(one: Make) -> None:
    seeds = {"count": 3, "seeds": [0, 5, 7]}
    a, b = (one(label, {"kid": 0.1}, samples={**seeds, "sha256": label * 8}) for label in "ab")
    assert any(remark.startswith("same seeds") for remark in compare([a, b]).remarks)
    other = one("c", {"kid": 0.1}, samples={**seeds, "seeds": [1, 2], "sha256": "c" * 8})
    assert not any(remark.startswith("same seeds") for remark in compare([a, other]).remarks)
