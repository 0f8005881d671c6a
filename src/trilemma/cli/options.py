"""Options that several commands share: those of `sample`, which `evaluate` takes as well."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from trilemma.errors import InputError

Seeds = Annotated[str | None, typer.Option(help="Image seeds, such as 0-999 or 3,7,20-29. Instead of -n.")]
Sampler = Annotated[str | None, typer.Option(help="Sampler (see `trilemma list samplers`); the recipe's unless given.")]
Steps = Annotated[
    int | None, typer.Option(help="Grid intervals, 1 to T; every step unless given here or in the recipe.")
]
Grid = Annotated[str | None, typer.Option(help="Spacing of the grid: even, uniform or quadratic.")]
Eta = Annotated[float | None, typer.Option(help="DDIM's η: 0 deterministic, 1 the posterior's variance.")]
Class = Annotated[
    str | None, typer.Option("--class", help="Class of every image, by number or name; balanced unless given.")
]
Weights = Annotated[str | None, typer.Option(help="ema (averaged) or raw.")]
Batch = Annotated[int | None, typer.Option(help="Images at once in one process. Changes speed, not the images.")]
Precision = Annotated[str | None, typer.Option(help="fp32 or bf16.")]
Clip = Annotated[bool | None, typer.Option(help="Hold x̂_0 in the data's range at every step.")]
Root = Annotated[str | None, typer.Option(help="Where the data's files lie, for data that would be downloaded.")]


def parse_seeds(text: str | None) -> list[int] | None:
    """Seeds from text such as 0-999 or 3,7,20-29. Raises InputError for anything else."""
    if text is None:
        return None
    seeds: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdigit() or (dash and not last.isdigit()) or (dash and int(last) < int(first)):
            raise InputError(f"--seeds {text!r}: expected numbers and ranges, such as 0-999 or 3,7,20-29")
        seeds += range(int(first), int(last if dash else first) + 1)
    return seeds


def settings(**given: Any) -> dict[str, Any]:
    """The sampling settings that were given."""
    return {key: value for key, value in given.items() if value is not None}
