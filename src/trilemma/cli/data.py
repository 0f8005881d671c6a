"""`trilemma data check`: is this data fit to train on? `trilemma data pack`: in one file, at one size."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from trilemma.cli import options as o

Config = Annotated[str | None, typer.Option(help="Which configuration of hub:NAME, where there are several.")]

app = typer.Typer(help="Look at data, and pack it.", no_args_is_help=True, rich_markup_mode=None, add_completion=False)


@app.callback()
def data_() -> None:
    """Look at data, and pack it."""


@app.command()
def check(
    data: Annotated[
        str, typer.Argument(metavar="DATA[:SPLIT]", help="A source or a path; all splits unless one is named.")
    ],
    root: o.Root = None,
    config: Config = None,
) -> None:
    """Report count, sizes, modes, classes and damaged files. Exit code 1 if training could not start on it as it is."""
    from trilemma import data as room
    from trilemma.machine import show_rows

    name, split = _named(data)
    found = room.check(name, split or "all", room.Opening(root, config=config))
    show_rows(found.rows())
    raise typer.Exit(0 if found.ok else 1)


@app.command()
def pack(
    data: Annotated[
        str, typer.Argument(metavar="DATA[:SPLIT]", help="A source or a path; all splits unless one is named.")
    ],
    out: Annotated[Path, typer.Option(help="SET.zip or SET.npz to write.")],
    size: Annotated[str | None, typer.Option(help="Side, or HEIGHTxWIDTH, to crop and resize images to.")] = None,
    channels: Annotated[int | None, typer.Option(help="1 (grey) or 3 (RGB); as stored unless given.")] = None,
    resize: Annotated[Literal["bicubic", "area"], typer.Option(help="How images are resized.")] = "bicubic",
    root: o.Root = None,
    config: Config = None,
) -> None:
    """Write images into one file that opens fast: a .zip of uncompressed PNG with dataset.json, as EDM's tools have it,
    or an .npz. Classes and splits are kept, an .npz keeps the classes' numbers alone."""
    from trilemma import data as room
    from trilemma.machine import say

    name, split = _named(data)
    packed = room.pack(name, out, room.Opening(root, o.parse_size(size), channels, resize, config=config), split)
    counts = ", ".join(f"{one.split} {len(one)}" for one in packed)
    said = f"{packed[0].shape[0]}x{packed[0].shape[1]}x{packed[0].shape[2]}, {counts}"
    say(f"packed: {out} ({said}, {out.stat().st_size / 2**20:.1f} MiB)")


def _named(data: str) -> tuple[str, str | None]:
    """The data, and the split if one is named."""
    from trilemma.data import parse_reference

    name, split = parse_reference(data)
    return name, split if data != name else None
