"""`trilemma evaluate`: figures of a run or of samples."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trilemma.cli import options as o


def evaluate(
    subject: Annotated[
        Path, typer.Argument(metavar="RUN|SAMPLES", help="Run directory, or samples (.npz, folder, zip).")
    ],
    reference: Annotated[
        str | None, typer.Option(help="DATA[:SPLIT] or STATS.npz; a run's training data unless given.")
    ] = None,
    metrics: Annotated[
        str | None, typer.Option(help="Names with commas between (see `trilemma list metrics`).")
    ] = None,
    features: Annotated[str, typer.Option(help="Feature extractor: digits or pixels.")] = "digits",
    out: Annotated[Path | None, typer.Option(help="Evaluation FILE.json; RUN/evaluations/… unless given.")] = None,
    n: Annotated[int | None, typer.Option("-n", help="How many images (seeds 0 to n−1); 1000.", min=1)] = None,
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
        metrics=metrics.split(",") if metrics else None,
        features=features,
        n=n,
        seeds=o.parse_seeds(seeds),
        cls=class_,
        samples_out=samples,
        out=out,
        root=root,
        label=label,
        **settings,
    )
    runs.show(to_rich(build_table([evaluation])))
    for warning in evaluation["warnings"]:
        runs.say(f"warning: {warning}")
    runs.say(f"evaluation: {evaluation['path']}")
