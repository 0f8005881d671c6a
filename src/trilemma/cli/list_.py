"""`trilemma list`: what there is."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from trilemma.errors import unknown

KINDS = ("recipes", "data", "samplers", "metrics")


def list_(kind: Annotated[str | None, typer.Argument(help=" | ".join(KINDS))] = None) -> None:
    """List the recipes, data, samplers or metrics; all of them if none is named."""
    if kind is not None and kind not in KINDS:
        raise unknown("kind", kind, KINDS)
    console = Console(highlight=False)
    for each in KINDS if kind is None else (kind,):
        table = Table(title=each, title_justify="left", title_style="bold", show_header=False, box=None, padding=(0, 2))
        table.add_column(no_wrap=True)
        for name, description in _rows(each).items():
            table.add_row(name, description)
        console.print(table)
        console.print()


def _rows(kind: str) -> dict[str, str]:
    if kind == "recipes":
        from trilemma.recipes import headline, packaged

        return {name: headline(text) for name, text in packaged().items()}
    if kind == "data":
        from trilemma.data import SOURCES

        return {**SOURCES, "PATH": "a folder of images (with or without class folders), a .zip, an .npz"}
    if kind == "samplers":
        from trilemma.samplers import SAMPLERS

        return {name: " ".join((kernel.__doc__ or "").split("\n\n")[0].split()) for name, kernel in SAMPLERS.items()}
    from trilemma.metrics import METRICS

    return {name: f"{metric.axis}, {metric.better} is better: {metric.description}" for name, metric in METRICS.items()}
