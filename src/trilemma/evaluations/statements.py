"""What is said of a run, and the figures that it rests on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trilemma.evaluations.record import Evaluation
from trilemma.metrics import METRICS
from trilemma.metrics.metric import in_words


@dataclass(frozen=True)
class Figure:
    """What is said rests on it: its `value` (None: it is missing) and standard `error` (None: not known), and `where`
    it is recorded."""

    name: str
    value: float | None
    error: float | None
    where: str

    def __str__(self) -> str:
        figure = "missing" if self.value is None else in_words(self.value, self.error or None)
        return f"{self.name} {figure} ({self.where})"


@dataclass(frozen=True)
class Statement:
    """A sentence or a piece of advice, and the `command` that follows it, if one does. Raises ValueError without a
    figure that it rests on."""

    text: str
    figures: tuple[Figure, ...]
    command: str = ""

    def __post_init__(self) -> None:
        if not self.figures:
            raise ValueError(f"{self.text!r} rests on no figure")

    def __str__(self) -> str:
        return f"{self.text}: {self.command}" if self.command else self.text


@dataclass(frozen=True)
class Standing:
    """Where a run stands, in `sentences`, and `advice`, the next thing to try first."""

    sentences: tuple[Statement, ...]
    advice: tuple[Statement, ...]

    @property
    def text(self) -> str:
        """The sentences as one text."""
        return " ".join(one.text for one in self.sentences)

    @property
    def next(self) -> str:
        """The next thing to try, in a line; empty where no figure asks for anything."""
        return f"next: {self.advice[0]}" if self.advice else ""


def of_metric(evaluation: Evaluation, name: str) -> Figure:
    """A metric's figure in an evaluation."""
    where = evaluation.path.name if evaluation.path else evaluation.label
    return Figure(name, evaluation.figure(name), evaluation.error(name), where)


def said(evaluation: Evaluation, name: str) -> str:
    """A metric's figure in words, with its standard error."""
    value, metric = evaluation.figure(name), METRICS[name]
    assert value is not None
    return f"{metric.text(value, evaluation.error(name))} {metric.unit}".rstrip()


def called(evaluation: Evaluation, name: str) -> str:
    """What the metric is called there."""
    return METRICS[name].called(evaluation.features.name, evaluation.samples.count)


def grouped(count: float) -> str:
    """12 000."""
    return f"{round(count):,}".replace(",", " ")


def listed(names: Sequence[str]) -> str:
    """Some names as a sentence has them: “cat” and “dog”; of many, the first."""
    quoted = [f"“{name}”" for name in names[:5]]
    quoted += [f"{len(names) - 5} more classes"] if len(names) > 5 else []
    return " and ".join(filter(None, [", ".join(quoted[:-1]), quoted[-1]]))
