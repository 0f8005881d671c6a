"""Evaluation files: where one goes, what of an earlier one it keeps, and writing it whole."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

from trilemma.data.trees import open_store
from trilemma.errors import InputError
from trilemma.runs.places import check_writable
from trilemma.runs.sampling import record_of, sha256
from trilemma.untrusted import parse_json, read_text

FORMAT = "trilemma-evaluation/1"

NEIGHBOURS = 3
"""k of precision and recall, unless it is given (Kynkäänniemi et al. 2019)."""

MACHINE = ("device", "hardware", "threads", "processes")
"""What of an environment a speed depends on."""


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


def samples_sha256(path: Path) -> str:
    """The hash of a file of samples, or of a folder's content: the sorted names of its images, and of the labels in
    `dataset.json`, each with its bytes. Raises InputError for what is neither."""
    if path.is_file():
        return sha256(path)
    names = {*open_store(path).images(), *(found.relative_to(path).as_posix() for found in path.rglob("dataset.json"))}
    digest = hashlib.sha256()
    for name in sorted(names):
        # Hashes have one length each, so that no other names and bytes come to the same text.
        digest.update(hashlib.sha256(os.fsencode(name)).digest() + bytes.fromhex(sha256(path / name)))
    return digest.hexdigest()


def check_evaluation_out(out: Path, subject: Path | None, reference: str) -> None:
    """Raises InputError for an `out` that is what is measured, or what it is measured against, or no .json, or cannot
    be written."""
    inputs = [("the reference", Path(reference)), ("the reference", Path(reference.rpartition(":")[0] or reference))]
    if subject is not None:
        inputs += [("what is measured", subject), ("the record of the samples", record_of(subject))]
    for what, path in inputs:
        if out.resolve() == path.resolve():
            raise InputError(f"out: {out} is {what}, which would be overwritten; expected another FILE.json")
    if out.suffix.lower() != ".json":
        raise InputError(f"out: {out} should end in .json")
    check_writable(out)


def with_kept(place: Path, evaluation: dict[str, Any]) -> dict[str, Any]:
    """The evaluation with those figures of an earlier one of the very same in `place` that asking for other metrics
    must not lose, and with the earlier warnings and record of held-out images that belong to them.

    Precision and recall are kept only if they are of the same k, speed and memory of the same machine, threads and
    processes, memorisation of the same held-out images."""
    try:
        found = parse_json(read_text(place))
        same = found["format"] == FORMAT and _measured_of(found) == _measured_of(evaluation)
        figures, warnings, reference = dict(found["metrics"]), list(found["warnings"]), dict(found["reference"])
        machines = [[one["environment"].get(key) for key in MACHINE] for one in (found, evaluation)]
    except (ValueError, KeyError, TypeError, AttributeError):
        return evaluation
    if not same:
        return evaluation
    gone: tuple[str, ...] = ()
    if found.get("neighbours", NEIGHBOURS) != evaluation["neighbours"]:
        gone += ("precision", "recall")
    if machines[0] != machines[1]:
        gone += ("images_per_second", "seconds_per_image", "speed_batch", "peak_memory")
    held, now = reference.get("holdout"), evaluation["reference"].get("holdout")
    if held is None or now not in (None, held):
        gone += ("memorisation",)
    kept = {k: v for k, v in figures.items() if k not in evaluation["metrics"] and not k.startswith(gone)}
    if not kept:
        return evaluation
    of = evaluation["reference"]
    if now is None and any(key.startswith("memorisation") for key in kept):
        of = of | {"holdout": held}
    return evaluation | {
        "reference": of,
        "metrics": kept | evaluation["metrics"],
        "warnings": [*dict.fromkeys([*evaluation["warnings"], *warnings])],
    }


def _measured_of(evaluation: dict[str, Any]) -> dict[str, Any]:
    """What figures must agree in to stand in one file, as JSON has it. Raises ValueError where a hash is not known:
    then nothing says that it is the same."""
    reference = {key: value for key, value in evaluation["reference"].items() if key != "holdout"}
    parts = {"features": evaluation["features"], "reference": reference, "samples": evaluation["samples"]["sha256"]}
    if None in (parts["samples"], reference["sha256"], evaluation["features"]["sha256"]):
        raise ValueError("a hash is not known")
    as_json: dict[str, Any] = json.loads(json.dumps(parts))
    return as_json


def write_evaluation(evaluation: dict[str, Any], path: Path) -> Path:
    """Write an evaluation file, whole or not at all."""
    check_writable(path)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(evaluation, indent=1) + "\n", encoding="utf-8")
    partial.replace(path)
    return path
