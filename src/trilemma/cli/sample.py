"""`trilemma sample`: images from a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trilemma.cli import options as o


def sample(
    run: Annotated[Path, typer.Argument(help="Run directory.")],
    n: Annotated[int, typer.Option("-n", help="How many images (seeds 0 to n−1).", min=1, max=o.LIMIT)] = 64,
    seeds: o.Seeds = None,
    sampler: o.Sampler = None,
    steps: o.Steps = None,
    spacing: o.Spacing = None,
    times: o.Times = None,
    skip: o.Skip = None,
    eta: o.Eta = None,
    order: o.Order = None,
    stochastic: o.Stochastic = None,
    surrogate: o.Surrogate = None,
    t_mid: o.TMid = None,
    class_: o.Class = None,
    weights: o.Weights = None,
    batch: o.Batch = None,
    precision: o.Precision = None,
    clip: o.Clip = None,
    out: Annotated[Path | None, typer.Option(help="FILE.npz or a folder of PNG; RUN/samples/… unless given.")] = None,
    grid: Annotated[Path | None, typer.Option(help="Write a picture of the first 100 samples: FILE.png.")] = None,
    strip: Annotated[
        Path | None, typer.Option(help="Write the way from noise to image of the first seeds: FILE.png.")
    ] = None,
) -> None:
    """Generate images. Image i depends on its own seed alone; an interrupted call made again goes on where it was."""
    from trilemma import runs

    settings = o.settings(
        name=sampler,
        steps=steps,
        grid=spacing,
        times=times,
        skip=skip,
        eta=eta,
        order=order,
        stochastic=stochastic,
        surrogate=surrogate,
        t_mid=t_mid,
        weights=weights,
        batch=batch,
        precision=precision,
        clip=clip,
    )
    pictures = runs.Pictures(grid, strip)
    opened = runs.Run(run)
    samples = opened.sample_to(out, n=n, seeds=o.parse_seeds(seeds), cls=class_, **settings)
    runs.say(f"samples: {samples.path}")
    for path in pictures.write(opened, samples, settings):
        runs.say(f"picture: {path}")
