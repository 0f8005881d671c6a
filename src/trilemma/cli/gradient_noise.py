"""`trilemma gradient-noise`: how noisy an objective's gradient is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def gradient_noise(
    run: Annotated[Path, typer.Argument(help="Run directory.")],
    objectives: Annotated[str, typer.Option(help="Objectives with commas between.")] = "simple,hybrid,vlb",
    times: Annotated[str, typer.Option(help="Time samplers with commas between.")] = "uniform,importance",
    batch: Annotated[int, typer.Option(help="The smaller batch.", min=1)] = 16,
    batches: Annotated[int, typer.Option(help="How many of them; the larger batch is all together.", min=2)] = 64,
    out: Annotated[Path | None, typer.Option(help="FILE.json; RUN/evaluations/gradient-noise/… unless given.")] = None,
) -> None:
    """Measure the simple noise scale tr(Σ)/‖g‖² of a run's model under each objective and time sampler."""
    from trilemma.jobs import gradient_noise as job
    from trilemma.machine import say, show

    found = job.gradient_noise(run, objectives.split(","), times.split(","), batch=batch, batches=batches)
    show(job.noise_table(found))
    say(f"gradient noise: {job.write_noise(run, found, out)}")
