"""Measuring a run or images against a reference: what is measured, and what the evaluation says of it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt8
from torch import Tensor

from trilemma.data import SOURCES, ImageSet, Opening, image_set, open_data, parse_reference, read_samples
from trilemma.errors import InputError
from trilemma.evaluations.cache import BATCH
from trilemma.evaluations.extractors import extractor_of, features_for
from trilemma.evaluations.files import check_out, default_out, is_of_set, samples_sha256, with_kept, written_in
from trilemma.evaluations.record import (
    FORMAT,
    NEIGHBOURS,
    EnvironmentRecord,
    Evaluation,
    FeaturesRecord,
    ReferenceRecord,
    SamplerRecord,
    SamplesRecord,
    SubjectRecord,
)
from trilemma.evaluations.reference import Reference, data_record, open_reference
from trilemma.evaluations.speed import speed_of
from trilemma.evaluations.wanted import Wanted, check_measurable
from trilemma.machine.devices import process_state
from trilemma.machine.environment import environment
from trilemma.machine.files import keeping
from trilemma.metrics import METRICS, Speed, compute, extract, gathered_cautions
from trilemma.runs.cascades import is_run, open_run
from trilemma.runs.run import Run
from trilemma.runs.sample_sets import read_record, record_of

IMAGES = 1000
"""Images of a run that are measured unless their number is given."""

Images = str | Path | ImageSet | np.ndarray | Tensor | Any
"""Images to measure or to measure against: data or samples by name or path, a data set, uint8 NHWC or float NCHW in
[−1, 1] as an array or tensor, or what has `images` and `labels`, such as sampling gives."""


@dataclass(frozen=True)
class Subject:
    """What is measured: images, the classes asked of them, a way to time their sampler, and what the evaluation says of
    them."""

    images: UInt8[np.ndarray, "n h w c"]
    labels: Int64[np.ndarray, "n"] | None
    label: str
    subject: SubjectRecord
    samples: SamplesRecord
    sampler: dict[str, Any] | None = None
    speed: Callable[[], Speed] | None = None


def evaluate(
    subject: Run | str | Path,
    reference: str | None = None,
    *,
    metrics: Sequence[str] | None = None,
    features: str | None = None,
    neighbours: int = NEIGHBOURS,
    counts: Sequence[int] | None = None,
    n: int | None = None,
    seeds: Sequence[int] | None = None,
    cls: str | int | None = None,
    samples_out: str | Path | None = None,
    out: str | Path | None = None,
    root: str | None = None,
    label: str | None = None,
    verify: bool = True,
    **settings: Any,
) -> Evaluation:
    """Measure a run or a cascade, BASE+UPSAMPLER, (by `n` samples, 1 000 unless given, made or taken up as `Run.sample`
    does) or a set of samples against a reference, into a file.

    `reference`: DATA[:SPLIT] or STATS.npz; a run's own training split unless given. `metrics`, `features`,
    `neighbours`, `counts`, `root`, `label`: see `measure`; memorisation unasked only where held-out images cost little,
    and a run was trained on the reference. `out`: where the evaluation is written; RUN/evaluations/… unless given.
    `verify`: hold the checkpoint's files against their hashes. Raises InputError for what cannot be done, before
    anything is sampled."""
    run = subject if isinstance(subject, Run) else _as_run(Path(subject), verify)
    if run is None:
        asked = {**settings, "class": cls, "n": n, "seeds": seeds, "samples": samples_out}
        if given := [key for key, value in asked.items() if value is not None]:
            raise InputError(f"{given[0]}: {subject} holds finished samples, nothing is sampled; give a run instead")
        if reference is None:
            raise InputError("reference: samples need one, DATA[:SPLIT] or STATS.npz")
        check_out(out, Path(str(subject)), reference)
        measured = measure(
            Path(str(subject)), reference, metrics,
            features=features, neighbours=neighbours, counts=counts, root=root, label=label,
        )  # fmt: skip
        return _written(measured, out or default_out(None, measured, features))
    check_out(out, run.path, reference or training_split(run))
    count = len(seeds) if seeds is not None else IMAGES if n is None else n
    protocol = Protocol(
        run, reference, metrics, features=features, neighbours=neighbours, counts=counts, count=count,
        labelled=bool(run.way(**settings).classes), root=root,
    )  # fmt: skip
    return protocol(seeds, cls, samples_out=samples_out, out=out, label=label, **settings)


def training_split(run: Run) -> str:
    """The data that a run was trained on, as a reference."""
    return f"{run.recipe.data.name}:{run.recipe.data.split}"


class Protocol:
    """How sample sets of one run are measured: `count` images each, against a reference that is opened, and held
    against what is asked, once, before anything is sampled. `labelled`: whether classes are asked of the images. The
    other arguments are those of `evaluate`; called with the rest of them it samples and measures one set. Raises
    InputError for what could not be measured."""

    def __init__(
        self,
        run: Run,
        reference: str | None = None,
        metrics: Sequence[str] | None = None,
        *,
        features: str | None = None,
        neighbours: int = NEIGHBOURS,
        counts: Sequence[int] | None = None,
        count: int = IMAGES,
        labelled: bool = False,
        root: str | None = None,
    ) -> None:
        began, data = time.perf_counter(), run.recipe.data
        self.run, self.count, self._features = run, count, features
        self.wanted = Wanted.of(metrics, features or features_for(run.recipe.images.shape), neighbours, counts)
        reference = reference or training_split(run)
        name, split = parse_reference(reference)
        own = (name, split) == (data.name, data.split)
        with gathered_cautions() as self._warnings:
            self.against = open_reference(
                reference,
                self.wanted.features,
                data.opening(name, root),
                features=self.wanted.reference_features,
                holdout=self.wanted.holdout if own or self.wanted.holdout else False,
            )
            if counts is not None and max(counts) > count:
                raise InputError(f"counts: {max(counts)} is more than the {count} images to be sampled")
            self._due = check_measurable(
                run.recipe.images.shape, self.against, self.wanted.features, self.wanted.metrics,
                counts=bool(counts), labels=labelled, sampler=True,
            )  # fmt: skip
        self._opening = time.perf_counter() - began

    def __call__(
        self,
        seeds: Sequence[int] | None = None,
        cls: Any = None,
        *,
        samples_out: str | Path | None = None,
        out: str | Path | None = None,
        label: str | None = None,
        **settings: Any,
    ) -> Evaluation:
        """Sample by these settings, measure, and write the evaluation."""
        began = time.perf_counter() - self._opening
        with gathered_cautions() as warnings:
            sampled = _of_run(self.run, self.count, seeds, cls, samples_out, settings)
            evaluation = _measured(sampled, self.against, self.wanted)
        evaluation = _said(evaluation, [*dict.fromkeys([*self._warnings, *warnings])], began, label)
        return _written(evaluation, out or default_out(self.run.path, evaluation, self._features))

    def standing(self, records: Sequence[Mapping[str, Any]]) -> list[Evaluation | None]:
        """For each sample set, by its record (`Run.record`), the newest evaluation among the run's that measured it as
        it would be measured now and has every figure that would be had; None where there is none."""
        dim, k = self.against.features.statistics.dim, self.wanted.neighbours
        due = {name for name in self._due if METRICS[name].least(dim, k) <= self.count}
        features = FeaturesRecord(**extractor_of(self.wanted.features).record(dim))
        reference = ReferenceRecord(**self.against.record)
        usable = [
            one
            for one in written_in(self.run.path / "evaluations")
            if one.features == features
            and one.reference.identity == reference.identity
            and one.neighbours == k
            and due <= one.metrics.keys()
        ]
        plain = [json.loads(json.dumps(record)) for record in records]
        return [next((one for one in usable if is_of_set(one, record)), None) for record in plain]


def measure(
    images: Images,
    reference: Images,
    metrics: Sequence[str] | None = None,
    *,
    features: str | None = None,
    neighbours: int = NEIGHBOURS,
    counts: Sequence[int] | None = None,
    root: str | None = None,
    label: str | None = None,
    out: str | Path | None = None,
) -> Evaluation:
    """Measure images against a reference: arrays, tensors, samples, data sets, or either by name or path; the reference
    may also be a file of statistics.

    `metrics`: names, or all that can be had. `features`: see `open_extractor`, or `classifier:RUN`; those that fit the
    images unless given (see `features_for`). `neighbours`: k of precision and recall. `counts`: how many of the images
    to compute the Fréchet distance from, besides from all. `root`: where the files of named data lie. `label`: what
    tables call it. `out`: a file to write it to. Raises InputError for what cannot be measured."""
    began = time.perf_counter()
    check_out(out, Path(str(images)) if isinstance(images, str | Path) else None, str(reference))
    with gathered_cautions() as warnings:
        subject = _subject_of(images, root)
        _, height, width, channels = subject.images.shape
        wanted = Wanted.of(metrics, features or features_for((channels, height, width)), neighbours, counts)
        against = open_reference(
            str(reference) if isinstance(reference, str | Path) else image_set(reference, "reference"),
            wanted.features, Opening(root), features=wanted.reference_features, holdout=wanted.holdout,
        )  # fmt: skip
        evaluation = _measured(subject, against, wanted)
    evaluation = _said(evaluation, warnings, began, label)
    return evaluation if out is None else _written(evaluation, out)


def _measured(subject: Subject, against: Reference, wanted: Wanted) -> Evaluation:
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
    return Evaluation(
        format=FORMAT,
        created=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        label=subject.label,
        subject=subject.subject,
        samples=subject.samples,
        sampler=None if subject.sampler is None else SamplerRecord(**subject.sampler),
        features=FeaturesRecord(**record),
        reference=ReferenceRecord(**against.record),
        neighbours=wanted.neighbours,
        metrics=figures,
        environment=EnvironmentRecord(**environment(state.device, state.num_processes)),
    )


def _said(evaluation: Evaluation, warnings: list[str], began: float, label: str | None) -> Evaluation:
    found = {"warnings": tuple(warnings), "wall_time_s": round(time.perf_counter() - began, 2)}
    return evaluation.model_copy(update=found | ({"label": label} if label else {}))


def _written(evaluation: Evaluation, place: str | Path) -> Evaluation:
    """The evaluation with what an earlier one in its place keeps, on disk."""
    whole = with_kept(Path(place), evaluation)
    with keeping(lambda: f"the samples are safe in {evaluation.samples.file}"):
        return whole.write(Path(place)) if process_state().is_main_process else whole


def _as_run(path: Path, verify: bool) -> Run | None:
    if is_run(path):
        return open_run(path, verify=verify)
    if not path.exists():
        raise InputError(f"{path} does not exist: expected a run directory, or samples as an .npz, a folder or a zip")
    return None


def _of_run(run: Run, n: int, seeds: Sequence[int] | None, cls: Any, out: Any, settings: dict[str, Any]) -> Subject:
    samples, way = run.sample_to(out, n=n, seeds=seeds, cls=cls, **settings), run.way(**settings)
    assert samples.path is not None and samples.record is not None
    record, beside = samples.record, record_of(samples.path)
    return Subject(
        samples.images,
        samples.labels,
        way.sampler.label,
        SubjectRecord(
            kind="run",
            path=run.spec,
            recipe=run.recipe.name,
            checkpoint_step=run.step,
            weights=way.settings.weights,
            weights_sha256=record["weights_sha256"],
            parameters=run.parameters,
        ),
        SamplesRecord(
            count=len(samples),
            seeds=record["seeds"],
            classes=record["classes"],
            file=_inside(samples.path, run.path),
            sha256=samples_sha256(samples.path),
        ),
        record["sampler"],
        lambda: speed_of(beside, way),
    )


def _subject_of(images: Images, root: str | None) -> Subject:
    """Samples at a path with the record beside them, data by name or opened (real images), or images at hand."""
    if isinstance(images, str | Path) and Path(images).exists() and str(images) not in SOURCES:
        return _of_samples(Path(images))
    data, path = images, None
    if isinstance(images, str | Path):
        path = str(images)
        name, split = parse_reference(path)
        data = open_data(name, split=split, root=root)
    found, made = image_set(data, "images"), getattr(images, "record", None) or {}
    pixels, labels = found.batch(range(len(found)))
    samples = SamplesRecord(count=len(found), seeds=made.get("seeds"), classes=made.get("classes"), file=None,
                            sha256=found.fingerprint())  # fmt: skip
    if isinstance(data, ImageSet):
        subject = SubjectRecord(kind="data", path=path, **data_record(data))
        return Subject(pixels, labels, f"Real images ({found.split})", subject, samples)
    label = f"{len(found)} images"
    return Subject(pixels, labels, label, SubjectRecord(kind="samples"), samples, made.get("sampler"))


def _of_samples(path: Path) -> Subject:
    images, labels = read_samples(path)
    made = read_record(record_of(path)) if record_of(path).exists() else {}
    samples = SamplesRecord(count=len(images), seeds=made.get("seeds"), classes=made.get("classes"), file=str(path),
                            sha256=samples_sha256(path))  # fmt: skip
    subject = SubjectRecord(kind="samples", path=str(path))
    return Subject(images, labels, path.stem, subject, samples, made.get("sampler"))


def _inside(path: Path, run: Path) -> str:
    """The path as seen from the run, where it lies in it, so that a run can be moved."""
    with suppress(ValueError):
        return str(path.resolve().relative_to(run.resolve()))
    return str(path)
