"""`trilemma evaluate`: figures of a run or of samples."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trilemma.cli import options as o
from trilemma.errors import InputError

if TYPE_CHECKING:
    from trilemma.evaluations import Evaluation


@o.sampling()
def evaluate(
    subject: Annotated[
        Path,
        typer.Argument(metavar="RUN|SAMPLES", help="Run, BASE+UPSAMPLER, or samples (.npz, folder, zip)."),
    ],
    reference: Annotated[
        str | None, typer.Option(help="DATA[:SPLIT], or statistics as an .npz; a run's training data unless given.")
    ] = None,
    metrics: o.Metrics = None,
    features: Annotated[str | None, o.FEATURES] = None,
    neighbours: o.Neighbours = 3,
    counts: Annotated[
        str | None, typer.Option(metavar="N,N,…", help="Fréchet distance from so many of the images, each in turn.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Evaluation FILE.json; RUN/evaluations/… unless given.")] = None,
    n: Annotated[
        int | None, typer.Option("-n", help="How many images (seeds 0 to n−1); 1000.", min=1, max=o.LIMIT)
    ] = None,
    seeds: o.Seeds = None,
    class_: o.Class = None,
    samples: Annotated[Path | None, typer.Option(help="Where the samples go: FILE.npz or a folder.")] = None,
    root: o.Root = None,
    label: Annotated[str | None, typer.Option(help="What tables call it.")] = None,
    no_verify: o.NoVerify = False,
    **settings: Any,
) -> None:
    """Measure quality, coverage and speed against a reference. A run is sampled first, by the flags that `sample`
    takes."""
    from trilemma import evaluations
    from trilemma.machine import say

    evaluation = evaluations.evaluate(
        subject,
        reference,
        metrics=o.parse_metrics(metrics),
        features=features,
        neighbours=neighbours,
        counts=parse_counts(counts),
        n=n,
        seeds=o.parse_seeds(seeds),
        cls=class_,
        samples_out=samples,
        out=out,
        root=root,
        label=label,
        verify=not no_verify,
        **settings,
    )
    say(str(evaluation))
    for warning in evaluation.warnings:
        say(f"warning: {warning}")
    if line := _next(subject, evaluation):
        say(line)
    say(f"evaluation: {evaluation.path}")


def _next(subject: Path, evaluation: Evaluation) -> str:
    """The next thing to try with what was measured, if it is a run and its figures ask for anything."""
    from trilemma.report.sources import read_run
    from trilemma.report.verdict import standing_of
    from trilemma.runs.cascades import split_spec

    path = Path(split_spec(subject)[-1])
    if not (path / "recipe.yaml").is_file():
        return ""
    with suppress(InputError):  # another file that cannot be read costs the line, not the evaluation
        run, found = read_run(path)
        others = [one for one in found if one.path != evaluation.path]
        return standing_of(run, [*others, evaluation]).next
    return ""


def parse_counts(text: str | None) -> list[int] | None:
    """The counts in 500,1000,5000. Raises InputError for anything else."""
    if text is None:
        return None
    parts = text.split(",")
    if not all(part.strip().isdecimal() for part in parts):
        raise InputError(f"--counts {text!r}: expected whole numbers with commas between, such as 500,1000,5000")
    return [int(part) for part in parts]
