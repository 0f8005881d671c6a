"""`trilemma recipe`: a recipe as text, chosen for images or as packaged."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from trilemma.cli import options as o


def recipe(
    data: Annotated[str, typer.Argument(metavar="DATA|RECIPE", help="Images, or a recipe's name.")],
    base: o.Base = None,
    size: o.Size = None,
    time: o.Time = None,
    steps: o.Steps = None,
    set_: o.Set = None,
) -> None:
    """Print the recipe that `train` would choose for images, each choice with its reason, to be edited; or a packaged
    recipe."""
    from trilemma import jobs

    choice: dict[str, Any] = {"base": base, "size": o.parse_size(size), "time": o.parse_time(time), "steps": steps}
    print(jobs.recipe_text(data, set_ or [], **choice), end="")
