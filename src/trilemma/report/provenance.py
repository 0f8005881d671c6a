"""What was run and on what: the facts that evaluations share, those that differ, and commands."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trilemma.evaluations.record import Evaluation, SamplerRecord
from trilemma.recipes import sampling_words
from trilemma.report.sources import RunFiles
from trilemma.report.tables import DASH, Row, Table, warnings_of


def _grouped(count: object) -> str:
    return f"{count:,}".replace(",", " ") if isinstance(count, int) else str(count)


def _join(*parts: object) -> str:
    return ", ".join(str(part) for part in parts if part not in (None, ""))


def _plural(count: int | None, noun: str, ending: str = "s") -> str:
    return f"{_grouped(count)} {noun}{ending * (count != 1)}" if count else ""


def _hash(digest: str | None) -> str:
    """Enough of a hash to compare by eye."""
    return f"sha256 {digest[:12]}" if digest else ""


def _sampler(sampler: SamplerRecord) -> str:
    own = [
        name if value is True else f"{name} {value}"
        for name, value in (sampler.model_extra or {}).items()
        if name != "weights" and value is not None and value is not False
    ]
    return _join(
        sampler.sampler,
        f"{sampler.steps} steps" if sampler.steps is not None else "",
        f"{sampler.spacing} grid" if sampler.spacing else "",
        *own,
        f"over {sampler.low.get('name')}" if sampler.low else "",
        {"static": "x₀ clipped", "dynamic": "x₀ clipped dynamically"}.get(str(sampler.clip), ""),
        sampler.precision,
    )


def facts(evaluation: Evaluation) -> dict[str, str]:
    """What an evaluation depended on, in words, without the facts that it does not state."""
    subject, samples, features = evaluation.subject, evaluation.samples, evaluation.features
    reference, machine, seconds = evaluation.reference, evaluation.environment, evaluation.wall_time_s
    channels, height, width = reference.size or (0, 0, 0)
    found = {
        "Measured": _join(subject.path, f"recipe {subject.recipe}" if subject.recipe else ""),
        "Model": _join(
            _plural(subject.parameters, "parameter"),
            f"step {_grouped(subject.checkpoint_step)}" if subject.checkpoint_step is not None else "",
            f"{subject.weights} weights" if subject.weights else "",
        ),
        "Sampler": _sampler(evaluation.sampler) if evaluation.sampler else "",
        "Samples": _join(
            _grouped(samples.count),
            f"seeds {samples.seeds}" if samples.seeds else "",
            f"classes: {samples.classes}" if samples.classes is not None else "",
        ),
        "Samples file": _join(samples.file, _hash(samples.sha256)),
        "Features": _join(
            features.name,
            _plural(features.dim, "dimension"),
            f"resize: {features.resize}" if features.resize else "",
            _hash(features.sha256),
        ),
        "Reference": _join(
            reference.spec,
            _plural(reference.count, "image"),
            f"{height}×{width}, {_plural(channels, 'channel')}" if channels else "",
            _hash(reference.sha256),
        ),
        "Classifier": str(evaluation.classifier or ""),
        "Machine": _join(
            machine.hardware,
            f"device {machine.device}" if machine.device else "",
            _plural(machine.threads, "thread"),
            _plural(machine.processes, "process", "es"),
        ),
        "Versions": _join(
            f"trilemma {machine.trilemma}" if machine.trilemma else "",
            f"torch {machine.torch}" if machine.torch else "",
            f"python {machine.python}" if machine.python else "",
        ),
        "Time to measure": f"{seconds:.1f} s" if seconds is not None else "",
        "Created": (evaluation.created or "").replace("T", " ").replace("Z", " UTC"),
    }
    return {name: text for name, text in found.items() if text}


def training_words(log: Sequence[Mapping[str, Any]]) -> str:
    """What a log says of a training: its length, time, rate and skipped steps."""

    def last(key: str) -> float | None:
        return next((entry[key] for entry in reversed(log) if isinstance(entry.get(key), int | float)), None)

    step, images, seconds = last("step"), last("images"), last("time_s")
    skipped = max((entry["skipped"] for entry in log if isinstance(entry.get("skipped"), int)), default=0)
    validation = last("validation_loss")
    return _join(
        f"{_grouped(int(step))} steps" if step is not None else "",
        f"{_grouped(int(images))} images seen" if images is not None else "",
        f"{seconds / 60:.1f} minutes" if seconds is not None else "",
        f"{images / seconds:.0f} images/s" if images and seconds else "",
        f"{skipped} non-finite steps skipped" if skipped else "",
        f"validation loss at the end {validation:.4g}" if validation is not None else "",
    )


def _evaluate_command(evaluation: Evaluation) -> str | None:
    subject, samples, sampler = evaluation.subject, evaluation.samples, evaluation.sampler
    if subject.kind not in ("run", "samples") or not subject.path or not evaluation.reference.data:
        return None
    words = ["trilemma", "evaluate", subject.path]
    if subject.kind == "run" and sampler is not None:
        made = {"weights": subject.weights, **sampler.model_dump(mode="json", exclude_none=True)}
        words += sampling_words(made, samples.seeds_in_words, samples.classes)
    words += ["--reference", evaluation.reference.spec]
    if evaluation.features.name:
        words += ["--features", evaluation.features.name]
    return shlex.join(words)


def commands(runs: Sequence[RunFiles], rows: Sequence[Row]) -> list[str]:
    """Commands that train and measure the same again, as far as the files say."""
    trained = [
        shlex.join(["trilemma", "train", str(run.path / "recipe.yaml"), "--out", f"{run.path}-again"])
        for run in runs
        if run.recipe
    ]
    return list(dict.fromkeys([*trained, *(c for row in rows if (c := _evaluate_command(row.evaluation)))]))


@dataclass(frozen=True)
class Provenance:
    """What a page says of it: facts that all evaluations share; the `heads` and, a row an evaluation, the cells of the
    others; warnings with the labels that they are about, `count` being all rows; commands; recipes by their titles."""

    shared: dict[str, str]
    heads: list[str]
    rows: list[tuple[str, dict[str, str]]]
    count: int
    warnings: dict[str, list[str]]
    commands: list[str]
    recipes: dict[str, str]


def provenance(table: Table, runs: Sequence[RunFiles]) -> Provenance:
    """What was run and on what, of evaluations and of the runs that were named."""
    stated = [(row.label, facts(row.evaluation)) for row in table.rows]
    names = list(dict.fromkeys(name for _, known in stated for name in known))
    values = {name: list(dict.fromkeys(known[name] for _, known in stated if name in known)) for name in names}
    heads = [name for name in names if len(values[name]) > 1]

    def of(what: str, run: RunFiles) -> str:
        return f"{what} of {run.path.name}" if len(runs) > 1 else what

    trained = {of("Training", run): words for run in reversed(runs) if (words := training_words(run.log))}
    return Provenance(
        trained | {name: found[0] for name, found in values.items() if len(found) == 1},
        heads,
        [(label, {name: known.get(name, DASH) for name in heads}) for label, known in stated] if heads else [],
        len(table.rows),
        warnings_of(table.rows),
        commands(runs, table.rows),
        {of("Recipe", run): run.recipe.strip() for run in runs if run.recipe},
    )
