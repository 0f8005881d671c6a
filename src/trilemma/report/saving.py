"""Writing a Matplotlib figure as a PNG, whole or not at all."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from trilemma.errors import InputError


def save_figure(figure: Figure, out: Path) -> Path:
    """Write the figure to `out`. Raises InputError where that cannot be done."""
    partial = out.with_name(f".{out.name}.partial")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(partial, format="png")
        partial.replace(out)
    except OSError as error:
        raise InputError(f"out: cannot write {out} ({error.strerror})") from error
    return out
