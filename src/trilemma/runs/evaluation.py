"""Measuring a run or a set of images against a reference, into a file that says everything the figures depended on."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt8

from trilemma.data import open_data, parse_reference, read_samples
from trilemma.errors import InputError
from trilemma.metrics import Speed, check_needs, compute, extract, gathered_cautions, measure
from trilemma.runs.devices import process_state
from trilemma.runs.environment import environment
from trilemma.runs.places import check_writable
from trilemma.runs.reference import BATCH, Reference, data_record, extractor_of, open_reference
from trilemma.runs.run import Run, describe
from trilemma.runs.sampling import Sampler, labels_for, overridden, read_record, record_of, sha256

FORMAT = "trilemma-evaluation/1"


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
    be had. `out`: where the evaluation is written; RUN/evaluations/… unless given. Returns the evaluation. Raises
    InputError for what cannot be done, before anything is sampled."""
    began = time.perf_counter()
    run = subject if isinstance(subject, Run) else _as_run(Path(subject))
    reference, root = _reference_of(run, reference, root)
    if out is not None:
        check_writable(Path(out))
    with gathered_cautions() as warnings:
        fitted = (run.recipe.data.size, run.recipe.data.channels) if run is not None else (None, None)
        against = open_reference(reference, features, root, *fitted)
        if run is not None:
            _check_first(run, against, metrics, features)
            measured = _of_run(run, 1000 if n is None else n, seeds, cls, samples_out, settings)
        else:
            given = {"n": n, "seeds": seeds, "samples": samples_out}
            measured = _of_samples(Path(str(subject)), settings, cls, given)
        evaluation = _measured(measured, against, metrics, features)
    evaluation |= {"warnings": warnings, "wall_time_s": round(time.perf_counter() - began, 2)}
    if label:
        evaluation["label"] = label
    place = Path(out) if out is not None else _default_out(run, Path(str(subject)), evaluation)
    evaluation["metrics"] = _kept(place, evaluation) | evaluation["metrics"]
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
    data = open_data(name, split=split, root=root)
    images, labels = data.batch(range(len(data)))
    record = data_record(data)
    samples = {"count": len(data), "seeds": None, "classes": None, "file": None, "sha256": record["sha256"]}
    subject = {"kind": "data", "path": spec, **record}
    described = {"label": f"Real images ({split})", "subject": subject, "samples": samples, "sampler": None}
    with gathered_cautions() as warnings:
        against = open_reference(reference, features, root)
        evaluation = _measured(Subject(images, labels, None, described), against, None, features)
    evaluation |= {"warnings": warnings, "wall_time_s": round(time.perf_counter() - began, 2)}
    if out is not None and process_state().is_main_process:
        write_evaluation(evaluation, out)
    return evaluation


def _measured(subject: Subject, against: Reference, metrics: Sequence[str] | None, features: str) -> dict[str, Any]:
    """The evaluation of a subject, but for its warnings and wall time."""
    images = subject.images
    _, height, width, channels = images.shape
    if against.size is not None and (channels, height, width) != against.size:
        raise InputError(
            f"reference {against.record['data']!r}: its images are {against.size}, the samples "
            f"{(channels, height, width)} (channels, height, width)"
        )
    look, state = extractor_of(features), process_state()
    fake = extract((images[i : i + BATCH] for i in range(0, len(images), BATCH)), look)
    record = look.record(fake.dim)
    real, labels, speed = against.features, subject.labels, subject.speed
    return {
        "format": FORMAT,
        "created": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        **subject.described,
        "features": record,
        "reference": against.record,
        "metrics": compute(metrics, real=real, fake=fake, labels=labels, sampler=speed, features=record),
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


def _check_first(run: Run, against: Reference, metrics: Sequence[str] | None, features: str) -> None:
    """Refuse before sampling what could not be measured after it: by one black image through the extractor."""
    assert run.recipe.images is not None
    channels, height, width = run.recipe.images.shape
    if against.size is not None and against.size != run.recipe.images.shape:
        raise InputError(f"reference: its images are {against.size}, the run's {run.recipe.images.shape} (c, h, w)")
    seen = extractor_of(features)(np.zeros((1, height, width, channels), dtype=np.uint8))
    classifies = seen.logits is not None
    check_needs(metrics, real=against.features, classifies=classifies, labels=bool(run.classes), sampler=True)


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
            "sha256": sha256(samples.path) if samples.path.is_file() else None,
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
    same = all(record["environment"].get(key) == here[key] for key in ("device", "hardware", "threads", "processes"))
    full = [count / seconds for count, seconds in record["batches"][1:] if count == batch]
    if len(full) >= 2 and same and state.num_processes == 1:
        return Speed(statistics.median(full), min(full), max(full), batch, len(full), 1, sampler.evaluations)
    if "speed" not in record or not same:

        def generate(count: int) -> None:
            seeds = range(count)
            sampler.generate(seeds, labels_for(seeds, run.classes, None))

        timed = measure(generate, batch=min(batch, 16), network_evaluations=sampler.evaluations)
        record |= {"speed": asdict(timed), "environment": here}
        if state.is_main_process:
            beside.write_text(json.dumps(record, indent=1))
    return Speed(**record["speed"])


def _of_samples(path: Path, settings: dict[str, Any], cls: Any, sampling: dict[str, Any]) -> Subject:
    asked = [key for key, value in {**settings, "class": cls, **sampling}.items() if value is not None]
    if asked:
        raise InputError(f"{asked[0]}: {path} holds finished samples, nothing is sampled; give a run instead")
    images, labels = read_samples(path)
    file_hash = sha256(path) if path.is_file() else None
    made = read_record(record_of(path)) if record_of(path).exists() else {}
    samples = {
        **{"count": len(images), "seeds": made.get("seeds"), "classes": made.get("classes")},
        **{"file": str(path), "sha256": file_hash},
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


def _default_out(run: Run | None, subject: Path, evaluation: dict[str, Any]) -> Path:
    """A place of its own for each set of samples, reference and features."""
    against = evaluation["reference"]
    parts = [str(against["data"]), str(against.get("split", "")), evaluation["features"]["name"]]
    basis = "-".join(Path(part).stem for part in parts if part)
    if run is None:
        return subject.with_name(f"{subject.name}-vs-{basis}.json")
    return run.path / "evaluations" / f"{Path(evaluation['samples']['file']).stem}-vs-{basis}.json"


def _kept(place: Path, evaluation: dict[str, Any]) -> dict[str, Any]:
    """The figures of an earlier evaluation of the very same, which asking for other metrics must not lose."""
    parts = ("samples", "reference", "features")
    try:
        found = json.loads(place.read_text())
        same = all(found[part].get("sha256") == evaluation[part].get("sha256") for part in parts)
        return dict(found["metrics"]) if same and found["format"] == FORMAT else {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def write_evaluation(evaluation: dict[str, Any], path: Path) -> Path:
    """Write an evaluation file, whole or not at all."""
    check_writable(path)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(evaluation, indent=1) + "\n")
    partial.replace(path)
    return path
