"""From run directories and evaluation files to a report on disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from trilemma.machine.files import check_writable, write_text
from trilemma.report.html import render
from trilemma.report.sources import read_sources


def build_report(sources: Sequence[Path], out: Path | None = None) -> Path:
    """Write one self-contained HTML report of run directories and evaluation files; gives the file written.

    out: by default RUN/report.html for a single run directory, else report.html in the working directory. The file
    appears whole or not at all. Raises InputError for a source that is neither a run nor an evaluation, for an invalid
    file in a run, and for an `out` that cannot be written.
    """
    sources = [Path(source) for source in sources]
    if out is None:
        out = sources[0] / "report.html" if len(sources) == 1 and sources[0].is_dir() else Path("report.html")
    check_writable(out, "--out")
    return write_text(out, render(*read_sources(sources)), "--out")
