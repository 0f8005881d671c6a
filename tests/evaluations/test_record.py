"""Evaluations as they are written and read: the files of old, keys of the future, and what is no evaluation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from trilemma.errors import InputError
from trilemma.evaluations.record import FORMAT, Evaluation, read
from trilemma.recipes import renamed

RESULTS = Path(__file__).parents[2] / "results"
FILES = [path for path in sorted(RESULTS.rglob("*.json")) if json.loads(path.read_text()).get("format") == FORMAT]
LEAST: dict[str, Any] = {
    **{"format": FORMAT, "label": "least", "subject": {"kind": "samples"}, "samples": {"count": 4}, "metrics": {}},
}


def test_every_result_reads_and_is_written_as_it_was(tmp_path: Path) -> None:
    assert len(FILES) > 40
    for path in FILES:
        evaluation = read(path)
        written = evaluation.write(tmp_path / "again.json")
        content = json.loads(path.read_text())
        if content.get("sampler"):  # what older files call the sampler and its spacing is read as today's
            content["sampler"] = renamed(content["sampler"])
        assert json.loads((tmp_path / "again.json").read_text()) == content, path
        assert written == evaluation.model_copy(update={"path": tmp_path / "again.json"})


def test_unknown_keys_are_kept_and_missing_ones_are_none(tmp_path: Path) -> None:
    content = LEAST | {
        "schedule": {"terminal_snr": 1.0},
        "samples": {"count": 4, "guidance": 2.5},
        "sampler": {"eta": 0},
    }
    (tmp_path / "e.json").write_text(json.dumps(content))
    evaluation = read(tmp_path / "e.json")
    assert evaluation.content() == content
    assert evaluation.fact("samples.guidance") == 2.5 and evaluation.fact("schedule.terminal_snr") == 1.0
    assert evaluation.features.sha256 is None and evaluation.fact("reference.holdout.split") is None


def test_nothing_in_it_changes() -> None:
    evaluation = Evaluation.model_validate(LEAST)
    with pytest.raises(ValidationError, match="frozen"):
        evaluation.label = "other"  # type: ignore[misc]


@pytest.mark.parametrize("wrong", [None, float("nan"), float("inf"), "n/a", True, [1.0]])
def test_what_is_no_finite_number_was_not_measured(wrong: Any) -> None:
    evaluation = Evaluation.model_validate(LEAST | {"metrics": {"kid": wrong, "kid_se": 0.1}})
    assert evaluation.figure("kid") is None and evaluation.error("kid") is None


def test_network_evaluations_are_the_samplers_where_nothing_was_timed() -> None:
    evaluation = Evaluation.model_validate(LEAST | {"sampler": {"network_evaluations": 9}})
    assert evaluation.figure("network_evaluations") == 9 and evaluation.error("network_evaluations") == 0


def test_it_prints_its_figures() -> None:
    figures = {"frechet_distance": 1.25, "frechet_distance_se": 0.31, "kid": 0.004, "frechet_by_count": [[2, 3.0]]}
    features = {"name": "inception"}
    evaluation = Evaluation.model_validate(LEAST | {"metrics": figures, "features": features, "label": "<b>"})
    assert repr(evaluation).splitlines()[1:] == [
        "  FID-4: 1.25 ± 0.31",
        "  Fréchet by N: 2: 3.00",
        "  KID: 0.00400",
    ]
    html = evaluation._repr_html_()
    assert "<th>FID-4</th><td>1.25 ± 0.31</td>" in html and "&lt;b&gt;" in html and "<b>" not in html


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "no valid JSON"),
        ('{"format": ', "no valid JSON (Expecting value: line 1"),
        ("[]", "holds a list, not an object"),
        ("{}", "key 'format' is missing"),
        (LEAST | {"format": "trilemma-evaluation/0"}, f"'format' is 'trilemma-evaluation/0', expected '{FORMAT}'"),
        ({"format": "trilemma-networks/1"}, "'format' is 'trilemma-networks/1'"),
        (LEAST | {"samples": {}}, "key 'samples.count' is missing"),
        (LEAST | {"metrics": []}, "key 'metrics' is []: input should be a valid dictionary"),
    ],
)
def test_a_file_that_is_no_evaluation_is_named_with_what_is_wrong(tmp_path: Path, content: object, says: str) -> None:
    path = tmp_path / "bad.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(InputError) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}: not an evaluation: ") and says in str(caught.value)
    assert "\n" not in str(caught.value)
