"""`trilemma compare`: evaluations against one of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trilemma.errors import InputError


def compare(
    sources: Annotated[
        list[Path], typer.Argument(metavar="A.json B.json ...", help="Evaluations, folders of them, run directories.")
    ],
    baseline: Annotated[
        str | None, typer.Option(metavar="LABEL|FILE", help="What the others are held against; the first unless given.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Refuse if any figure was measured otherwise.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown.")] = False,
    json_: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Also write figures, reasons and verdicts.")
    ] = None,
) -> None:
    """Compare evaluations: one table, what in it cannot be compared and why, and what differs beyond its standard
    errors."""
    from trilemma.machine import say, show
    from trilemma.machine.files import write_json
    from trilemma.report import compare as job
    from trilemma.report.sources import read_compared

    evaluations = read_compared(sources)
    if json_ is not None and json_.resolve() in {one.path.resolve() for one in evaluations if one.path}:
        raise InputError(f"--json {json_}: is one of the evaluations; expected another file")
    comparison = job.compare(evaluations, baseline=baseline, strict=strict)
    if markdown:
        typer.echo(job.comparison_markdown(comparison), nl=False)
    else:
        show(job.comparison_table(comparison))
    if json_ is not None:
        write_json(json_, job.comparison_json(comparison), "--json")
        if not markdown:
            say(f"comparison: {json_}")
