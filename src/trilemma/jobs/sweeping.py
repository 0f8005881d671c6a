"""A sweep: one run sampled and measured at every point of a grid of sampling settings."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from trilemma.errors import InputError, shown
from trilemma.evaluations import Evaluation
from trilemma.evaluations.evaluating import IMAGES, Protocol
from trilemma.evaluations.record import NEIGHBOURS
from trilemma.machine.devices import process_state
from trilemma.machine.progress import say
from trilemma.recipes.sampling import LISTS, said
from trilemma.runs.cascades import open_run
from trilemma.runs.run import Run
from trilemma.runs.sample_sets import labels_for
from trilemma.samplers import check_seeds

MOST = 10_000
"""Points of one sweep."""


@dataclass(frozen=True)
class Point:
    """One point: its settings and the swept ones of them in words, and its sample set: where that goes, the record of
    how it is made, whether classes are asked of it, and the network evaluations of an image."""

    settings: dict[str, Any]
    words: str
    place: Path
    record: dict[str, Any]
    labelled: bool
    evaluations: int


def sweep(
    run: Run | str | Path,
    reference: str | None = None,
    *,
    metrics: Sequence[str] | None = None,
    features: str | None = None,
    neighbours: int = NEIGHBOURS,
    n: int | None = None,
    seeds: Sequence[int] | None = None,
    cls: Any = None,
    root: str | None = None,
    verify: bool = True,
    **settings: Any,
) -> list[Evaluation]:
    """Sample and measure a run at every point of the grid that the settings span: `steps=[10, 20]` has several values,
    `eta=0.5` one; a setting that is a list itself, such as `times`, several where it is a list of lists. The other
    arguments are those of `evaluate`, the same at every point.

    Gives the evaluations in the order of the grid, the last setting changing fastest. They lie among the run's own,
    each written as soon as it is measured; a point that is measured there already, by these weights and with all that
    is asked for, is taken up (see `Protocol.standing`), so the same call after an interruption measures the rest.

    Raises InputError, before anything is sampled, for values that are missing or given twice, and for a point that
    cannot be sampled, naming it."""
    run = run if isinstance(run, Run) else open_run(run, verify=verify)
    numbers = check_seeds(IMAGES if n is None else n, seeds)
    points = [_point(run, one, words, numbers, cls) for one, words in grid(settings)]
    places: dict[Path, Point] = {}
    for point in points:
        if (other := places.setdefault(point.place, point)) is not point:
            raise InputError(f"{point.words}: the same images as {other.words}, expected settings that change them")
    protocol = Protocol(
        run, reference, metrics, features=features, neighbours=neighbours, count=len(numbers),
        labelled=all(point.labelled for point in points), root=root,
    )  # fmt: skip
    found = protocol.standing([point.record for point in points])
    process_state().wait_for_everyone()  # all have looked before any writes
    missing = [point for point, one in zip(points, found, strict=True) if one is None]
    there = f"; {len(points) - len(missing)} more are measured already" if len(missing) < len(points) else ""
    passes = f"{len(numbers) * sum(point.evaluations for point in missing):,}".replace(",", " ")
    say(f"sweep: {len(missing)} points of {len(numbers)} images, {passes} network evaluations{there}")
    measured = []
    for i, (point, one) in enumerate(zip(points, found, strict=True), start=1):
        if one is None:
            say(f"point {i} of {len(points)}: {point.words}")
            one = protocol(seeds=numbers, cls=cls, **point.settings)
        measured.append(one)
    protocol.yardstick()
    return measured


def grid(settings: Mapping[str, Any]) -> list[tuple[dict[str, Any], str]]:
    """Every point of the grid: its settings, and in words what is swept of them, or all where nothing is. Raises
    InputError for a setting without values or with one twice, and for more points than `MOST`."""
    values = {name: _values(name, value) for name, value in settings.items() if value is not None}
    count = math.prod(map(len, values.values()))
    if count > MOST:
        sizes = " × ".join(f"{len(of)} {name}" for name, of in values.items() if len(of) > 1)
        raise InputError(f"{sizes}: {count} points, expected at most {MOST}")
    swept = [name for name, of in values.items() if len(of) > 1] or list(values)
    points = [dict(zip(values, point, strict=True)) for point in product(*values.values())]
    return [(point, said({name: point[name] for name in swept})) for point in points]


def _values(name: str, value: Any) -> list[Any]:
    one = not isinstance(value, Sequence) or isinstance(value, str)
    if one or (name in LISTS and not any(isinstance(item, list | tuple) for item in value)):
        return [value]
    if not value:
        raise InputError(f"{name}: no values, expected one or more")
    for i, item in enumerate(value):
        if item in value[:i]:
            raise InputError(f"{name}: {shown(item)} is given twice, expected each value once")
    return list(value)


def _point(run: Run, settings: dict[str, Any], words: str, seeds: list[int], cls: Any) -> Point:
    """A point that can be sampled. Raises InputError, naming it, where it cannot."""
    try:
        way = run.way(**settings)
        labels = labels_for(seeds, way.classes, cls)
        # Where a walk begins it is seen whether guides and surrogate fit, which are a cascade's base's; no network is
        # asked, and a surrogate that takes one was seen to fit when it was opened.
        begins = way.base.sampler
        if begins.surrogate is not None and begins.surrogate.stage.evaluations:
            begins = replace(begins, surrogate=None)
        next(begins.walk(seeds[:1], None if labels is None else labels[:1]))
    except InputError as error:
        raise InputError(f"{words}: {error}" if words else str(error)) from error
    place, record = run.default_out(way, seeds, cls), run.record(way, seeds, cls)
    return Point(settings, words, place, record, bool(way.classes), way.sampler.evaluations)
