"""Comparing evaluations: what of them is said, in words and as data, and what is refused."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from trilemma.errors import InputError
from trilemma.evaluations import Evaluation
from trilemma.report.compare import (
    Comparison,
    Difference,
    compare,
    comparison_json,
    comparison_markdown,
    comparison_table,
)
from trilemma.report.sources import read_compared

FIGURES = {
    **{"frechet_distance": 2.0, "frechet_distance_se": 0.3, "kid": 0.004, "kid_se": 0.001, "precision": 0.8},
    **{"recall": 0.7, "recall_se": 0.02, "recognised": 0.9, "network_evaluations": 10},
}
Make = Callable[..., Evaluation]


@pytest.fixture
def one(evaluation: Make) -> Make:
    """An evaluation with FIGURES, of samples and seeds of its own; `figures` change those."""

    def make(label: str, figures: dict[str, Any] | None = None, **changes: Any) -> Evaluation:
        own = {"samples__sha256": label * 3, "samples__seeds": label, "path": Path(f"{label}.json")}
        return evaluation(label, **own | {"metrics": FIGURES | (figures or {})} | changes)

    return make


def difference(comparison: Comparison, name: str, row: int = 1) -> Difference:
    wanted = comparison.table.rows[row]
    (found,) = (d for d in comparison.differences if d.column.metric.name == name and d.row is wanted)
    return found


def text_of(comparison: Comparison, width: int = 100) -> str:
    out = io.StringIO()
    Console(file=out, width=width, highlight=False).print(comparison_table(comparison))
    return out.getvalue()


def test_differences_are_the_judges_in_words(one: Make) -> None:
    # sqrt(0.3² + 0.4²) = 0.5
    for distance, words in (
        (1.25, "lower by 0.75 ± 0.50 (1.5 standard errors): level"),
        (0.5, "lower by 1.50 ± 0.50 (3.0 standard errors): better"),
        (3.0, "higher by 1.00 ± 0.50 (2.0 standard errors): worse"),
    ):
        figures = {"frechet_distance": distance, "frechet_distance_se": 0.4}
        assert difference(compare([one("a"), one("b", figures)]), "frechet_distance").words == words
    figures = {"precision": 0.3, "network_evaluations": 50, "recognised": 0.8}
    other = compare([one("a"), one("b", figures)])
    assert difference(other, "precision").words == "lower by 0.500: not comparable, no standard error known"
    assert difference(other, "network_evaluations").words == "higher by 40: worse"
    assert difference(other, "recognised").words == "lower by 10.0 ± 2.2 (4.5 standard errors): worse"
    assert difference(other, "kid").words == "equal"


def test_what_was_measured_otherwise_has_no_difference_and_is_refused_if_strict(one: Make) -> None:
    pair = [one("a"), one("odd", neighbours=5)]
    comparison = compare(pair)
    reason = "other k (nearest neighbours): 5 against 3"
    assert comparison.table.reasons == {"a": reason}
    assert {"precision", "recall"}.isdisjoint(d.column.metric.name for d in comparison.differences)
    assert f"ᵃ not comparable: {reason}" in " ".join(text_of(comparison, 200).split())
    assert f"<sup>a</sup> not comparable: {reason}" in comparison_markdown(comparison)
    with pytest.raises(InputError, match=re.escape(f"odd.json: not comparable with a.json: precision: {reason}")):
        compare(pair, strict=True)
    assert compare([one("a"), one("b", sampler=None)], strict=True)


def test_the_same_samples_are_not_independent(one: Make) -> None:
    comparison = compare([one("a"), one("b", {"frechet_distance": 1.0}, samples__sha256="aaa")])
    assert "not independent" in difference(comparison, "frechet_distance").words
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


def test_the_order_of_files_changes_only_the_baseline(one: Make) -> None:
    a, b = one("a"), one("b", {"frechet_distance": 1.0, "frechet_distance_se": 0.2})
    there, back = compare([a, b]), compare([b, a])
    assert compare([a, b], baseline="b") == compare([a, b], baseline="b.json") == back
    assert {row.label: row for row in there.table.rows} == {row.label: row for row in back.table.rows}
    outcomes = [difference(c, "frechet_distance").judgement.outcome for c in (there, back)]
    assert outcomes == ["better", "worse"]


def test_a_baseline_must_be_one_of_them_and_only_one(one: Make) -> None:
    with pytest.raises(InputError, match="unknown baseline 'DDIM': did you mean 'DDIM 5'"):
        compare([one("DDIM 5"), one("b")], baseline="DDIM")
    twins = [one("a"), one("a", path=Path("other/a.json"))]
    with pytest.raises(InputError, match=r"may be any of a\.json, other/a\.json"):
        compare(twins, baseline="a")
    assert compare(twins, baseline="other/a.json").baseline.evaluation.path == Path("other/a.json")


def test_nothing_comparable_is_refused(one: Make) -> None:
    odd = one("b", features__sha256="0", reference__sha256="0")
    with pytest.raises(InputError, match=r"b\.json: nothing can be compared with a\.json \(FD-500: other"):
        compare([one("a"), odd])
    empty = one("b", metrics={"network_evaluations": 10})
    with pytest.raises(InputError, match="no figure in common"):
        compare([one("a"), empty])


def test_markdown(one: Make) -> None:
    metrics = {"frechet_distance": 2.0, "frechet_distance_se": 0.3, "recall": 0.7, "network_evaluations": 10}
    a = one("A | 1", metrics=metrics)
    b = one("b", metrics=metrics | {"frechet_distance": 0.8, "frechet_distance_se": 0.4, "recall": 0.9})
    odd = one("odd", metrics=metrics, samples__count=300)
    assert comparison_markdown(compare([a, b, odd])).splitlines() == [
        "|  | N | sampler | FD-500 digits features ↓ | recall ↑ | network evaluations ↓ |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
        "| A \\| 1 | 500 | ddim, 10 steps | 2.00 ± 0.30 | 0.700 | **10** |",
        "| b | 500 | ddim, 10 steps | **0.80 ± 0.40** | 0.900 | **10** |",
        "| odd | 300 | ddim, 10 steps | 2.00 ± 0.30<sup>a</sup> | 0.700<sup>a</sup> | **10** |",
        "",
        "<sup>a</sup> not comparable: other N: 300 against 500",
        "",
        "↓ lower is better, ↑ higher is better; ± one standard error; bold: the best that can be compared, and all "
        "level with it: fewer than 2 standard errors apart",
        "",
        "Against “A | 1”, features: digits, 128 dimensions, resize: none, sha256 cdcdcdcdcdcd; reference: "
        "mnist5k:train, 4 500 images, 28×28, 1 channel, sha256 efefefefefef:",
        "",
        "b:",
        "",
        "- FD-500 lower by 1.20 ± 0.50 (2.4 standard errors): better",
        "- recall higher by 0.200: not comparable, no standard error known",
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
        **{"value": 0.7, "standard_error": 0.02, "best": False, "comparable": False, "reasons": ["a"]}
    }
    assert held["reasons"] == {"a": "other k (nearest neighbours): 5 against 3"}
    (found,) = (d for d in held["differences"] if (d["label"], d["metric"]) == ("b", "frechet_distance"))
    assert (found["verdict"], found["reason"]) == ("better", None)
    assert found["z"] == pytest.approx(-1.5 / 0.3 / 2**0.5)
    assert held["metrics"]["frechet_distance"] == {"axis": "quality", "better": "lower"}


def write(path: Path, held: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(held if isinstance(held, str) else json.dumps(held))
    return path


def test_reads_files_folders_and_runs(tmp_path: Path, content: Callable[..., dict[str, Any]]) -> None:
    write(tmp_path / "run/evaluations/a.json", content("late", created="2026-02-01"))
    write(tmp_path / "run/evaluations/b.json", content("early", created="2026-01-01"))
    write(tmp_path / "run/evaluations/likelihood/c.json", "{}")
    write(tmp_path / "folder/d.json", content("d"))
    alone = write(tmp_path / "e.json", content("e"))
    read = read_compared([alone, tmp_path / "run", tmp_path / "folder"])
    assert [one.label for one in read] == ["e", "early", "late", "d"]
    with pytest.raises(InputError, match=r"a\.json: named twice"):
        read_compared([tmp_path / "run", tmp_path / "run" / "evaluations" / ".." / "evaluations" / "a.json"])
    assert [one.label for one in read_compared([alone])] == ["e"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty: no \*\.json there"):
        read_compared([alone, tmp_path / "empty"])


def test_seeds_as_a_list_are_compared_too(one: Make) -> None:
    seeds = {"count": 3, "seeds": [0, 5, 7]}
    a, b = (one(label, {"kid": 0.1}, samples={**seeds, "sha256": label * 8}) for label in "ab")
    assert any(remark.startswith("same seeds") for remark in compare([a, b]).remarks)
    other = one("c", {"kid": 0.1}, samples={**seeds, "seeds": [1, 2], "sha256": "c" * 8})
    assert not any(remark.startswith("same seeds") for remark in compare([a, other]).remarks)
