"""`trilemma list`: what there is."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from trilemma.errors import unknown
from trilemma.inventory import Entry, downloads, entries, headline, needed, packaged
from trilemma.registry import KINDS, OWN, Kind

PLURAL: dict[str, Kind] = {kind if kind in ("data", "times", "features") else f"{kind}s": kind for kind in KINDS}
WORDS = ("recipes", *PLURAL)


def list_(
    kind: Annotated[
        str | None, typer.Argument(help=" | ".join(WORDS), autocompletion=lambda incomplete: list(WORDS))
    ] = None,
) -> None:
    """List the recipes and the parts that they can name, with what each is and where it comes from; of one kind also
    the arguments."""
    if kind is not None and kind not in WORDS:
        raise unknown("kind", kind, WORDS)
    console = Console(highlight=False, markup=False, emoji=False)
    for each in WORDS if kind is None else (kind,):
        table = Table(title=each, title_justify="left", title_style="bold", show_header=False, box=None, expand=True)
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=kind is None, ratio=1)
        table.add_column(no_wrap=True, style="dim")
        for entry in _entries(each):
            table.add_row(entry.name, entry.headline if kind is None else _whole(entry), entry.origin)
        console.print(table)
        console.print()


def _entries(word: str) -> list[Entry]:
    if word == "recipes":
        return [Entry(name, _with(headline(text), needed(name)), OWN, {}) for name, text in packaged().items()]
    path = Entry(
        "PATH", "a folder of images (with or without class folders), a .zip, an .npz, .tar shards, or hub:NAME", OWN, {}
    )
    found = entries(PLURAL[word])
    if word != "data":
        return found
    sizes = {name: f"downloads {size}" for name, size in downloads().items()}
    return [*(replace(each, description=_with(each.description, sizes.get(each.name))) for each in found), path]


def _with(text: str, needed: str | None) -> str:
    """A description and what it waits for, before its full stop."""
    return f"{text.rstrip('.')} ({needed})" if needed else text


def _whole(entry: Entry) -> str:
    arguments = ", ".join(f"{name}={default}" if default else name for name, default in entry.arguments.items())
    return f"{entry.description}\n{arguments}" if arguments else entry.description
