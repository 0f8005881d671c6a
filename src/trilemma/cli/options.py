"""Options that several commands share: those of `sample`, which `evaluate` takes as well."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from trilemma.errors import InputError, shown

Seeds = Annotated[str | None, typer.Option(help="Image seeds, such as 0-999 or 3,7,20-29. Instead of -n.")]
Sampler = Annotated[str | None, typer.Option(help="Sampler (see `trilemma list samplers`); the recipe's unless given.")]
Steps = Annotated[
    int | None, typer.Option(help="Grid intervals, 1 to T; every step unless given here or in the recipe.")
]
Spacing = Annotated[
    str | None,
    typer.Option(help="Grid: even, uniform, quadratic, log_snr, karras, or counts by section such as 10,10,15."),
]
Times = Annotated[
    str | None, typer.Option(help="A grid written out, noisiest first: 1000,600,200. Instead of --steps.")
]
Skip = Annotated[int | None, typer.Option(help="Leave so many of the grid's noisiest times out.")]
Order = Annotated[int | None, typer.Option(help="Order of dpmpp (1, 2) or unipc (1 to 3).")]
Stochastic = Annotated[bool | None, typer.Option("--stochastic", help="dpmpp's SDE form.")]
Surrogate = Annotated[
    str | None, typer.Option(help="Begin from these images: module:function, or samples (.npz, folder, zip).")
]
TMid = Annotated[float | None, typer.Option(help="The time that the surrogate's images are noised to.")]
Eta = Annotated[float | None, typer.Option(help="DDIM's η: 0 deterministic, 1 the posterior's variance.")]
Class = Annotated[
    str | None, typer.Option("--class", help="Class of every image, by number or name; balanced unless given.")
]
Weights = Annotated[str | None, typer.Option(help="ema (averaged) or raw.")]
Batch = Annotated[int | None, typer.Option(help="Images at once in one process. Changes speed, not the images.")]
Precision = Annotated[str | None, typer.Option(help="fp32 or bf16.")]
Clip = Annotated[str | None, typer.Option(help="Hold x̂_0 in the data's range: static, dynamic or none.")]
Root = Annotated[str | None, typer.Option(help="Where the data's files lie, for data that would be downloaded.")]

LIMIT = 10_000_000
"""Images in one set."""


def parse_seeds(text: str | None) -> list[int] | None:
    """Seeds from text such as 0-999 or 3,7,20-29. Raises InputError for anything else."""
    if text is None:
        return None
    seeds: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        numbers = [first, last] if dash else [first]
        if not all(n.isascii() and n.isdigit() and len(n) <= 18 for n in numbers) or int(numbers[-1]) < int(first):
            raise InputError(f"--seeds {shown(text)!r}: expected numbers and ranges, such as 0-999 or 3,7,20-29")
        seeds += range(int(first), min(int(numbers[-1]), int(first) + LIMIT) + 1)
        if len(seeds) > LIMIT:
            raise InputError(f"--seeds {shown(text)!r}: more than {LIMIT:,} images in one set; make several")
    return seeds


def settings(times: str | None = None, **given: Any) -> dict[str, Any]:
    """The sampling settings that were given. Raises InputError for times that are not numbers."""
    chosen = {key: value for key, value in given.items() if value is not None}
    if times is not None:
        try:
            chosen["times"] = [float(t) for t in times.split(",")]
        except ValueError as error:
            raise InputError(f"--times {shown(times)!r}: expected numbers with commas between") from error
    return chosen
