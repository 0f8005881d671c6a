"""What a report is made from: evaluation files, and the log, recipe and strips that a run directory holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt8

from trilemma.data.samples import read_samples
from trilemma.errors import InputError
from trilemma.report.tables import Evaluation, is_yardstick, lookup
from trilemma.untrusted import kind_of, open_arrays, parse_json, read_text

FORMAT = "trilemma-evaluation/"
_REQUIRED = ("format", "label", "subject.kind", "samples.count", "metrics")


@dataclass(frozen=True)
class Strip:
    """Images on their way between clean and noise: `images` (rows, steps, h, w, c) at `times`, in the order shown."""

    images: UInt8[np.ndarray, "rows steps h w c"]
    times: tuple[float, ...]


@dataclass(frozen=True)
class RunFiles:
    """What a run directory holds beside its evaluations; what it lacks is None or empty."""

    path: Path
    recipe: str | None
    log: tuple[dict[str, Any], ...]
    forward: Strip | None
    reverse: Strip | None


@dataclass(frozen=True)
class Measured:
    """An evaluation, the file it came from, and the first of its samples, where they are still there."""

    evaluation: Evaluation
    path: Path

    def samples(self) -> tuple[UInt8[np.ndarray, "n h w c"], Int64[np.ndarray, " n"] | None] | None:
        """Its images (and labels). None where no samples file is named or it is gone.

        Raises InputError for a file that cannot be read as samples.
        """
        name = lookup(self.evaluation, "samples.file")
        if not isinstance(name, str) or not name:
            return None
        for base in (self.path.parent.parent, self.path.parent, Path()):
            if (base / name).exists():
                return read_samples(base / name)
        return None


def _text(path: Path) -> str:
    try:
        return read_text(path)
    except ValueError as error:
        raise InputError(f"{path}: cannot be read as text ({_reason(error)})") from error


def _reason(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error)).splitlines()[0] if str(error) else type(error).__name__


def read_evaluation(path: Path) -> Measured:
    """Read one evaluation file. Raises InputError where it is missing, not JSON, or lacks a key, naming that key."""
    if kind_of(path) is None:
        raise InputError(f"{path}: no such file or directory (expected a run directory or an evaluation .json)")
    text = _text(path)
    try:
        content = parse_json(text)
    except ValueError as error:
        raise InputError(f"{path}: not an evaluation: no valid JSON ({error})") from error
    expected = "expected a file that `trilemma evaluate` wrote"
    if not isinstance(content, dict):
        raise InputError(f"{path}: not an evaluation: holds a {type(content).__name__}, not an object ({expected})")
    for key in _REQUIRED:
        if lookup(content, key) is None:
            raise InputError(f"{path}: not an evaluation: key {key!r} is missing ({expected})")
    if not str(content["format"]).startswith(FORMAT):
        raise InputError(f"{path}: not an evaluation: 'format' is {content['format']!r}, expected {FORMAT}1")
    if not isinstance(content["metrics"], dict):
        raise InputError(f"{path}: not an evaluation: 'metrics' is {content['metrics']!r}, expected an object")
    return Measured(content, path)


def read_log(path: Path) -> tuple[dict[str, Any], ...]:
    """The lines of a log.jsonl, merged by step and in its order; where a resumed run logged a step again, the later
    line counts. A broken last line (a killed run's) is passed over; raises InputError for any other."""
    lines = _text(path).splitlines()
    steps: dict[float, dict[str, Any]] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            entry = parse_json(line)
            step = float(entry["step"])
        except (ValueError, KeyError, TypeError) as error:
            if number == len(lines):
                break
            raise InputError(f"{path}: line {number} is not a JSON object with a step: {line[:60]!r}") from error
        steps[step] = {**steps.get(step, {}), **entry}
    return tuple(steps[step] for step in sorted(steps))


def read_strip(path: Path) -> Strip:
    """A strip's `.npz`: `images` uint8 (rows, steps, h, w, c) with 1 or 3 channels, `times` (steps).

    Raises InputError for anything else.
    """
    try:
        with open_arrays(path) as file:
            images, times = file["images"], np.asarray(file["times"], dtype=float)
    except (ValueError, KeyError) as error:
        raise InputError(f"{path}: not a strip (expected .npz with images and times): {_reason(error)}") from error
    fits = images.dtype == np.uint8 and images.ndim == 5 and images.shape[-1] in (1, 3) and images.size > 0
    if not fits or times.shape != images.shape[1:2]:
        raise InputError(
            f"{path}: images {images.dtype} {images.shape} and times {times.shape} are not a strip "
            "(expected uint8 [rows, steps, h, w, c] and [steps])"
        )
    return Strip(images, tuple(float(t) for t in times))


def read_run(path: Path) -> tuple[RunFiles, list[Measured]]:
    """A run directory's files, and its evaluations in the order they were made.

    Raises InputError where there is neither an evaluation nor a log, or one of the files is invalid.
    """
    measured = [read_evaluation(file) for file in sorted((path / "evaluations").glob("*.json"))]
    measured.sort(key=lambda m: str(m.evaluation.get("created") or ""))
    log, recipe = path / "log.jsonl", path / "recipe.yaml"
    if not measured and not log.exists():
        raise InputError(f"{path}: nothing to report: no evaluations/*.json and no log.jsonl (is it a run directory?)")
    strips = [
        read_strip(file) if (file := path / "samples" / f"{way}-strip.npz").exists() else None
        for way in ("forward", "reverse")
    ]
    return RunFiles(
        path,
        _text(recipe) if recipe.exists() else None,
        read_log(log) if log.exists() else (),
        strips[0],
        strips[1],
    ), measured


def read_sources(sources: Sequence[Path]) -> tuple[list[RunFiles], list[Measured]]:
    """Every run and evaluation named, each once. Raises InputError for what is neither."""
    runs: dict[Path, RunFiles] = {}
    measured: dict[Path, Measured] = {}
    for source in sources:
        if source.is_dir():
            run, found = read_run(source)
            runs.setdefault(source.resolve(), run)
        else:
            found = [read_evaluation(source)]
        for one in found:
            measured.setdefault(one.path.resolve(), one)
    if not runs and not measured:
        raise InputError("nothing to report: name at least one run directory or evaluation .json")
    return list(runs.values()), list(measured.values())


def same_seeds(evaluations: Sequence[Mapping[str, Any]]) -> bool:
    """Whether several models' samples came from the same seeds and classes, so that they can be held side by side."""
    models = [e for e in evaluations if not is_yardstick(e)]
    drawn = {(str(lookup(e, "samples.seeds")), str(lookup(e, "samples.classes"))) for e in models}
    return len(evaluations) > 1 and len(drawn) == 1 and lookup(models[0], "samples.seeds") is not None
