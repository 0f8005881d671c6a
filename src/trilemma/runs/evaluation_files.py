"""Evaluation files: where one goes, what of an earlier one it keeps, and writing it whole."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from trilemma.runs.places import check_writable

FORMAT = "trilemma-evaluation/1"

NEIGHBOURS = 3
"""k of precision and recall, unless it is given (Kynkäänniemi et al. 2019)."""


def default_out(run: Path | None, subject: Path, evaluation: dict[str, Any], features: str) -> Path:
    """A place of its own for each set of samples, reference and features (by the name that was asked for; weights that
    a path led to are told apart by their hash)."""
    against, look = evaluation["reference"], evaluation["features"]
    parts = [Path(str(against["data"])).stem, str(against.get("split") or ""), look["name"]]
    parts += [look["sha256"][:8]] if ":" in features else []
    basis = "-".join(re.sub(r"[^\w.]+", "-", part).strip("-.") for part in parts if part)
    if run is None:
        return subject.with_name(f"{subject.name}-vs-{basis}.json")
    return run / "evaluations" / f"{Path(evaluation['samples']['file']).stem}-vs-{basis}.json"


def kept(place: Path, evaluation: dict[str, Any]) -> dict[str, Any]:
    """The figures of an earlier evaluation of the very same, which asking for other metrics must not lose; precision
    and recall only if they are of the same k."""
    parts = ("samples", "reference", "features")
    try:
        found = json.loads(place.read_text())
        same = all(found[part].get("sha256") == evaluation[part].get("sha256") for part in parts)
        metrics = dict(found["metrics"]) if same and found["format"] == FORMAT else {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
    if found.get("neighbours", NEIGHBOURS) != evaluation["neighbours"]:
        metrics = {key: value for key, value in metrics.items() if key not in ("precision", "recall")}
    return metrics


def write_evaluation(evaluation: dict[str, Any], path: Path) -> Path:
    """Write an evaluation file, whole or not at all."""
    check_writable(path)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(evaluation, indent=1) + "\n")
    partial.replace(path)
    return path
