"""Computing several measures at once, or saying beforehand why they could not be."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from trilemma.errors import InputError, shown
from trilemma.metrics.cautions import caution
from trilemma.metrics.checks import TooFewError
from trilemma.metrics.features import Features
from trilemma.metrics.inputs import WORDS, Inputs, Need, ReferenceFeatures, there
from trilemma.metrics.metric import METRICS, Measure
from trilemma.metrics.speed import Speed
from trilemma.registry import registry


def compute(
    names: Sequence[str] | None,
    *,
    real: ReferenceFeatures,
    fake: Features,
    labels: Int[np.ndarray, " n"] | None = None,
    sampler: Callable[[], Speed] | None = None,
    neighbours: int = 3,
    counts: Sequence[int] | None = None,
    features: Mapping[str, Any] | None = None,
    lenient: bool = False,
) -> dict[str, Any]:
    """The measures `names`, or all that can be had (None), as flat keys and plain JSON values; None stands for a figure
    that is not finite, or for a class without images.

    `fake`: features of generated images. `labels`: the classes they were asked for. `sampler`: times the sampler when
    called, as `lambda: measure(generate, batch=64)`. `neighbours`: k of precision and recall. `counts`: how many images
    to compute the Fréchet distance from, each in turn. `features`: the record of `fake`'s extractor, which must be the
    reference's. `lenient`: leave out what takes more images than there are also where it is asked for by name.

    Warns of what a reader must know, in `MetricWarning`s: gather them with `gathered_cautions`; among it, what was left
    out because there are too few images. Raises InputError for a name that does not exist, a measure asked for by name
    whose needs aren't met, and what the measures refuse."""
    chosen = check_names(names)
    record = {"features": features} if features else {}
    inputs = Inputs(frozenset(chosen), real, fake, labels, sampler, neighbours, counts, record)
    met = there(real, fake, labels=labels is not None, sampler=sampler is not None, counts=counts is not None)
    lacking = {name: absent for name in chosen if (absent := METRICS[name].needs - met)}
    if names is not None:
        refuse(lacking, met)
    left_out = [name for name, absent in lacking.items() if absent == {"features"}]
    if left_out:
        caution(f"left out: {', '.join(left_out)}; the reference is given by its statistics alone")

    done: dict[Measure, dict[str, Any]] = {}
    values: dict[str, Any] = {}
    for name in chosen:
        if name in lacking:
            continue
        metric = METRICS[name]
        if metric.measure not in done:
            done[metric.measure] = _measured(metric.measure, inputs)
        found = done[metric.measure]
        if isinstance(few := found[name], TooFewError):
            if names is not None and not lenient:
                raise few
            caution(f"left out: {name}; {few}")
        else:
            values |= {key: _plain(found[key]) for key in metric.keys if key in found}
    return values


def _measured(measure: Measure, inputs: Inputs) -> dict[str, Any]:
    """What it gives, or, in place of every figure, that there are too few images for it."""
    try:
        return measure(inputs)
    except TooFewError as few:
        return dict.fromkeys(inputs.names, few)


def check_enough(names: Sequence[str], count: int, *, dim: int, neighbours: int = 3) -> None:
    """Refuse now the metrics that `count` generated images with `dim` features are too few for; `neighbours` as for
    `compute`. Raises `TooFewError`."""
    for name in check_names(names):
        least = METRICS[name].least(dim, neighbours)
        if count < least:
            raise TooFewError(f"{name}: {count} generated image(s), expected at least {least}")


def check_needs(names: Sequence[str] | None, real: ReferenceFeatures, fake: Features, **given: bool) -> list[str]:
    """The metrics whose needs will be met (see `there`), of those named or of all. Refuses now, before anything is
    generated, what `compute` would refuse then: a metric that does not exist, or one asked for by name that lacks
    something. `fake`: features of any image. Raises InputError."""
    met, chosen = there(real, fake, **given), check_names(names)
    if names is not None:
        refuse({name: absent for name in chosen if (absent := METRICS[name].needs - met)}, met)
    return [name for name in chosen if METRICS[name].needs <= met]


def refuse(lacking: Mapping[str, Iterable[Need]], met: frozenset[Need]) -> None:
    """Raise InputError for the first metric that lacks something."""
    for name, absent in lacking.items():
        words = " and ".join(WORDS[need] for need in sorted(absent))
        able = ", ".join(other for other in METRICS if METRICS[other].needs <= met)
        raise InputError(f"metric {name!r} needs {words}; to be had here: {able}")


def check_names(names: Sequence[str] | None) -> list[str]:
    """The metrics named, each once, or all. Raises InputError for a name that does not exist."""
    for name in names or ():
        if name not in METRICS:
            word = "".join(c for c in re.sub(r"\W?\d+k?(_full)?$", "", name.lower()) if c.isalnum())
            for metric in METRICS.values():
                if word in metric.also:
                    raise InputError(
                        f"unknown metric {shown(name)!r}: did you mean {metric.name!r}? ({metric.description})"
                    )
            raise registry("metric").unknown(name)
    return list(METRICS if names is None else dict.fromkeys(names))


def _plain(value: Any) -> Any:
    """`value` as JSON takes it: numbers and lists, None for NaN and infinity."""
    if isinstance(value, np.ndarray | list):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
