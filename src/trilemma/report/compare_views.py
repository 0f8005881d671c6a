"""A comparison as it is shown: in the terminal, in Markdown, and as plain JSON values."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich import box
from rich.console import Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from trilemma.report.comparability import Figure
from trilemma.report.compare import LIMIT, Comparison, Difference, Entry
from trilemma.report.provenance import facts
from trilemma.report.tables import is_yardstick, lookup

ABREAST = 6
"""Evaluations side by side in the terminal: more go into further tables, each with the baseline first."""

_SUPERSCRIPTS = str.maketrans("abcdefghijklmnoprstuvwxyz", "ᵃᵇᶜᵈᵉᶠᵍʰⁱʲᵏˡᵐⁿᵒᵖʳˢᵗᵘᵛʷˣʸᶻ")
_STYLES = {"better": "green", "worse": "red"}
_KEY = "↓ lower is better, ↑ higher is better; ± one standard error; {} best of those without a letter"
_CHANCE = f"better, worse: {LIMIT:g} standard errors or more apart; chance alone does that once in about 20 comparisons"


def comparison_table(comparison: Comparison) -> Group:
    """For the terminal: measures down, evaluations across, the reasons below, then each one's differences from the
    baseline in words."""
    first, *others = range(len(comparison.entries))
    size = ABREAST - 1
    blocks = [[first, *others[i : i + size]] for i in range(0, len(others), size)]
    parts: list[Any] = [_block(comparison, block) for block in blocks]
    parts += [Padding(Text(line), (0, 0, 0, 2)) for line in _below(comparison)]
    parts += [Text(""), Text(f"Against “{comparison.entries[0].label}”, {_measured_with(comparison)}", style="bold")]
    for i in others:
        parts.append(_in_words(comparison, i))
    return Group(*parts, *(Text(line) for line in (_CHANCE, *comparison.remarks)))


def _block(comparison: Comparison, shown: list[int]) -> Table:
    entries = [comparison.entries[i] for i in shown]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("", no_wrap=True)
    for entry in entries:
        table.add_column(Text(entry.label), justify="right", overflow="fold", max_width=15, vertical="top")
    table.add_row("N", *(Text(_count(entry)) for entry in entries))
    table.add_row("sampler", *(Text(_sampler(entry)) for entry in entries), end_section=True)
    axis = None
    for column in comparison.columns:
        if column.axis != axis:
            axis = column.axis
            table.add_row(Text(axis, style="bold cyan"))
        cells = [_cell(entry.figures[column.key]) for entry in entries]
        table.add_row(f"{column.short or column.title} {column.arrow}", *cells)
    return table


def _cell(figure: Figure) -> Text:
    """The figure with its marks; where it must be broken, that is before the ±."""
    letters = ",".join(figure.letters).translate(_SUPERSCRIPTS)
    style = "bold green" if figure.best else "dim" if figure.letters else ""
    return Text(figure.text.replace("± ", "±") + ("*" if figure.best else "") + letters, style=style)


def _count(entry: Entry) -> str:
    count = lookup(entry.evaluation, "samples.count")
    return f"{count:,}".replace(",", " ") if isinstance(count, int) else str(count)


def _sampler(entry: Entry) -> str:
    if is_yardstick(entry.evaluation):
        return "real images"
    name, steps = (lookup(entry.evaluation, f"sampler.{part}") for part in ("name", "steps"))
    return ", ".join([str(name or "–").replace("_", " "), *([f"{steps} steps"] if steps is not None else [])])


def _below(comparison: Comparison) -> Iterator[str]:
    yield _KEY.format("*")
    if any(column.short == "NFE" for column in comparison.columns):
        yield "NFE: network evaluations for one image"
    for letter, reason in comparison.reasons.items():
        yield f"{letter.translate(_SUPERSCRIPTS)} not comparable: {reason}"


def _measured_with(comparison: Comparison) -> str:
    known = facts(comparison.entries[0].evaluation)
    return "; ".join(f"{name.lower()}: {known[name]}" for name in ("Features", "Reference") if name in known)


def _differences(comparison: Comparison, i: int) -> dict[str, Difference]:
    """Entry i's differences by the title of their measure."""
    titles = {column.key: column.title for column in comparison.columns}
    return {titles[d.key]: d for d in comparison.differences if d.entry == i}


def _in_words(comparison: Comparison, i: int) -> Group:
    lines = Table.grid(padding=(0, 2, 0, 0))
    for title, difference in _differences(comparison, i).items():
        lines.add_row(f"  {title}", Text(difference.words, style=_STYLES.get(difference.outcome, "")))
    if not lines.row_count:
        lines.add_row("  nothing that can be compared")
    return Group(Text(comparison.entries[i].label, style="bold"), lines)


def comparison_markdown(comparison: Comparison) -> str:
    """In Markdown: one row an evaluation, best figures bold, the reasons as lines below, the differences as lists."""
    heads = ["", "N", "sampler", *(f"{column.title} {column.arrow}" for column in comparison.columns)]
    lines = ["| " + " | ".join(heads) + " |", "| --- |" + " ---: |" * (len(heads) - 1)]
    for entry in comparison.entries:
        label = f"*{entry.label}*" if is_yardstick(entry.evaluation) else entry.label
        cells = [_markdown_cell(entry.figures[column.key]) for column in comparison.columns]
        lines.append("| " + " | ".join(_escaped(t) for t in (label, _count(entry), _sampler(entry), *cells)) + " |")
    lines += ["", _KEY.format("bold:")]
    for letter, reason in comparison.reasons.items():
        lines += ["", f"<sup>{letter}</sup> not comparable: {reason}"]
    lines += ["", f"Against “{comparison.entries[0].label}” ({_measured_with(comparison)}):"]
    for i, entry in enumerate(comparison.entries[1:], 1):
        lines += ["", f"{entry.label}:", ""]
        lines += [f"- {title} {d.words}" for title, d in _differences(comparison, i).items()]
    lines += [line for text in (_CHANCE, *comparison.remarks) for line in ("", text)]
    return "\n".join(lines) + "\n"


def _markdown_cell(figure: Figure) -> str:
    text = f"**{figure.text}**" if figure.best else figure.text
    return text + (f"<sup>{','.join(figure.letters)}</sup>" if figure.letters else "")


def _escaped(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def comparison_json(comparison: Comparison) -> dict[str, Any]:
    """As plain JSON values: rows with every figure, reasons by letter, and every difference with its verdict."""
    labels = [entry.label for entry in comparison.entries]
    return {
        "format": "trilemma-comparison/1",
        "baseline": labels[0],
        "metrics": {
            column.key: {"axis": column.axis, "better": "lower" if column.better == "low" else "higher"}
            for column in comparison.columns
        },
        "rows": [
            {
                "label": entry.label,
                "file": str(entry.path),
                **{part: lookup(entry.evaluation, part) for part in ("samples", "sampler", "features", "reference")},
                "figures": {
                    key: {
                        **{"value": figure.value, "standard_error": figure.error, "best": figure.best},
                        **{"comparable": figure.comparable, "reasons": list(figure.letters)},
                    }
                    for key, figure in entry.figures.items()
                },
            }
            for entry in comparison.entries
        ],
        "reasons": comparison.reasons,
        "differences": [
            {
                **{"label": labels[d.entry], "metric": d.key, "difference": d.value, "standard_error": d.error},
                **{"z": d.z, "verdict": d.outcome, "words": d.words},
            }
            for d in comparison.differences
        ],
        "remarks": list(comparison.remarks),
    }
