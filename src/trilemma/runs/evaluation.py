"""Measuring a run or a set of images against a reference, into a file that says everything the figures depended on."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64, UInt8

from trilemma.data import open_data, parse_reference, read_samples
from trilemma.errors import InputError
from trilemma.metrics import Speed, compute, extract, gathered_cautions, measure
from trilemma.process import Condition
from trilemma.runs.devices import process_state
from trilemma.runs.environment import environment
from trilemma.runs.evaluation_files import (
    FORMAT,
    MACHINE,
    NEIGHBOURS,
    check_evaluation_out,
    default_out,
    samples_sha256,
    with_kept,
    write_evaluation,
)
from trilemma.runs.extractors import extractor_of
from trilemma.runs.feature_cache import BATCH
from trilemma.runs.network_costs import multiply_adds
from trilemma.runs.reference import Reference, data_record, open_reference
from trilemma.runs.run import Run, describe
from trilemma.runs.sampling import Sampler, labels_for, overridden, read_record, record_of
from trilemma.runs.wanted import Wanted, check_measurable

__all__ = ["Subject", "evaluate", "evaluate_data", "write_evaluation"]


@dataclass(frozen=True)
class Subject:
    """What is measured: images, the classes asked of them, a way to time their sampler, and what the evaluation says of
    them (label, subject, samples, sampler)."""

    images: UInt8[np.ndarray, "n h w c"]
    labels: Int64[np.ndarray, "n"] | None
    speed: Callable[[], Speed] | None
    described: dict[str, Any]


def evaluate(
    subject: Run | str | Path,
    reference: str | None = None,
    *,
    metrics: Sequence[str] | None = None,
    features: str = "digits",
    neighbours: int = NEIGHBOURS,
    counts: Sequence[int] | None = None,
    n: int | None = None,
    seeds: Sequence[int] | None = None,
    cls: str | int | None = None,
    samples_out: str | Path | None = None,
    out: str | Path | None = None,
    root: str | None = None,
    label: str | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Measure a run (by `n` samples, 1 000 unless given, made or taken up as `Run.sample` does) or a set of samples
    against a reference.

    `reference`: DATA[:SPLIT] or STATS.npz; a run's own training split unless given. `metrics`: names, or all that can
    be had (memorisation unasked only where held-out images cost little, and a run was trained on the reference).
    `features`: see `open_extractor`, or `classifier:RUN`. `neighbours`: k of precision and recall. `counts`: how many
    of the images to compute the Fréchet distance from, besides from all. `out`: where the evaluation is written;
    RUN/evaluations/… unless given. Returns the evaluation. Raises InputError for what cannot be done, before anything
    is sampled."""
    began = time.perf_counter()
    wanted = Wanted.of(metrics, features, neighbours, counts)
    run = subject if isinstance(subject, Run) else _as_run(Path(subject))
    reference, root = _reference_of(run, reference, root)
    if out is not None:
        check_evaluation_out(Path(out), run.path if run is not None else Path(str(subject)), reference)
    with gathered_cautions() as warnings:
        fitted = (run.recipe.data.size, run.recipe.data.channels) if run is not None else (None, None)
        own = run is None or parse_reference(reference) == (run.recipe.data.name, run.recipe.data.split)
        against = open_reference(
            reference,
            features,
            root,
            *fitted,
            features=wanted.reference_features,
            holdout=wanted.holdout if own or wanted.holdout else False,
        )
        if run is not None:
            count = len(seeds) if seeds is not None else 1000 if n is None else n
            _check_first(run, against, wanted, count)
            measured = _of_run(run, count, seeds, cls, samples_out, settings)
        else:
            given = {"n": n, "seeds": seeds, "samples": samples_out}
            measured = _of_samples(Path(str(subject)), settings, cls, given)
        evaluation = _measured(measured, against, wanted)
    evaluation |= {"warnings": warnings, "wall_time_s": round(time.perf_counter() - began, 2)}
    if label:
        evaluation["label"] = label
    place = (
        Path(out)
        if out is not None
        else default_out(None if run is None else run.path, Path(str(subject)), evaluation, features)
    )
    evaluation = with_kept(place, evaluation)
    if process_state().is_main_process:
        write_evaluation(evaluation, place)
    return evaluation | {"path": str(place)}


def evaluate_data(
    spec: str, reference: str, *, features: str = "digits", root: str | None = None, out: Path | None = None
) -> dict[str, Any]:
    """Measure real images of DATA[:SPLIT] as if they were generated: the yardstick that no model is expected to
    beat."""
    began = time.perf_counter()
    name, split = parse_reference(spec)
    if out is not None:
        check_evaluation_out(out, Path(name), reference)
    data = open_data(name, split=split, root=root)
    images, labels = data.batch(range(len(data)))
    record = data_record(data)
    samples = {"count": len(data), "seeds": None, "classes": None, "file": None, "sha256": record["sha256"]}
    subject = {"kind": "data", "path": spec, **record}
    described = {"label": f"Real images ({split})", "subject": subject, "samples": samples, "sampler": None}
    with gathered_cautions() as warnings:
        against = open_reference(reference, features, root)
        evaluation = _measured(Subject(images, labels, None, described), against, Wanted(features=features))
    evaluation |= {"warnings": warnings, "wall_time_s": round(time.perf_counter() - began, 2)}
    if out is not None and process_state().is_main_process:
        write_evaluation(evaluation, out)
    return evaluation


def _measured(subject: Subject, against: Reference, wanted: Wanted) -> dict[str, Any]:
    """The evaluation of a subject, but for its warnings and wall time."""
    images = subject.images
    _, height, width, channels = images.shape
    if against.size is not None and (channels, height, width) != against.size:
        raise InputError(
            f"reference {against.record['data']!r}: its images are {against.size}, the samples "
            f"{(channels, height, width)} (channels, height, width)"
        )
    look, state = extractor_of(wanted.features), process_state()
    fake = extract((images[i : i + BATCH] for i in range(0, len(images), BATCH)), look)
    record = look.record(fake.dim)
    figures = compute(
        wanted.metrics,
        real=against.features,
        fake=fake,
        labels=subject.labels,
        sampler=subject.speed,
        neighbours=wanted.neighbours,
        counts=wanted.counts,
        features=record,
    )
    return {
        "format": FORMAT,
        "created": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        **subject.described,
        "features": record,
        "reference": against.record,
        "neighbours": wanted.neighbours,
        "metrics": figures,
        "environment": environment(state.device, state.num_processes),
    }


def _as_run(path: Path) -> Run | None:
    if (path / "recipe.yaml").is_file() or (path / "checkpoints").is_dir():
        return Run(path)
    if not path.exists():
        raise InputError(f"{path} does not exist: expected a run directory, or samples as an .npz, a folder or a zip")
    return None


def _reference_of(run: Run | None, reference: str | None, root: str | None) -> tuple[str, str | None]:
    if run is None:
        if reference is None:
            raise InputError("reference: samples need one, DATA[:SPLIT] or STATS.npz")
        return reference, root
    data = run.recipe.data
    reference = reference or f"{data.name}:{data.split}"
    same = parse_reference(reference)[0] == data.name
    return reference, root or (data.root if same else None)


def _check_first(run: Run, against: Reference, wanted: Wanted, count: int) -> None:
    """Refuse before sampling what could not be measured after it: by one black image through the extractor."""
    assert run.recipe.images is not None
    if wanted.counts is not None and max(wanted.counts) > count:
        raise InputError(f"counts: {max(wanted.counts)} is more than the {count} images to be sampled")
    check_measurable(run.recipe.images.shape, against, wanted.features, wanted.metrics, counts=bool(wanted.counts),
                     labels=bool(run.classes), sampler=True)  # fmt: skip


def _of_run(run: Run, n: int, seeds: Sequence[int] | None, cls: Any, out: Any, settings: dict[str, Any]) -> Subject:
    begin = {key: settings.pop(key) for key in ("surrogate", "t_mid") if key in settings}
    chosen = overridden(run.recipe.sampling, **settings)
    samples = run.sample_to(out, n=n, seeds=seeds, cls=cls, **begin, **settings)
    assert samples.path is not None and samples.record is not None
    sampler, record = run.sampler(chosen, **begin), samples.record
    described = {
        "label": describe(chosen, sampler),
        "subject": {
            "kind": "run",
            "path": str(run.path),
            "recipe": run.recipe.name,
            "checkpoint_step": run.step,
            "weights": chosen.weights,
            "weights_sha256": record["weights_sha256"],
            "parameters": run.parameters,
        },
        "samples": {
            "count": len(samples),
            "seeds": record["seeds"],
            "classes": record["classes"],
            "file": _inside(samples.path, run.path),
            "sha256": samples_sha256(samples.path),
        },
        "sampler": record["sampler"] | ({"surrogate": record["surrogate"]} if record["surrogate"] else {}),
    }
    beside = record_of(samples.path)
    return Subject(samples.images, samples.labels, lambda: _speed(beside, sampler, run, chosen.batch), described)


def _speed(beside: Path, sampler: Sampler, run: Run, batch: int) -> Speed:
    """The rate of the batches that were made, the first left out as a warm-up; where they are too few, timed once and
    written into the samples' record."""
    record, state = read_record(beside), process_state()
    here = environment(state.device, state.num_processes)
    same = all(record["environment"].get(key) == here[key] for key in MACHINE)
    full = [count / seconds for count, seconds in record["batches"][1:] if count == batch]
    if len(full) >= 2 and same and state.num_processes == 1:
        rates = (statistics.median(full), min(full), max(full))
        return Speed(*rates, batch, len(full), 1, sampler.evaluations, _multiply_adds(sampler, run))
    if "speed" not in record or not same:

        def generate(count: int) -> None:
            seeds = range(count)
            sampler.generate(seeds, labels_for(seeds, run.classes, None))

        timed = measure(generate, batch=min(batch, 16), network_evaluations=sampler.evaluations)
        timed = replace(timed, multiply_adds=_multiply_adds(sampler, run))
        record |= {"speed": asdict(timed), "environment": here}
        if state.is_main_process:
            beside.write_text(json.dumps(record, indent=1), encoding="utf-8")
    return Speed(**record["speed"])


def _multiply_adds(sampler: Sampler, run: Run) -> int:
    """What the networks do for one image, over all evaluations."""
    denoiser, t = sampler.denoiser, torch.tensor(sampler.denoiser.schedule.T, dtype=torch.float64)
    label = torch.zeros(1, dtype=torch.int64, device=sampler.device) if run.classes else None
    with torch.inference_mode():
        each = multiply_adds(
            lambda: denoiser(torch.zeros(1, *sampler.shape, device=sampler.device), t, Condition(label))
        )
    return each * sampler.evaluations


def _of_samples(path: Path, settings: dict[str, Any], cls: Any, sampling: dict[str, Any]) -> Subject:
    asked = [key for key, value in {**settings, "class": cls, **sampling}.items() if value is not None]
    if asked:
        raise InputError(f"{asked[0]}: {path} holds finished samples, nothing is sampled; give a run instead")
    images, labels = read_samples(path)
    made = read_record(record_of(path)) if record_of(path).exists() else {}
    samples = {
        **{"count": len(images), "seeds": made.get("seeds"), "classes": made.get("classes")},
        **{"file": str(path), "sha256": samples_sha256(path)},
    }
    described = {
        "label": path.stem,
        "subject": {"kind": "samples", "path": str(path)},
        "samples": samples,
        "sampler": made.get("sampler"),
    }
    return Subject(images, labels, None, described)


def _inside(path: Path, run: Path) -> str:
    """The path as seen from the run, where it lies in it, so that a run can be moved."""
    with suppress(ValueError):
        return str(path.resolve().relative_to(run.resolve()))
    return str(path)
