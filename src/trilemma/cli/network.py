"""`trilemma network`: what networks cost, and what they look like."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trilemma.cli import completing
from trilemma.errors import InputError


def network(
    recipes: Annotated[
        list[str],
        typer.Argument(
            metavar="RECIPE…", help="Packaged recipes, YAML files or runs.", autocompletion=completing.recipes
        ),
    ],
    svg: Annotated[Path | None, typer.Option(help="Draw: into FILE.svg, or as DIR/NAME.svg each.")] = None,
    batch: Annotated[int, typer.Option(help="Images at once where time is measured.", min=1)] = 8,
    device: Annotated[str | None, typer.Option(help="Where time is measured, such as cpu or cuda.")] = None,
    json: Annotated[Path | None, typer.Option(help="FILE.json to write the figures to, with the machine.")] = None,
    no_timing: Annotated[bool, typer.Option("--no-timing", help="Measure no time.")] = False,
) -> None:
    """Print networks' parameters, multiply-adds, activation memory and time beside their sources' figures. Needs none
    of the recipes' data."""
    from trilemma.exchange import why_not_exported
    from trilemma.jobs import network_costs as job
    from trilemma.machine import say, show
    from trilemma.report.network_drawing import write_drawing
    from trilemma.report.network_table import network_tables

    if svg is not None and svg.suffix == ".svg" and len(recipes) > 1:
        raise InputError(f"--svg {svg}: one file, and {len(recipes)} recipes: expected a directory")
    found = [job.anatomy(job.resolve(recipe)) for recipe in recipes]
    names = [one.recipe.name for one in found]
    if svg is not None and (twice := next((name for name in names if names.count(name) > 1), None)):
        raise InputError(f"--svg {svg}: two recipes are called {twice!r}, and one drawing would overwrite the other's")
    drawn = [
        write_drawing(one, svg if svg.suffix == ".svg" else svg / f"{one.recipe.name}.svg") for one in found if svg
    ]
    costs = job.network_costs(found, batch=batch, timing=not no_timing, device=device)
    show(network_tables(costs, job.machine(device)))
    for one in found:
        if reason := why_not_exported(one.recipe):
            say(f"{one.recipe.name}, not exported to diffusers: {reason}")
    for picture in drawn:
        say(f"drawing: {picture}")
    if json is not None:
        say(f"figures: {job.write_network_costs(costs, json, batch=batch, device=device)}")
