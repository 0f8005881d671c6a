"""`trilemma measure`: figures of two sets of images, whatever they come from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trilemma.cli import options as o


def measure(
    images: Annotated[
        str, typer.Argument(metavar="IMAGES", help="What is measured: a folder, a zip, an .npz, or DATA[:SPLIT].")
    ],
    reference: Annotated[str, typer.Argument(metavar="REFERENCE", help="The same, or statistics: measured against.")],
    metrics: o.Metrics = None,
    features: Annotated[str | None, o.FEATURES] = None,
    neighbours: o.Neighbours = 3,
    size: o.Size = None,
    out: Annotated[Path | None, typer.Option(help="Evaluation FILE.json to write besides.")] = None,
    root: o.Root = None,
    label: Annotated[str | None, typer.Option(help="What tables call it.")] = None,
) -> None:
    """Measure images against others: no run is needed. Figures come with their standard errors, number of images and
    features."""
    from trilemma import evaluations
    from trilemma.machine import say

    evaluation = evaluations.measure(
        images,
        reference,
        o.parse_metrics(metrics),
        features=features,
        neighbours=neighbours,
        root=root,
        size=o.parse_size(size),
        label=label,
        out=out,
    )
    say(str(evaluation))
    for warning in evaluation.warnings:
        say(f"warning: {warning}")
    if evaluation.path is not None:
        say(f"evaluation: {evaluation.path}")
