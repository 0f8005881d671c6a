"""`trilemma recipe`: a recipe as text, chosen for images or as packaged."""

from __future__ import annotations

from typing import Annotated

import typer

from trilemma.cli import options as o


def recipe(
    data: Annotated[str, typer.Argument(metavar="DATA|RECIPE", help="Images as `train` takes them, or a recipe's name.")],
    base: o.Base = None,
    size: o.Size = None,
    time: o.Time = None,
    steps: o.Steps = None,
    set_: o.Set = None,
) -> None:
    """Print the recipe that `train` would choose for images, with the reason of each choice, to be edited; or a packaged
    one."""
    from trilemma import jobs

    print(jobs.recipe_text(data, set_ or [], base=base, size=o.parse_size(size), time=o.parse_time(time), steps=steps), end="")
