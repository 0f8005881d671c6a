"""Schedules by name, and those of runs."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from torch import nn

from trilemma.errors import InputError, an
from trilemma.parts import construct
from trilemma.process import Schedule
from trilemma.recipes import component, load
from trilemma.training import checkpoint

PREFIX = "schedule."
"""Of a learned schedule's weights in a checkpoint."""


def schedule_of(text: str) -> Schedule:
    """The schedule `NAME` or `NAME,key=value,…`, as recipes name it, or a run's, by its directory: one that is learned
    with its averaged weights, where they are kept. Raises InputError for what names none."""
    if (Path(text) / "recipe.yaml").is_file():
        return _of_run(Path(text))
    name, *rest = text.split(",")
    arguments = dict(part.partition("=")[::2] for part in rest)
    return construct("schedule", component("schedule", {"name": name, **arguments}, f"schedule {name!r}"))


def _of_run(path: Path) -> Schedule:
    """Without its network, which may have to be given again."""
    recipe = load(path / "recipe.yaml")
    if recipe.schedule is None:
        raise InputError(f"{path} has no schedule: {an(recipe.learner['name'])} learner needs none")
    schedule: Schedule = construct("schedule", recipe.schedule)
    if schedule.learned:
        module = cast(nn.Module, schedule)
        folder = checkpoint.latest(path / "checkpoints")
        file = folder / ("ema.safetensors" if recipe.training.ema else "model.safetensors")
        weights = {key: value for key, value in checkpoint.read_tensors(file).items() if key.startswith(PREFIX)}
        own = {PREFIX + key: value for key, value in module.state_dict().items()}
        checkpoint.check_tensors(file, "weight", weights, own)
        module.load_state_dict({key.removeprefix(PREFIX): value for key, value in weights.items()})
    return schedule
