"""`trilemma data check`: is this data fit to train on?"""

from __future__ import annotations

from typing import Annotated

import typer

from trilemma.cli import options as o

app = typer.Typer(help="Look at data.", no_args_is_help=True, rich_markup_mode=None, add_completion=False)


@app.callback()
def data_() -> None:
    """Look at data."""


@app.command()
def check(
    data: Annotated[
        str, typer.Argument(metavar="DATA[:SPLIT]", help="A source or a path; all splits unless one is named.")
    ],
    root: o.Root = None,
) -> None:
    """Report count, sizes, modes, classes and damaged files. Exit code 1 if training could not start on it as it is."""
    from trilemma import data as room
    from trilemma.machine import show_rows

    name, split = room.parse_reference(data)
    split = split if data.endswith(f":{split}") else "all"
    found = room.check(name, root, split)
    show_rows(found.rows())
    raise typer.Exit(0 if found.ok else 1)
