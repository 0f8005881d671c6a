"""`trilemma schedule`: schedules side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trilemma.cli import options as o


def schedule(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME…",
            help="Such as linear, cosine, linear-200, vp, edm; or linear,steps=50,beta_end=0.4; or a run's directory.",
        ),
    ],
    picture: Annotated[Path, typer.Option(help="Picture to write: FILE.png.")] = Path("schedules.png"),
    data: Annotated[str, typer.Option(metavar="DATA[:SPLIT]", help="Whose first image is noised.")] = "mnist5k",
    out: o.Out = None,
) -> None:
    """Print ᾱ, SNR, β̃/β, terminal SNR and L_T of schedules, and draw them with an image noised by each."""
    from trilemma import runs
    from trilemma.machine import say, show
    from trilemma.report.schedules import schedule_figure, schedule_table

    image, moment = runs.example(data)
    chosen = {name: runs.schedule_of(name) for name in names}
    show(schedule_table(chosen, moment))
    say(f"L_T for {data}, whose pixels in [−1, 1] have E[x²] = {moment:.3f}")
    say(f"picture: {schedule_figure(chosen, image, picture)}")
