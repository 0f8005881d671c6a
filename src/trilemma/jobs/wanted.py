"""What `train`, `--dry-run` and `recipe` are asked for: a recipe, or images that one is chosen for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from accelerate.utils import broadcast_object_list

from trilemma.errors import InputError
from trilemma.inventory import packaged
from trilemma.jobs.choosing import as_yaml, choose, duration, measured_pace, rounded
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
    return str(name).startswith("hub:") or Path(name).exists() or Path(name).suffix in (".tar", ".zip", ".npz")


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
    more = list(overrides) if steps is None else [*overrides, f"training.steps={steps}"]
    if not is_data(recipe):
        return recipe, _of_recipe(recipe, more, base, size, time if steps is None else None, tell)
    own = None if run is None else run / "recipe.yaml"
    if own is not None and own.exists():
        for name, value in (("--recipe", base), ("--size", size), ("--time", time)):
            if value is not None:
                raise InputError(f"{name}: {own.parent} has begun by its own recipe; --steps N trains it longer")
        return own, more
    # All processes look, as a step takes all of them to be timed; what one has found holds.
    choice = choose(str(recipe), base=base, size=size, time=time, steps=steps, overrides=overrides)
    if process_state().is_main_process:
        for what, why in choice.reasons:
            tell(f"{what}: {why}")
    chosen: list[Any] = [choice.values]
    broadcast_object_list(chosen)
    return chosen[0], list(overrides)


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
    each = measured_pace(load(recipe, overrides))
    steps = rounded(time / each)
    tell(f"steps: {steps:,}: what {duration(time)} allow at {each:.3g} s a step, measured")
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
