"""`trilemma nll`: the likelihood of data under a run's model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from trilemma.cli import options as o


@o.sampling("steps", "spacing", "weights", "batch", "clip")
def nll(
    run: Annotated[Path, typer.Argument(help="Run directory.")],
    reference: Annotated[str, typer.Option(metavar="DATA:SPLIT", help="The images to measure on.")],
    n: Annotated[int, typer.Option("-n", help="How many of them.", min=1)] = 1000,
    ode: Annotated[
        int | None, typer.Option(help="Also an estimate by the ODE, in so many Runge-Kutta steps.", min=1)
    ] = None,
    draws: Annotated[
        int | None,
        typer.Option(help="Times an image of the bound in continuous time, where no --steps are given: 64.", min=1),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="FILE.json; RUN/evaluations/likelihood/… unless given.")] = None,
    root: o.Root = None,
    **settings: Any,
) -> None:
    """Print L_T, ΣL_t (∫L_t in continuous time), L_0, their total in bits/dim with errors; save and plot every L_t."""
    from trilemma import jobs
    from trilemma.machine import say, show
    from trilemma.report.likelihood import likelihood_figure, likelihood_table

    result = jobs.nll(run, reference, n=n, ode=ode, draws=draws, out=out, root=root, **settings)
    show(likelihood_table(result))
    place = Path(result["path"])
    say(f"picture: {likelihood_figure(result, place.with_suffix('.png'))}")
    say(f"likelihood: {place}")
