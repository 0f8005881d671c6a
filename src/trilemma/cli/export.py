"""`trilemma export`: a run as a folder of another library."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def export(
    run: Annotated[Path, typer.Argument(help="Run directory.")],
    format_: Annotated[str, typer.Option("--format", help="diffusers.")] = "diffusers",
    out: Annotated[Path | None, typer.Option(help="Folder to write; RUN/diffusers unless given.")] = None,
    weights: Annotated[str, typer.Option(help="ema (averaged) or raw.")] = "ema",
) -> None:
    """Write a run as a folder that diffusers' DDPMPipeline loads, with a pipeline that takes classes if it has any."""
    from trilemma import exchange
    from trilemma.machine import say

    say(f"exported: {exchange.export_run(run, format_, out=out, weights=weights)}")
