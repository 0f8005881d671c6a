"""From run directories and evaluation files to a report on disk."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from trilemma.errors import InputError
from trilemma.report.html import render
from trilemma.report.sources import read_sources


def _check_writable(out: Path) -> None:
    """Refuse an `out` that cannot be written before any work is done for it."""
    if out.is_dir():
        raise InputError(f"--out {out}: is a directory (expected a file such as {out / 'report.html'})")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out {out}: cannot make its directory ({error.strerror})") from error
    if not os.access(out.parent, os.W_OK):
        raise InputError(f"--out {out}: directory {out.parent} is not writable")


def build_report(sources: Sequence[Path], out: Path | None = None) -> Path:
    """Write one self-contained HTML report of run directories and evaluation files; gives the file written.

    out: by default RUN/report.html for a single run directory, else report.html in the working directory. The file
    appears whole or not at all. Raises InputError for a source that is neither a run nor an evaluation, for an invalid
    file in a run, and for an `out` that cannot be written.
    """
    sources = [Path(source) for source in sources]
    if out is None:
        out = sources[0] / "report.html" if len(sources) == 1 and sources[0].is_dir() else Path("report.html")
    _check_writable(out)
    page = render(*read_sources(sources))
    temporary = None
    try:
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=out.parent, prefix=f".{out.name}.", delete=False
        ) as file:
            temporary = Path(file.name)
            file.write(page)
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)  # a temporary file is its owner's alone; a report is as readable as any file
        os.replace(temporary, out)
    except OSError as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        raise InputError(f"--out {out}: cannot be written ({error.strerror})") from error
    return out
