"""One measurement: what a subject's figures against a reference are, and the evaluation that says so, on disk."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from trilemma.evaluations.cache import BATCH
from trilemma.evaluations.classes import caution_missing
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
from trilemma.metrics import Features, caution, compute, extract


def measured(
    subject: Subject, against: Reference, wanted: Wanted, fake: Features | None = None, *, lenient: bool = False
) -> Evaluation:
    """The evaluation of a subject, but for its warnings and wall time. `fake`: its features, where they are at hand;
    `lenient`: without what there are too few images for, also where it is asked for by name."""
    images = subject.images
    _, height, width, channels = images.shape
    check_shape(against.record["data"], against.size, (channels, height, width))
    look, state = extractor_of(wanted.features), process_state()
    if fake is None:
        fake = extract((images[i : i + BATCH] for i in range(0, len(images), BATCH)), look)
    fake, record = against.looked(fake), look.record(fake.dim)
    labels = _asked(subject, against, fake, wanted)
    caution_missing(against.classes, against.features.features, fake, labels)
    figures = compute(
        wanted.metrics,
        real=against.features,
        fake=fake,
        labels=labels,
        sampler=subject.speed,
        neighbours=wanted.neighbours,
        counts=wanted.counts,
        features=record,
        lenient=lenient,
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
    if against.classifier is None or fake.classes is None:
        return evaluation
    return evaluation.model_copy(update={"classifier": ClassifierRecord(**against.classifier)})


def _asked(subject: Subject, against: Reference, fake: Features, wanted: Wanted) -> Int64[np.ndarray, " n"] | None:
    """The classes asked of the images, where these are the reference's; else none, which is said."""
    labels, known = subject.labels, against.classes
    if labels is None or known is None or not len(labels):
        return labels
    if subject.classes is not None and subject.classes != known.names:
        caution(
            f"classes: the run's are {_few(subject.classes)}, the reference's {_few(known.names)}: none are compared"
        )
        return None
    if wanted.metrics is None and labels.max() >= len(known.names):
        caution(f"classes: labels up to {labels.max()}, the reference has {len(known.names)}: none are compared")
        return None
    return labels


def _few(names: tuple[str, ...]) -> str:
    return ", ".join(names[:5]) + (f" … ({len(names)})" if len(names) > 5 else "")


def said(evaluation: Evaluation, warnings: list[str], began: float, label: str | None) -> Evaluation:
    found = {"warnings": tuple(warnings), "wall_time_s": round(time.perf_counter() - began, 2)}
    return evaluation.model_copy(update=found | ({"label": label} if label else {}))


def written(evaluation: Evaluation, place: str | Path) -> Evaluation:
    """The evaluation with what an earlier one in its place keeps, on disk."""
    whole = with_kept(Path(place), evaluation)
    with keeping(lambda: f"the samples are safe in {evaluation.samples.file}"):
        return whole.write(Path(place)) if process_state().is_main_process else whole
