"""`trilemma train`: a recipe into a run directory."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trilemma.cli import options as o


def train(
    recipe: Annotated[str, typer.Argument(help="Name of a packaged recipe, or a YAML file.")],
    out: Annotated[Path | None, typer.Option(help="Run directory; runs/NAME unless given.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Override, such as training.steps=1000.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest checkpoint.")] = False,
    init: Annotated[Path | None, typer.Option(help="Begin from the averaged weights of this run.")] = None,
    track: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME,…", help="Log to these too: wandb, mlflow; a resumed run goes on in its own there."),
    ] = None,
    no_verify: o.NoVerify = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the resolved recipe, parameters, memory, steps.")
    ] = False,
) -> None:
    """Train a recipe. Under `torchrun -m trilemma train …` or `accelerate launch -m trilemma train …` on several
    devices."""
    from trilemma import jobs
    from trilemma.machine import say

    overrides = list(set_ or [])
    if dry_run:
        print(jobs.dry_run(recipe, overrides), end="")
        return
    run = jobs.train(
        recipe, out=out, overrides=overrides, resume=resume, init=init, verify=not no_verify,
        track=[name.strip() for names in track or [] for name in names.split(",")],
    )  # fmt: skip
    say(f"trained to step {run.step}: {run.path}  (next: trilemma {o.following(run)})")
