"""`trilemma demo`: everything once, in minutes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def demo(
    out: Annotated[Path, typer.Option(help="Run directory.")] = Path("runs/demo"),
    n: Annotated[int, typer.Option("-n", help="Digits sampled in each way.", min=10)] = 500,
) -> None:
    """Train a digit model on the embedded digits, sample it three ways, measure each, and write the report."""
    import time

    from trilemma import jobs
    from trilemma.machine import say, show
    from trilemma.report.html import build_report
    from trilemma.report.table_views import to_rich
    from trilemma.report.tables import build_table

    began = time.perf_counter()
    run, evaluations = jobs.demo(out, n)
    show(to_rich(build_table(evaluations)))
    page = build_report([run.path])
    say(f"report: {page}  ({time.perf_counter() - began:.0f} s in all)")
