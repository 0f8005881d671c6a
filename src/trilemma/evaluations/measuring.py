"""One measurement: what a subject's figures against a reference are, and the evaluation that says so, on disk."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt8

from trilemma.evaluations.cache import BATCH
from trilemma.evaluations.classes import caution_missing, in_reference
from trilemma.evaluations.extractors import extractor_of
from trilemma.evaluations.files import with_kept
from trilemma.evaluations.record import (
    FORMAT,
    ClassifierRecord,
    EnvironmentRecord,
    Evaluation,
    FeaturesRecord,
    ReferenceRecord,
    SamplerRecord,
)
from trilemma.evaluations.reference import Reference, check_shape
from trilemma.evaluations.subjects import Subject
from trilemma.evaluations.wanted import Wanted
from trilemma.machine.devices import process_state
from trilemma.machine.environment import environment
from trilemma.machine.files import keeping
from trilemma.metrics import Features, Speed, compute, extract


def measured(
    subject: Subject, against: Reference, wanted: Wanted, fake: Features | None = None, *, lenient: bool = False
) -> Evaluation:
    """The evaluation of a subject, but for its warnings and wall time. `fake`: its features, where they are at hand;
    `lenient`: without what there are too few images for, also where it is asked for by name."""
    images = subject.images
    _, height, width, channels = images.shape
    check_shape(against.record["data"], against.size, (channels, height, width))
    look, state = extractor_of(wanted.features), process_state()
    fake = seen(images, wanted) if fake is None else fake
    record = look.record(fake.dim)
    figures = figures_of(
        fake, against, wanted, labels=subject.labels, classes=subject.classes, sampler=subject.speed, lenient=lenient
    )
    evaluation = Evaluation(
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
    if against.classifier is None:
        return evaluation
    return evaluation.model_copy(update={"classifier": ClassifierRecord(**against.classifier)})


def seen(images: UInt8[np.ndarray, "n h w c"], wanted: Wanted) -> Features:
    """The features of images."""
    return extract((images[i : i + BATCH] for i in range(0, len(images), BATCH)), extractor_of(wanted.features))


def figures_of(
    fake: Features,
    against: Reference,
    wanted: Wanted,
    *,
    labels: Int64[np.ndarray, " n"] | None,
    classes: Sequence[str] | None,
    sampler: Callable[[], Speed] | None = None,
    lenient: bool = False,
) -> dict[str, Any]:
    """What is wanted of images by their features, and of their `labels`, whose names are `classes`; see `compute`."""
    look = extractor_of(wanted.features)
    fake, known = against.looked(fake), against.classes
    labels = in_reference(labels, classes, look.classes if known is None else known.names)
    caution_missing(known, against.features.features, fake, labels)
    return compute(
        wanted.metrics,
        real=against.features,
        fake=fake,
        labels=labels,
        sampler=sampler,
        neighbours=wanted.neighbours,
        counts=wanted.counts,
        features=look.record(fake.dim),
        lenient=lenient,
    )


def said(evaluation: Evaluation, warnings: list[str], began: float, label: str | None) -> Evaluation:
    found = {"warnings": tuple(warnings), "wall_time_s": round(time.perf_counter() - began, 2)}
    return evaluation.model_copy(update=found | ({"label": label} if label else {}))


def written(evaluation: Evaluation, place: str | Path) -> Evaluation:
    """The evaluation with what an earlier one in its place keeps, on disk."""
    whole = with_kept(Path(place), evaluation)
    with keeping(lambda: f"the samples are safe in {evaluation.samples.file}"):
        return whole.write(Path(place)) if process_state().is_main_process else whole
