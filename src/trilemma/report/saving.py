"""Writing a Matplotlib figure as a PNG, whole or not at all."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from trilemma.machine.files import replacing


def save_figure(figure: Figure, out: Path) -> Path:
    """Write the figure to `out`. Raises InputError where that cannot be done."""
    with replacing(out) as partial:
        figure.savefig(partial, format="png")
    return out
