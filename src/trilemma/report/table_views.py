"""A table of figures as it is shown in the terminal and in Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Group
from rich.padding import Padding
from rich.table import Table as RichTable
from rich.text import Text

from trilemma.evaluations.judge import LIMIT
from trilemma.report.tables import DASH, Cell, Column, Row, Table

ABREAST = 5
"""Evaluations side by side in the terminal: more go into further tables, each with the first again."""

KEY = f"the best that can be compared, and all level with it: fewer than {LIMIT:g} standard errors apart"
ARROWS = "↓ lower is better, ↑ higher is better"

MARK = "◆"
"""Beside the label of a row that is marked."""

_SUPERSCRIPTS = str.maketrans("abcdefghijklmnoprstuvwxyz", "ᵃᵇᶜᵈᵉᶠᵍʰⁱʲᵏˡᵐⁿᵒᵖʳˢᵗᵘᵛʷˣʸᶻ")


def notes(table: Table) -> dict[str, str]:
    """The footnotes by their letters."""
    return {letter: f"not comparable: {reason}" for letter, reason in table.reasons.items()}


def to_rich(table: Table) -> Group:
    """The table for the terminal: measures down, evaluations across, yardsticks dim, the reasons below."""
    first, *others = table.rows
    size = ABREAST - 1
    blocks = [[first, *others[i : i + size]] for i in range(0, max(1, len(others)), size)]
    below = [f"{ARROWS}; ± one standard error", f"* {KEY}"]
    below += [f"{letter.translate(_SUPERSCRIPTS)} {note}" for letter, note in notes(table).items()]
    return Group(
        *(_block(table.columns, rows) for rows in blocks), *(Padding(Text(line), (0, 0, 0, 2)) for line in below)
    )


def _block(columns: Sequence[Column], rows: Sequence[Row]) -> RichTable:
    rich = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    rich.add_column("", no_wrap=True)
    for row in rows:
        style = "dim" if row.evaluation.yardstick else ""
        rich.add_column(Text(row.label), justify="right", overflow="fold", max_width=15, vertical="top", style=style)
    for name, how in (("N", _count), ("sampler", _sampler)):
        rich.add_row(name, *(Text(how(row)) for row in rows), end_section=name == "sampler")
    axis = None
    for column in columns:
        if column.metric.axis != axis:
            axis = column.metric.axis
            rich.add_row(Text(axis, style="bold cyan"))
        unit = f", {column.unit}" if column.metric.unit else ""
        cells = [_rich_cell(column, row.cells[column.metric.name]) for row in rows]
        rich.add_row(f"{column.title}{unit} {column.metric.arrow}", *cells)
    return rich


def _rich_cell(column: Column, cell: Cell) -> Text:
    """The figure with its marks; where it must be broken, that is before the ±."""
    letters = ",".join(cell.letters).translate(_SUPERSCRIPTS)
    style = "bold green" if cell.best else "dim" if cell.letters else ""
    text = column.text(cell, errors=True).replace("± ", "±")
    return Text(text + ("*" if cell.best else "") + letters, style=style)


def _count(row: Row) -> str:
    return f"{row.evaluation.samples.count:,}".replace(",", " ")


def _sampler(row: Row) -> str:
    if row.evaluation.yardstick:
        return "real images"
    sampler = row.evaluation.sampler
    if sampler is None:
        return DASH
    steps = [f"{sampler.steps} steps"] if sampler.steps is not None else []
    return ", ".join([(sampler.sampler or DASH).replace("_", " "), *steps])


def to_markdown(table: Table, *, whole: bool = False) -> str:
    """The table in Markdown, best figures bold, yardsticks in italics, footnotes as lines below it; `whole`: also with
    sample counts, samplers and standard errors."""
    heads = [" ".join(filter(None, (column.title, column.unit, column.metric.arrow))) for column in table.columns]
    heads = ["", *(("N", "sampler") if whole else ()), *heads]
    lines = ["| " + " | ".join(heads) + " |", "| --- |" + " ---: |" * (len(heads) - 1)]
    for row in table.rows:
        label = f"*{row.label}*" if row.evaluation.yardstick else row.label
        how = (_count(row), _sampler(row)) if whole else ()
        cells = [_markdown_cell(column, row.cells[column.metric.name], whole) for column in table.columns]
        lines.append("| " + " | ".join(" ".join(t.replace("|", "\\|").split()) for t in (label, *how, *cells)) + " |")
    return "\n".join([*lines, *(f"\n<sup>{letter}</sup> {note}" for letter, note in notes(table).items())]) + "\n"


def _markdown_cell(column: Column, cell: Cell, errors: bool) -> str:
    text = column.text(cell, errors=errors)
    mark = f"<sup>{','.join(cell.letters)}</sup>" if cell.letters else ""
    return (f"**{text}**" if cell.best else text) + mark
