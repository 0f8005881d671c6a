"""`trilemma evaluate`: figures of a run or of samples."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any

import typer

from trilemma.cli import options as o
from trilemma.errors import InputError

FEATURES = (
    "Feature extractor: digits | pixels | inception | inception-clean | inception:PATH | timm:NAME | classifier:RUN."
)


def evaluate(
    subject: Annotated[
        Path, typer.Argument(metavar="RUN|SAMPLES", help="Run directory, or samples (.npz, folder, zip).")
    ],
    reference: Annotated[
        str | None, typer.Option(help="DATA[:SPLIT], or statistics as an .npz; a run's training data unless given.")
    ] = None,
    metrics: Annotated[
        str | None, typer.Option(help="Names with commas between (see `trilemma list metrics`).")
    ] = None,
    features: Annotated[str, typer.Option(metavar="NAME", help=FEATURES)] = "digits",
    neighbours: Annotated[int, typer.Option(metavar="K", help="k of precision and recall.")] = 3,
    counts: Annotated[
        str | None, typer.Option(metavar="N,N,…", help="Fréchet distance from so many of the images, each in turn.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Evaluation FILE.json; RUN/evaluations/… unless given.")] = None,
    n: Annotated[
        int | None, typer.Option("-n", help="How many images (seeds 0 to n−1); 1000.", min=1, max=o.LIMIT)
    ] = None,
    seeds: o.Seeds = None,
    sampler: o.Sampler = None,
    steps: o.Steps = None,
    spacing: o.Spacing = None,
    times: o.Times = None,
    skip: o.Skip = None,
    eta: o.Eta = None,
    order: o.Order = None,
    stochastic: o.Stochastic = None,
    surrogate: o.Surrogate = None,
    t_mid: o.TMid = None,
    class_: o.Class = None,
    weights: o.Weights = None,
    batch: o.Batch = None,
    precision: o.Precision = None,
    clip: o.Clip = None,
    samples: Annotated[Path | None, typer.Option(help="Where the samples go: FILE.npz or a folder.")] = None,
    root: o.Root = None,
    label: Annotated[str | None, typer.Option(help="What tables call it.")] = None,
) -> None:
    """Measure quality, coverage and speed against a reference. A run is sampled first, by the flags that `sample`
    takes."""
    from trilemma import runs
    from trilemma.report import build_table, to_rich

    settings = o.settings(
        name=sampler,
        steps=steps,
        grid=spacing,
        times=times,
        skip=skip,
        eta=eta,
        order=order,
        stochastic=stochastic,
        surrogate=surrogate,
        t_mid=t_mid,
        weights=weights,
        batch=batch,
        precision=precision,
        clip=clip,
    )
    evaluation = runs.evaluate(
        subject,
        reference,
        metrics=parse_metrics(metrics),
        features=features,
        neighbours=neighbours,
        counts=parse_counts(counts),
        n=n,
        seeds=o.parse_seeds(seeds),
        cls=class_,
        samples_out=samples,
        out=out,
        root=root,
        label=label,
        **settings,
    )
    table = build_table([evaluation])
    runs.show(to_rich(table))
    for line in figures(evaluation["metrics"], {column.key for column in table.columns}):
        runs.say(line)
    for warning in evaluation["warnings"]:
        runs.say(f"warning: {warning}")
    runs.say(f"evaluation: {evaluation['path']}")


def parse_metrics(text: str | None) -> list[str] | None:
    """The names in kid,recall; blanks around them don't count. Raises InputError where one is empty."""
    if text is None:
        return None
    names = [part.strip() for part in text.split(",")]
    if not all(names):
        raise InputError(f"--metrics {text!r}: expected names with commas between, such as kid,recall")
    return names


def parse_counts(text: str | None) -> list[int] | None:
    """The counts in 500,1000,5000. Raises InputError for anything else."""
    if text is None:
        return None
    parts = text.split(",")
    if not all(part.strip().isdecimal() for part in parts):
        raise InputError(f"--counts {text!r}: expected whole numbers with commas between, such as 500,1000,5000")
    return [int(part) for part in parts]


def figures(metrics: dict[str, Any], shown: Collection[str]) -> list[str]:
    """The figures that the table has no column for, one a line, with their standard errors."""
    from trilemma.metrics import METRICS

    lines = []
    for name in METRICS:
        value, error = metrics.get(name), metrics.get(f"{name}_se")
        if name in shown or value is None:
            continue
        if isinstance(value, list):
            text = ", ".join(f"{count}: {distance:.4g}" for count, distance in value)
        else:
            text = f"{value:.4g}" + (f" ± {error:.2g}" if error is not None else "")
        lines.append(f"{name}: {text}")
    return lines
