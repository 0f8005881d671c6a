"""What is measured: a run's samples, sets of samples, real images; and what the evaluation says of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt8
from torch import Tensor

from trilemma.data import SOURCES, ImageSet, MemorySet, Opening, image_set, parse_reference
from trilemma.evaluations.files import samples_sha256
from trilemma.evaluations.record import SamplesRecord, SubjectRecord
from trilemma.evaluations.reference import data_record
from trilemma.evaluations.speed import speed_of
from trilemma.metrics import Speed
from trilemma.runs.run import Run
from trilemma.runs.sample_sets import read_record, record_of
from trilemma.samplers.samples import seed_words

Images = str | Path | ImageSet | np.ndarray | Tensor | Any
"""Images to measure or to measure against: data or samples by name or path, a data set, uint8 NHWC or float NCHW in
[−1, 1] as an array or tensor, or what has `images` and `labels`, such as sampling gives."""


@dataclass(frozen=True)
class Subject:
    """What is measured: images, the classes asked of them, a way to time their sampler, and what the evaluation says of
    them; `classes`: what they are called, where that is known."""

    images: UInt8[np.ndarray, "n h w c"]
    labels: Int64[np.ndarray, "n"] | None
    label: str
    subject: SubjectRecord
    samples: SamplesRecord
    sampler: dict[str, Any] | None = None
    speed: Callable[[], Speed] | None = None
    classes: tuple[str, ...] | None = None

    def first(self, seeds: Sequence[int]) -> Subject:
        """Its first images, those of these seeds, as a set of their own; untimed."""
        count = len(seeds)
        cut = {"count": count, "seeds": seed_words(seeds), "cut_from": self.samples.count}
        return replace(
            self,
            images=self.images[:count],
            labels=None if self.labels is None else self.labels[:count],
            label=f"{self.label}, first {count}",
            samples=self.samples.model_copy(update=cut),
            speed=None,
        )


def of_run(run: Run, n: int, seeds: Sequence[int] | None, cls: Any, out: Any, settings: dict[str, Any]) -> Subject:
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
        None if run.recipe.images.classes is None else tuple(run.recipe.images.classes),
    )


def subject_of(images: Images, opening: Opening) -> Subject:
    """Samples at a path with the record beside them, data by name or opened (real images), or images at hand."""
    if isinstance(images, str | Path) and Path(images).exists() and str(images) not in SOURCES:
        return _of_samples(Path(images), opening)
    if isinstance(images, str | Path):
        name, split = parse_reference(str(images))
        return of_data(opening(name, split), str(images))
    if isinstance(images, ImageSet):
        return of_data(opening.fitted(images))
    found, made = opening.fitted(image_set(images, "images")), getattr(images, "record", None) or {}
    pixels, labels = found.batch(range(len(found)))
    samples = SamplesRecord(count=len(found), seeds=made.get("seeds"), classes=made.get("classes"), file=None,
                            sha256=found.fingerprint())  # fmt: skip
    return Subject(pixels, labels, f"{len(found)} images", SubjectRecord(kind="samples"), samples, made.get("sampler"),
                   classes=found.classes)  # fmt: skip


def of_data(data: ImageSet, path: str | None = None, most: int | None = None) -> Subject:
    """Real images; `most`: no more than so many, the same ones every time, spread over the data."""
    label = f"Real images ({data.split})"
    if most is not None and most < len(data):
        pixels, labels = data.batch(np.linspace(0, len(data) - 1, most).astype(np.int64))
        data = MemorySet(pixels, labels, name=data.name, split=data.split, classes=data.classes)
        label = f"Real images ({data.split}, {most})"
    else:
        pixels, labels = data.batch(range(len(data)))
    record = data_record(data)
    samples = SamplesRecord(count=len(data), seeds=None, classes=None, file=None, sha256=record["sha256"])
    subject = SubjectRecord(kind="data", path=path, **record)
    return Subject(pixels, labels, label, subject, samples, classes=data.classes)


def _of_samples(path: Path, opening: Opening) -> Subject:
    data = opening(str(path.absolute() if str(path) in SOURCES else path), "all")
    images, labels = data.batch(range(len(data)))
    made = read_record(record_of(path)) if record_of(path).exists() else {}
    samples = SamplesRecord(count=len(images), seeds=made.get("seeds"), classes=made.get("classes"), file=str(path),
                            sha256=samples_sha256(path))  # fmt: skip
    if opening.size is not None:
        samples = samples.model_copy(update={"resized": list(images.shape[1:3])})
    subject = SubjectRecord(kind="samples", path=str(path))
    return Subject(images, labels, path.stem, subject, samples, made.get("sampler"), classes=data.classes)


def _inside(path: Path, run: Path) -> str:
    """The path as seen from the run, where it lies in it, so that a run can be moved."""
    with suppress(ValueError):
        return str(path.resolve().relative_to(run.resolve()))
    return str(path)
