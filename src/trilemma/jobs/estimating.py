"""What a training will take, measured on the machine that it will run on, before it is begun."""

from __future__ import annotations

from accelerate import Accelerator

from trilemma.data import ImageSet
from trilemma.jobs.rehearsal import rehearsal
from trilemma.recipes import CompletedRecipe


def seconds_per_step(recipe: CompletedRecipe, data: ImageSet, *, process: Accelerator | None = None) -> float:
    """Seconds that a training step of this recipe takes here: a few steps are made, in some ten seconds at most, and
    nothing is kept of them."""
    with rehearsal(recipe, data, process=process) as training:
        return training.step().seconds
