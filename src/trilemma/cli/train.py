"""`trilemma train`: a recipe into a run directory."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from trilemma.cli import completing
from trilemma.cli import options as o


def train(
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE|DATA",
            help="A packaged recipe, a YAML file, or images to choose one for: a folder, zip, npz, tar or hub:NAME.",
            autocompletion=completing.recipes,
        ),
    ],
    out: Annotated[Path | None, typer.Option(help="Run directory; runs/NAME unless given.")] = None,
    base: o.Base = None,
    size: o.Size = None,
    time: o.Time = None,
    steps: o.Steps = None,
    set_: o.Set = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest checkpoint.")] = False,
    init: Annotated[Path | None, typer.Option(help="Begin from the averaged weights of this run.")] = None,
    track: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME,…", help="Log to these too: wandb, mlflow; a resumed run goes on in its own there."),
    ] = None,
    no_verify: o.NoVerify = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the resolved recipe and what training it takes here, measured.")
    ] = False,
) -> None:
    """Train a recipe, or images by one that is chosen for them. On several devices under `torchrun -m trilemma train …`
    or `accelerate launch -m trilemma train …`."""
    from trilemma import jobs
    from trilemma.machine import say

    overrides = list(set_ or [])
    wanted: dict[str, Any] = {"base": base, "size": o.parse_size(size), "time": o.parse_time(time), "steps": steps}
    if dry_run:
        print(jobs.dry_run(recipe, overrides, out=out, **wanted), end="")
        return
    run = jobs.train(
        recipe, out=out, overrides=overrides, resume=resume, init=init, verify=not no_verify,
        track=[name.strip() for names in track or [] for name in names.split(",")], **wanted,
    )  # fmt: skip
    say(f"trained to step {run.step}: {run.path}  (next: trilemma {o.following(run)})")
