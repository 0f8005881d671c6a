"""`trilemma invert` and `trilemma interpolate`: encodings of images, and the way between two."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from trilemma.cli import options as o


@o.sampling("steps", "spacing", "weights")
def invert(
    run: Annotated[Path, typer.Argument(help="Run directory.")],
    images: Annotated[str, typer.Argument(help="Images to encode: .npz, folder, zip, or DATA:SPLIT.")],
    out: Annotated[Path, typer.Option(help="Encodings to write: FILE.npz.")],
    n: Annotated[int, typer.Option("-n", help="How many of the images.", min=1)] = 16,
    picture: Annotated[Path | None, typer.Option(help="Write images above their reconstructions: FILE.png.")] = None,
    **settings: Any,
) -> None:
    """Encode images as the noise that DDIM makes them from, and report how well they come back."""
    from trilemma import jobs
    from trilemma.machine import say

    encoded = jobs.invert(run, images, out, n=n, picture=picture, **settings)
    say(
        f"{len(encoded.encodings)} images in {encoded.steps} steps; reconstruction error, root mean square of a pixel "
        f"of 255: {encoded.error:.2f}"
    )
    say(f"encodings: {out}")


@o.sampling("steps", "spacing", "weights")
def interpolate(
    run: Annotated[Path, typer.Argument(help="Run directory.")],
    picture: Annotated[Path, typer.Option(help="Picture to write: FILE.png, a row a pair.")],
    seeds: Annotated[str | None, typer.Option(help="Pairs of image seeds: 0,1 or 0,1,2,3 for two pairs.")] = None,
    encodings: Annotated[Path | None, typer.Option(help="Pairs of encodings that `invert` wrote, instead.")] = None,
    frames: Annotated[int, typer.Option(help="Images in a row, both ends included.", min=2)] = 9,
    class_: o.Class = None,
    out: o.Out = None,
    **settings: Any,
) -> None:
    """Walk between two encodings on the sphere, decoding each by DDIM."""
    from trilemma import jobs
    from trilemma.machine import say

    chosen = o.parse_seeds(seeds)
    path = jobs.interpolate(run, picture, seeds=chosen, encodings=encodings, frames=frames, cls=class_, **settings)
    say(f"picture: {path}")
