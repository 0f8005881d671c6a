"""What `train`, `--dry-run` and `recipe` are asked for: a recipe, or images that one is chosen for."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from accelerate.utils import broadcast_object_list

from trilemma.data import SOURCES
from trilemma.errors import InputError, unknown
from trilemma.inventory import packaged
from trilemma.jobs.choosing import EVERY, as_yaml, choose, duration, measured_pace, rounded, values_of_steps
from trilemma.machine.devices import process_state
from trilemma.machine.progress import say
from trilemma.recipes import load, put, values_of

Size = int | tuple[int, int] | None
Named = str | Path | Mapping[str, Any]
"""A recipe by name or file, images by path, or a recipe's values."""


def is_data(name: Named) -> bool:
    """Whether images are named, and no recipe: a path that is no YAML, or data of the hub. A packaged recipe wins over
    a folder called like it; write `./demo` for the folder."""
    if isinstance(name, Mapping) or str(name) in packaged() or Path(name).suffix in (".yaml", ".yml"):
        return False
    known = str(name).startswith("hub:") or str(name) in SOURCES
    return known or Path(name).exists() or Path(name).suffix in (".tar", ".zip", ".npz")


def wanted(
    recipe: Named,
    overrides: Sequence[str] = (),
    *,
    run: Path | None = None,
    base: str | None = None,
    size: Size = None,
    time: float | None = None,
    steps: int | None = None,
    tell: Callable[[str], None] = say,
) -> tuple[Named, list[str]]:
    """The recipe to train and the overrides to put over it. Of images that which is chosen for them (see `choose`), and
    told, the same in all processes; or where `run`, of theirs, has begun, its own. Raises InputError."""
    if steps is not None and time is not None:
        raise InputError(f"--steps {steps} and --time: expected one of them")
    more = list(overrides) if steps is None else [*overrides, f"training.steps={steps}"]
    if not is_data(recipe):
        _check_there(recipe)
        return recipe, _of_recipe(recipe, more, base, size, time, tell)
    if run is not None and (run / "recipe.yaml").exists():
        for name, value in (("--recipe", base), ("--size", size), ("--time", time)):
            if value is not None:
                raise InputError(f"{name}: {run} has begun by its own recipe; --steps N trains it longer")
        return run / "recipe.yaml", [*_longer(run, str(recipe), steps), *more]
    # All processes look, as a step takes all of them to be timed; what one has found holds.
    choice = choose(str(recipe), base=base, size=size, time=time, steps=steps, overrides=overrides)
    if process_state().is_main_process:
        for what, why in choice.reasons:
            tell(f"{what}: {why}")
    chosen: list[Any] = [choice.values]
    broadcast_object_list(chosen)
    return chosen[0], []


def _check_there(recipe: Named) -> None:
    """Raise InputError for a name of nothing: neither a recipe nor images."""
    if isinstance(recipe, Mapping) or str(recipe) in packaged() or Path(recipe).suffix in (".yaml", ".yml"):
        return
    raise InputError(f"{unknown('recipe', recipe, packaged())}; nor is there a file or folder of that name here")


def _longer(run: Path, data: str, steps: int | None) -> list[str]:
    """What goes by the steps of a run of these images, for more of them. Raises InputError for a run of others."""
    own = load(run / "recipe.yaml")
    if os.path.realpath(own.data.name) != os.path.realpath(data):
        raise InputError(f"{run} holds a run of {own.data.name}, not of {data}: choose another --out")
    if steps is None or steps <= own.training.steps:
        return []
    had = own.training.model_dump()
    fits = values_of_steps({**had, **{f"{what}_every": steps for what in EVERY if had[f"{what}_every"]}}, steps)
    if fits["ema"] > had["ema"] and steps > 4 * own.training.steps:
        say(
            f"warning: the average's decay {had['ema']:g} was chosen for {own.training.steps:,} steps: begun anew, "
            f"{steps:,} steps would have {fits['ema']:g}"
        )
    return [f"training.{key}={value}" for key, value in fits.items() if key.endswith("_every")]


def _of_recipe(
    recipe: Named,
    overrides: list[str],
    base: str | None,
    size: Size,
    time: float | None,
    tell: Callable[[str], None],
) -> list[str]:
    """The overrides by which a recipe has this size, and takes this time."""
    if base is not None:
        raise InputError(f"--recipe {base}: {recipe} is a recipe itself, expected images, such as a folder")
    if size is not None:
        overrides = [*overrides, f"data.size={size if isinstance(size, int) else list(size)}"]
    if time is None:
        return overrides
    found = measured_pace(load(recipe, overrides))
    steps = rounded((time - found.besides) / found.step)
    tell(f"steps: {steps:,}: what {duration(time)} allow at {found}, measured")
    return [*overrides, f"training.steps={steps}"]


def recipe_text(recipe: str, overrides: Sequence[str] = (), **choice: Any) -> str:
    """A recipe to edit, as YAML: that which is chosen for images, `choice` as `choose` takes it, or a packaged one with
    its bases put into it. Raises InputError."""
    if is_data(recipe):
        return choose(recipe, overrides=overrides, **choice).text()
    name, overrides = wanted(recipe, overrides, **choice)
    values = values_of(str(name))
    for override in overrides:
        put(values, override)
    load(values)
    return as_yaml(values)
