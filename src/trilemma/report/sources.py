"""What reports are made from: evaluations, and the log, recipe and strips that a run directory holds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from trilemma.errors import InputError
from trilemma.evaluations.record import Evaluation, read
from trilemma.machine.untrusted import open_arrays, parse_json, parse_yaml, read_text
from trilemma.report.tables import natural
from trilemma.runs.cascades import split_spec
from trilemma.samplers import Strip


@dataclass(frozen=True)
class RunFiles:
    """What a run directory holds beside its evaluations; what it lacks is None or empty."""

    path: Path
    recipe: str | None
    log: tuple[dict[str, Any], ...]
    forward: Strip | None
    reverse: Strip | None

    @property
    def name(self) -> str:
        """What the run is called: its directory's name."""
        return self.path.resolve().name

    @cached_property
    def values(self) -> dict[str, Any]:
        """The recipe as plain values, empty where it cannot be read."""
        with suppress(ValueError):
            if isinstance(found := parse_yaml(self.recipe or ""), dict):
                return found
        return {}

    @property
    def classes(self) -> list[str]:
        """The names of the classes, where the recipe states them."""
        images = self.values.get("images")
        names = images.get("classes") if isinstance(images, dict) else None
        return [str(name) for name in names] if isinstance(names, list) else []


def _text(path: Path) -> str:
    try:
        return read_text(path)
    except ValueError as error:
        raise InputError(f"{path}: cannot be read as text ({_reason(error)})") from error


def _reason(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error)).splitlines()[0] if str(error) else type(error).__name__


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

    Raises InputError for anything else."""
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


def read_run(path: Path) -> tuple[RunFiles, list[Evaluation]]:
    """A run directory's files, and its evaluations in the order they were made.

    Raises InputError where there is neither an evaluation nor a log, or one of the files is invalid."""
    evaluations = _read_all((path / "evaluations").glob("*.json"))
    log, recipe = path / "log.jsonl", path / "recipe.yaml"
    if not evaluations and not log.exists():
        raise InputError(f"{path}: nothing to report: no evaluations/*.json and no log.jsonl (is it a run directory?)")
    strips = [
        read_strip(file) if (file := path / "samples" / f"{way}-strip.npz").exists() else None
        for way in ("forward", "reverse")
    ]
    text, lines = _text(recipe) if recipe.exists() else None, read_log(log) if log.exists() else ()
    return RunFiles(path, text, lines, *strips), evaluations


def _read_all(paths: Iterable[Path]) -> list[Evaluation]:
    """Evaluations in the order they were made."""
    return sorted((read(path) for path in sorted(paths)), key=lambda one: one.created or "")


def read_sources(sources: Sequence[Path]) -> tuple[list[RunFiles], list[Evaluation]]:
    """Every run and evaluation named, each once, evaluations by their labels, numbers in these as numbers. Raises
    InputError for what is neither."""
    runs: dict[Path, RunFiles] = {}
    evaluations: dict[Path | None, Evaluation] = {}
    for source in (Path(split_spec(source)[-1]) for source in sources):
        if source.is_dir():
            source = source.parent if is_evaluations(source) else source
            run, found = read_run(source)
            runs.setdefault(source.resolve(), run)
        else:
            found = [read(source)]
        for one in found:
            evaluations.setdefault(one.path and one.path.resolve(), one)
    if not runs and not evaluations:
        raise InputError("nothing to report: name at least one run directory or evaluation .json")
    return list(runs.values()), sorted(evaluations.values(), key=lambda one: natural(one.label))


def is_evaluations(path: Path) -> bool:
    """Whether it is the folder of a run's evaluations."""
    return path.resolve().name == "evaluations" and path.is_dir() and not (path / "evaluations").is_dir()


def read_compared(sources: Sequence[Path]) -> list[Evaluation]:
    """The evaluations named: files, folders of them, and run directories (theirs, in the order they were made).

    Raises InputError for one that cannot be read, a folder without any, and one named twice."""
    found: dict[Path | None, Evaluation] = {}
    for source in sources:
        folder = source / "evaluations" if (source / "evaluations").is_dir() else source
        several = _read_all(folder.glob("*.json")) if source.is_dir() else [read(source)]
        if not several:
            raise InputError(f"{source}: no *.json there, expected evaluations, or a run directory that has some")
        for one in several:
            if (place := one.path and one.path.resolve()) in found:
                raise InputError(f"{one.path}: named twice, expected different evaluations")
            found[place] = one
    return list(found.values())


def same_seeds(evaluations: Sequence[Evaluation]) -> bool:
    """Whether several models' samples came from the same seeds and classes, so that they can be held side by side."""
    drawn = {(str(one.samples.seeds), one.samples.classes) for one in evaluations if not one.yardstick}
    return len(evaluations) > 1 and len(drawn) == 1 and drawn.pop()[0] != "None"
