"""Places to write to, looked at before any work is spent on what will be written there."""

from __future__ import annotations

from pathlib import Path

from trilemma.errors import InputError


def check_writable(path: Path, what: str = "out") -> None:
    """Make the folder of `path`, and make sure that the file can be written; what it holds is left alone. Raises
    InputError, which calls it `what`."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab"):
            pass
        if not path.stat().st_size:
            path.unlink()
    except OSError as error:
        raise InputError(f"{what}: cannot write {path} ({error.strerror})") from error
