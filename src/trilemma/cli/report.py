"""`trilemma report`: the HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    sources: Annotated[list[Path], typer.Argument(metavar="RUN|EVALUATION.json ...", help="What to report on.")],
    out: Annotated[Path | None, typer.Option(help="FILE.html to write; RUN/report.html unless given.")] = None,
) -> None:
    """Write one self-contained HTML page of runs and evaluations: where a run stands and what to try next, table,
    figures, samples, what was run and on what."""
    from trilemma.machine import say, show
    from trilemma.report.html import build_report
    from trilemma.report.sources import read_sources
    from trilemma.report.table_views import to_rich
    from trilemma.report.tables import build_table
    from trilemma.report.verdict import rested_on, standing_lines

    page = build_report(sources, out)
    runs, evaluations = read_sources(sources)
    standing = standing_lines(runs, evaluations, named=True)
    for line in standing:
        say(str(line))
    if evaluations:
        show(to_rich(build_table(evaluations, also=rested_on(standing))))
    say(f"report: {page}")
