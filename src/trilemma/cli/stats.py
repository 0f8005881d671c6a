"""`trilemma stats`: feature statistics of data, as a reference."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trilemma.cli import options as o
from trilemma.errors import InputError


def stats(
    data: Annotated[str, typer.Argument(metavar="DATA[:SPLIT]", help="A source or a path, and its split.")],
    out: Annotated[Path, typer.Option(help="STATS.npz to write.")],
    features: Annotated[
        str,
        typer.Option(metavar="NAME", help="Feature extractor, NAME or NAME:ARGUMENT: see `trilemma list features`."),
    ] = "digits",
    adm: Annotated[bool, typer.Option("--adm", help="With mu_s and sigma_s, for sFID, as ADM's have them.")] = False,
    images: Annotated[bool, typer.Option("--images", help="With the images themselves, as arr_0.")] = False,
    root: o.Root = None,
) -> None:
    """Write the mean and covariance of the data's features, with pytorch-fid's names `mu` and `sigma`; with --adm and
    --images, a reference batch as ADM's tools read it."""
    from trilemma import evaluations
    from trilemma.data import parse_reference
    from trilemma.machine import say

    if out.resolve() == Path(parse_reference(data)[0]).resolve():
        raise InputError(f"--out {out}: is the data itself, which would be overwritten; expected another STATS.npz")
    say(f"statistics: {evaluations.write_statistics(data, out, features, root, spatial=adm, images=images)}")
