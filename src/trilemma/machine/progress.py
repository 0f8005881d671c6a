"""Progress of long jobs: a bar with rate and ETA on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from trilemma.errors import one_line

console = Console(highlight=False, soft_wrap=True, emoji=False)

Advance = Callable[[int, str], None]
"""advance(done, note): so many units are done now, and something to say beside the bar."""


@contextmanager
def progress(what: str, total: int, unit: str, *, start: int = 0, shown: bool = True) -> Iterator[Advance]:
    """Show the way from `start` to `total` units; not at all if `shown` is False (all processes but the first)."""
    if not shown or total <= start:
        yield _unseen
    elif console.is_terminal:
        with _bar() as bar:
            task = bar.add_task(what, total=total, completed=start, rate="", note="")
            clock = time.monotonic()

            def advance(done: int, note: str = "") -> None:
                rate = (done - start) / max(time.monotonic() - clock, 1e-9)
                bar.update(task, completed=done, rate=f"{rate:.3g} {unit}/s", note=note)

            yield advance
    else:
        yield _lines(what, total, unit, start)


def _unseen(done: int, note: str = "") -> None:
    pass


def _bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", style="dim"),
        console=console,
    )


def _lines(what: str, total: int, unit: str, start: int, every: float = 15.0) -> Advance:
    clock = said = time.monotonic()

    def advance(done: int, note: str = "") -> None:
        nonlocal said
        now = time.monotonic()
        if now - said < every and done < total:
            return
        said = now
        rate = (done - start) / max(now - clock, 1e-9)
        left = (total - done) / max(rate, 1e-9)
        console.print(f"{what}: {done}/{total} {unit}, {rate:.3g} {unit}/s, ETA {left:.0f} s  {note}".rstrip())

    return advance


@contextmanager
def quiet() -> Iterator[None]:
    """Nothing is said meanwhile."""
    before, console.quiet = console.quiet, True
    try:
        yield
    finally:
        console.quiet = before


def say(line: str) -> None:
    """A line to whoever started this; once, whatever the number of processes."""
    if os.environ.get("RANK", "0") == "0":
        console.print(line, markup=False)


def show(table: RenderableType) -> None:
    """A table, likewise. Where there is no terminal it gets the width it needs."""
    if os.environ.get("RANK", "0") == "0":
        wide = console if console.is_terminal else Console(highlight=False, emoji=False, width=140)
        wide.print(table)


def show_rows(rows: Sequence[tuple[str, str]]) -> None:
    """Headings and texts, side by side."""
    table = Table(show_header=False, box=None, padding=(0, 2))
    for heading, text in rows:
        table.add_row(Text(heading), Text(one_line(text)))  # brackets in a file's name are no markup
    show(table)
