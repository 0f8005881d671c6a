"""`trilemma codec`: what an autoencoder keeps of images, and what its latents are like."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from trilemma.cli import options as o


@o.sampling("weights", "batch")
def codec(
    run: Annotated[Path, typer.Argument(help="Run directory of an autoencoder.")],
    reference: Annotated[str, typer.Option(metavar="DATA:SPLIT", help="The images to encode and decode.")],
    n: Annotated[int, typer.Option("-n", help="How many of them.", min=1)] = 1000,
    features: Annotated[str | None, o.FEATURES] = None,
    out: Annotated[Path | None, typer.Option(help="FILE.json; RUN/evaluations/codec/… unless given.")] = None,
    picture: Annotated[Path | None, typer.Option(help="Write originals above their reconstructions: FILE.png.")] = None,
    root: o.Root = None,
    **settings: Any,
) -> None:
    """Report how well an autoencoder's images come back, and its latents' scale."""
    from trilemma import jobs
    from trilemma.machine import say, show
    from trilemma.report.codec import codec_table

    result = jobs.codec_report(run, reference, n=n, features=features, out=out, picture=picture, root=root, **settings)
    for caution in result["cautions"]:
        say(f"warning: {caution}")
    show(codec_table(result))
    if picture is not None:
        say(f"picture: {picture}")
    say(f"codec: {result['path']}")
