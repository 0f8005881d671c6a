"""`trilemma stats`: feature statistics of data, as a reference."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trilemma.cli import options as o


def stats(
    data: Annotated[str, typer.Argument(metavar="DATA[:SPLIT]", help="A source or a path, and its split.")],
    out: Annotated[Path, typer.Option(help="STATS.npz to write.")],
    features: Annotated[str, typer.Option(help="Feature extractor: digits or pixels.")] = "digits",
    root: o.Root = None,
) -> None:
    """Write the mean and covariance of the data's features, with pytorch-fid's names `mu` and `sigma`."""
    from trilemma import runs

    runs.say(f"statistics: {runs.write_statistics(data, out, features, root)}")
