"""A table of figures as it is shown: in the terminal and on a page."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from rich import box
from rich.table import Table as RichTable
from rich.text import Text

from trilemma.report.tables import AXES, Column, Row, Table


def _heads(columns: Sequence[Column]) -> list[tuple[str, int]]:
    """The axes that have columns, with how many each."""
    return [(axis, n) for axis in AXES if (n := sum(column.axis == axis for column in columns))]


_SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


def to_rich(table: Table, *, title: str | None = None) -> RichTable:
    """The table for the terminal: best figures bold, yardsticks dim below a line, footnotes underneath."""
    key = [
        "↓ lower is better, ↑ higher is better"
        + ("; NFE: network evaluations" if table.column("network_evaluations") else "")
    ]
    caption = "\n".join([*key, *(f"{i} {note}" for i, note in enumerate(table.notes, 1))])
    rich = RichTable(
        title=title, caption=caption, caption_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0)
    )
    rich.add_column("", overflow="fold", min_width=12)
    previous = None
    for column in table.columns:
        axis = column.axis if column.axis != previous else ""
        name = column.short or column.title
        name = name if "\n" in name else f"{name}\n"
        rich.add_column(
            Text.assemble((f"{axis}\n", "bold cyan"), f"{name} {column.arrow}"), justify="right", no_wrap=True
        )
        previous = column.axis
    for row in table.rows:
        shown = []
        for column in table.columns:
            cell = row.cells[column.key]
            note = str(cell.note).translate(_SUPERSCRIPTS) if cell.note else ""
            shown.append(Text(cell.text + note, style="bold green" if cell.best else ""))
        last = row is (table.models or (None,))[-1]
        rich.add_row(Text(row.label), *shown, style="dim" if row.yardstick else "", end_section=last)
    return rich


def to_html(table: Table) -> str:
    """The table as HTML: two header rows (axes, figures), one `tbody` for models and one for yardsticks."""
    axes = "".join(
        f'<th colspan="{n}" scope="colgroup" class="axis {axis}"><span>{axis}</span></th>'
        for axis, n in _heads(table.columns)
    )
    heads = "".join(
        f'<th scope="col" title="{escape(column.meaning)}">{_unbroken(column.title)}&nbsp;{column.arrow}'
        f"<small>{escape(column.unit)}</small></th>"
        for column in table.columns
    )
    bodies = "".join(
        f'<tbody class="{kind}">{"".join(_html_row(row, table.columns) for row in rows)}</tbody>'
        for kind, rows in (("models", table.models), ("yardsticks", table.yardsticks))
        if rows
    )
    notes = "".join(f'<li id="note-{i}">{escape(note)}</li>' for i, note in enumerate(table.notes, 1))
    return (
        f'<div class="scroll"><table class="figures"><thead><tr><td></td>{axes}</tr><tr><td></td>{heads}</tr></thead>'
        f"{bodies}</table></div>" + (f'<ol class="notes">{notes}</ol>' if notes else "")
    )


def to_markdown(table: Table) -> str:
    """The table in Markdown, best figures bold, yardsticks in italics, footnotes as lines below it."""
    heads = [" ".join(filter(None, (column.title, column.unit, column.arrow))) for column in table.columns]
    lines = ["| | " + " | ".join(heads) + " |", "| --- |" + " ---: |" * len(heads)]
    for row in table.rows:
        cells = [row.cells[column.key] for column in table.columns]
        shown = [f"**{cell.text}**" if cell.best else cell.text for cell in cells]
        notes = [f"<sup>{cell.note}</sup>" if cell.note else "" for cell in cells]
        label = f"*{row.label}*" if row.yardstick else row.label
        lines.append("| " + " | ".join([label, *(a + b for a, b in zip(shown, notes, strict=True))]) + " |")
    return "\n".join([*lines, *(f"\n<sup>{i}</sup> {note}" for i, note in enumerate(table.notes, 1))]) + "\n"


def _unbroken(title: str) -> str:
    """A title whose words stay whole: FD-500 is one."""
    return " ".join(f"<span>{escape(word)}</span>" for word in title.split())


def _html_row(row: Row, columns: Sequence[Column]) -> str:
    shown = []
    for column in columns:
        cell = row.cells[column.key]
        text = f"<strong>{cell.text}</strong>" if cell.best else cell.text
        mark = f'<sup><a href="#note-{cell.note}">{cell.note}</a></sup>' if cell.note else ""
        shown.append(f"<td>{text}{mark}</td>")
    return f'<tr><th scope="row">{escape(row.label)}</th>{"".join(shown)}</tr>'
