"""How figures of Matplotlib look, and how they are saved."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from trilemma.machine.files import replacing

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: small files, and it can be searched and copied from paper
    "svg.hashsalt": "trilemma",  # the same figures give the same bytes
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "axes.edgecolor": "#aab3bc",
    "axes.labelcolor": "#5c6773",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6eaee",
    "xtick.color": "#5c6773",
    "ytick.color": "#5c6773",
    "text.color": "#1b2430",
}
WIDE, NARROW = 9.4, 4.04
"""Inches of a figure on a page, and on one as narrow as a telephone's."""


def svg_text(figure: Figure) -> str:
    """SVG text of a figure, with the reader's own interface font instead of Matplotlib's."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    for quoted in ("'DejaVu Sans'", "&quot;DejaVu Sans&quot;"):
        text = text.replace(quoted, "system-ui, 'Segoe UI', Roboto, Helvetica, Arial, sans-serif")
    return text


def save_figure(figure: Figure, out: Path) -> Path:
    """Write a figure as a PNG, whole or not at all. Raises InputError where that cannot be done."""
    with replacing(out) as partial:
        figure.savefig(partial, format="png")
    return out


def svg_uri(svg: str) -> str:
    """A data URI of an SVG image."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()
