"""What an evaluation says: its figures, and everything they depended on; read from its file and written to it."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt8
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from trilemma.data import read_samples
from trilemma.errors import InputError
from trilemma.machine.files import write_json
from trilemma.machine.untrusted import kind_of, parse_json, read_text
from trilemma.metrics import METRICS
from trilemma.metrics.metric import number
from trilemma.recipes import renamed

FORMAT = "trilemma-evaluation/1"

NEIGHBOURS = 3
"""k of precision and recall, unless it is given (Kynkäänniemi et al. 2019)."""


class Part(BaseModel):
    """A part of a record. What it does not state is None; keys that it does not know are kept."""

    model_config = ConfigDict(frozen=True, extra="allow")


class SubjectRecord(Part):
    """What was measured: a `run`, finished `samples`, or `data`, real images."""

    kind: str
    path: str | None = None
    recipe: str | None = None
    checkpoint_step: int | None = None
    weights: str | None = None
    weights_sha256: str | None = None
    parameters: int | None = None


class SamplesRecord(Part):
    """How many images were measured, of which seeds and classes, and the file they lie in with its hash; `cut_from`:
    how many lie there, where only the first were measured."""

    count: int
    seeds: str | list[int] | None = None
    classes: str | None = None
    file: str | None = None
    sha256: str | None = None
    cut_from: int | None = None

    @property
    def seeds_in_words(self) -> str | None:
        """As `--seeds` takes them."""
        return ",".join(map(str, self.seeds)) if isinstance(self.seeds, list) else self.seeds


class SamplerRecord(Part):
    """How the images were made: the sampling settings, of which the arguments of the sampler's kernel are further keys,
    and what followed from them. Older files' names of them are read as today's."""

    sampler: str | None = None
    steps: int | None = None
    spacing: str | None = None
    clip: str | bool | None = None
    precision: str | None = None
    network_evaluations: int | None = None
    times_sha256: str | None = None
    surrogate: dict[str, Any] | None = None
    guidance: float | None = None
    guide: dict[str, Any] | None = None
    low: dict[str, Any] | None = None

    @model_validator(mode="before")
    @classmethod
    def _current(cls, values: Any) -> Any:
        return renamed(values) if isinstance(values, Mapping) else values


class FeaturesRecord(Part):
    """What the images were looked at by."""

    name: str | None = None
    sha256: str | None = None
    dim: int | None = None
    resize: str | None = None

    @property
    def identity(self) -> tuple[Any, ...]:
        """By which it is the same as another."""
        return (self.sha256 or self.name, self.dim)

    def __str__(self) -> str:
        return f"{self.name}, {self.dim} dimensions"


class ImagesRecord(Part):
    """Real images: the data, a split of it, how many, and their hash."""

    data: str | None = None
    split: str | None = None
    count: int | None = None
    sha256: str | None = None

    @property
    def identity(self) -> tuple[Any, ...]:
        """By which they are the same as others."""
        return (self.sha256,) if self.sha256 else (self.data, self.split, self.count)

    @property
    def spec(self) -> str:
        """DATA[:SPLIT]."""
        return ":".join(part for part in (self.data, self.split) if part)

    def __str__(self) -> str:
        return f"{self.spec}, {self.count} images"


class ReferenceRecord(ImagesRecord):
    """What was measured against: real images of `size` (c, h, w), or a file of their `statistics`; and those held out,
    for memorisation."""

    size: tuple[int, int, int] | None = None
    statistics: str | None = None
    holdout: ImagesRecord | None = None


class ClassifierRecord(ImagesRecord):
    """The classifier that knew the images' classes where the features did not: fitted to `count` images of the data (by
    their hash), of so many `classes`; the share of images it takes for their own class (`accuracy`), of those that the
    fit had not seen. It follows from the features and these images, to float rounding, which alone its hash shows."""

    classes: int | None = None
    accuracy: float | None = None
    accuracy_se: float | None = None
    weights_sha256: str | None = None

    @property
    def identity(self) -> tuple[Any, ...]:
        return (*super().identity, self.count, self.classes)

    def __str__(self) -> str:
        right = "" if self.accuracy is None else f", {self.accuracy:.1%} of unseen ones right"
        return f"fitted to {super().__str__()}, {self.classes} classes{right}"


class EnvironmentRecord(Part):
    """Versions, and the machine that speeds are of."""

    trilemma: str | None = None
    python: str | None = None
    torch: str | None = None
    device: str | None = None
    hardware: str | None = None
    threads: int | None = None
    processes: int | None = None


class Evaluation(Part):
    """Figures by name (`metrics`: those of `METRICS`, their details and standard errors), and what they depended on.
    `path`: the file it lies in."""

    format: str
    created: str | None = None
    label: str
    subject: SubjectRecord
    samples: SamplesRecord
    sampler: SamplerRecord | None = None
    features: FeaturesRecord = FeaturesRecord()
    reference: ReferenceRecord = ReferenceRecord()
    classifier: ClassifierRecord | None = None
    neighbours: int | None = NEIGHBOURS  # files from before it was recorded have no other
    metrics: dict[str, Any]
    environment: EnvironmentRecord = EnvironmentRecord()
    warnings: tuple[str, ...] = ()
    wall_time_s: float | None = None
    path: Path | None = Field(default=None, exclude=True)

    def figure(self, name: str) -> float | None:
        """The figure of the metric, None where it was not measured or is not finite."""
        if name == "network_evaluations" and name not in self.metrics and self.sampler is not None:
            return number(self.sampler.network_evaluations)
        return number(self.metrics.get(name))

    def error(self, name: str) -> float | None:
        """The standard error of the metric's figure, None where it is not known."""
        return None if self.figure(name) is None else METRICS[name].error(self.metrics, self.samples.count)

    def fact(self, path: str) -> Any:
        """What stands at a dotted path such as `reference.holdout`; None where nothing does."""
        value: Any = self
        for part in path.split("."):
            value = value.get(part) if isinstance(value, Mapping) else getattr(value, part, None)
        return value

    @property
    def yardstick(self) -> bool:
        """Whether it measures real images, not a model's."""
        return self.subject.kind == "data"

    def images(self) -> tuple[UInt8[np.ndarray, "n h w c"], Int64[np.ndarray, " n"] | None] | None:
        """The images it measured, and their labels; None where no file of samples is named or it is gone. Raises
        InputError for a file that cannot be read as samples."""
        if self.samples.file and self.path is not None:
            for base in (self.path.parent.parent, self.path.parent, Path()):
                if (base / self.samples.file).exists():
                    images, labels = read_samples(base / self.samples.file)
                    some = slice(None if self.samples.cut_from is None else self.samples.count)
                    return images[some], None if labels is None else labels[some]
        return None

    def content(self) -> dict[str, Any]:
        """As plain JSON values: what was stated, and no more."""
        return self.model_dump(mode="json", exclude_unset=True)

    def write(self, path: Path) -> Evaluation:
        """Write it as JSON, whole or not at all; gives it with its `path`. Raises InputError where it cannot be
        written."""
        write_json(path, self.content())
        return self.model_copy(update={"path": path})

    def lines(self) -> dict[str, str]:
        """Each metric's title and figure in words, with its standard error where that is known."""
        found = {}
        for name, metric in METRICS.items():
            title = metric.called(self.features.name, self.samples.count)
            if (value := self.figure(name)) is not None:
                found[title] = f"{metric.text(value, self.error(name))} {metric.unit}".rstrip()
            elif isinstance(pairs := self.metrics.get(name), list):
                found[title] = ", ".join(f"{count}: {metric.show(value)}" for count, value in pairs)
        return found

    def summary(self) -> str:
        """The figures that tables show unasked, in one line."""
        shown = {metric.called(self.features.name, self.samples.count) for metric in METRICS.values() if metric.column}
        lines = self.lines()
        return ", ".join(f"{title} {text}" for title, text in lines.items() if title in shown or len(lines) < 4)

    @property
    def _caption(self) -> str:
        of = f"{self.samples.count} images against {self.reference.spec}"
        return f"{self.label}: {of}, by features {self.features.name!r}"

    def __repr__(self) -> str:
        return "\n  ".join([self._caption, *(f"{title}: {text}" for title, text in self.lines().items())])

    __str__ = __repr__

    def _repr_html_(self) -> str:
        """The same as a table, for notebooks."""
        cells = ((escape(title), escape(text)) for title, text in self.lines().items())
        rows = "".join(f"<tr><th>{title}</th><td>{text}</td></tr>" for title, text in cells)
        return f"<table><caption>{escape(self._caption)}</caption>{rows}</table>"


def read(path: Path) -> Evaluation:
    """Read an evaluation's file. Raises InputError where it is missing, not JSON, or no evaluation, naming what."""
    if kind_of(path) is None:
        raise InputError(f"{path}: no such file or directory (expected a run directory or an evaluation .json)")
    wrong = f"{path}: not an evaluation: "
    try:
        content = parse_json(read_text(path))
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"{wrong}no valid JSON ({error})") from error
    expected = "expected a file that `trilemma evaluate` wrote"
    if not isinstance(content, dict):
        raise InputError(f"{wrong}holds a {type(content).__name__}, not an object ({expected})")
    if content.get("format", FORMAT) != FORMAT:
        raise InputError(f"{wrong}'format' is {content['format']!r}, expected '{FORMAT}' ({expected})")
    try:
        return Evaluation.model_validate({**content, "path": path})
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        what = "is missing" if first["type"] == "missing" else f"is {first['input']!r}: {first['msg'].lower()}"
        raise InputError(f"{wrong}key {key!r} {what} ({expected})") from error
