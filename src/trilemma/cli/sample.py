"""`trilemma sample`: images from a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from trilemma.cli import options as o
from trilemma.errors import InputError


@o.sampling()
def sample(
    run: Annotated[Path, typer.Argument(help="Run directory, or a cascade BASE+UPSAMPLER, BASE a run or samples.")],
    n: Annotated[int, typer.Option("-n", help="How many images (seeds 0 to n−1).", min=1, max=o.LIMIT)] = 64,
    seeds: o.Seeds = None,
    class_: o.Class = None,
    out: Annotated[Path | None, typer.Option(help="FILE.npz or a folder of PNG; RUN/samples/… unless given.")] = None,
    picture: Annotated[Path | None, typer.Option(help="Write a picture of the first 100 samples: FILE.png.")] = None,
    strip: Annotated[
        Path | None, typer.Option(help="Write the way from noise to image of the first seeds: FILE.png.")
    ] = None,
    pairs: Annotated[
        Path | None, typer.Option(help="Write a picture of the first samples beside their surrogate's: FILE.png.")
    ] = None,
    grid: o.Grid = None,
    no_verify: o.NoVerify = False,
    **settings: Any,
) -> None:
    """Generate images. Image i depends on its own seed alone; an interrupted call made again goes on where it was."""
    from trilemma import runs
    from trilemma.data import check_png, write_png
    from trilemma.machine import say

    check_png(picture, "picture")
    check_png(strip, "strip")
    check_png(pairs, "pairs")
    opened = runs.open_run(run, verify=not no_verify)
    if pairs is not None and opened.way(**settings).base.sampler.surrogate is None:
        raise InputError("--pairs: images beside those that they began from, and no --surrogate is named")
    samples = opened.sample_to(out, n=n, seeds=o.parse_seeds(seeds), cls=class_, **settings)
    say(f"samples: {samples.path}")
    if picture is not None:
        say(f"picture: {write_png(picture, samples.picture())}")
    if strip is not None:
        way = opened.reverse_strip(samples.seeds[:10], samples.labels, **settings)
        say(f"picture: {write_png(strip, way.picture())}")
    if pairs is not None:
        say(f"picture: {write_png(pairs, opened.surrogate_pairs(samples, **settings))}")
