"""`trilemma sweep`: a run at every point of a grid of sampling settings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from trilemma.cli import options as o


@o.sampling(several=True)
def sweep(
    run: Annotated[Path, typer.Argument(help="Run directory, or a cascade BASE+UPSAMPLER.")],
    reference: Annotated[
        str | None, typer.Option(help="DATA[:SPLIT], or statistics as an .npz; the run's training data unless given.")
    ] = None,
    metrics: o.Metrics = None,
    features: Annotated[str | None, o.FEATURES] = None,
    neighbours: o.Neighbours = 3,
    n: Annotated[
        int | None, typer.Option("-n", help="How many images a point (seeds 0 to n−1); 1000.", min=1, max=o.LIMIT)
    ] = None,
    seeds: o.Seeds = None,
    class_: o.Class = None,
    out: Annotated[Path | None, typer.Option(help="The page, FILE.html; RUN/sweeps/… unless given.")] = None,
    root: o.Root = None,
    no_verify: o.NoVerify = False,
    **settings: Any,
) -> None:
    """Sample and measure a run at every point of a grid: a setting with several values, such as --steps 10,20, is an
    axis of it. What is measured already is not measured again. One table, the Pareto front marked, and a page with
    figures."""
    from trilemma import jobs, runs
    from trilemma.machine import say, show
    from trilemma.machine.files import check_writable
    from trilemma.report.sweep import Sweep, sweep_table
    from trilemma.report.sweep_page import write_page

    if out is not None:
        check_writable(out, "--out", suffix=".html")
    named = o.parse_metrics(metrics)
    opened = runs.open_run(run, verify=not no_verify)
    evaluations = jobs.sweep(
        opened,
        reference,
        metrics=named,
        features=features,
        neighbours=neighbours,
        n=n,
        seeds=o.parse_seeds(seeds),
        cls=class_,
        root=root,
        **settings,
    )
    found = Sweep.of(evaluations, named)
    show(sweep_table(found))
    page, figures = write_page(found, opened.path / "sweeps", out)
    say(f"page: {page}")
    for figure in figures:
        say(f"figure: {figure}")
