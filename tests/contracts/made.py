"""The registered parts, made as a recipe makes them, small enough to be tried."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import patch

from trilemma.errors import InputError
from trilemma.recipes import component, construct
from trilemma.recipes.components import arguments_model
from trilemma.registry import Kind, registry

SMALL: dict[str, Any] = {
    **{"base_channels": 8, "multipliers": [1, 2], "blocks": 1, "attention": [], "middle_attention": False},
    **{"dropout": 0.0, "start": 4, "widths": [[4], [8]], "pool_head_channels": 8, "channels": 8, "time_width": 16},
    **{"layers": 1, "latent_channels": 2},
}
"""What makes a network small, for those that take it."""


def names(kind: Kind) -> list[str]:
    """The registered names of a kind, sorted."""
    return sorted(registry(kind))


def small(name: str) -> dict[str, Any]:
    """The arguments that make this network small."""
    taken = arguments_model(registry("network")[name]).model_fields
    return {key: value for key, value in SMALL.items() if key in taken}


def make(kind: Kind, name: str, *dependencies: Any, **arguments: Any) -> Any:
    return construct(kind, component(kind, {"name": name, **arguments}, kind), *dependencies)


def all_parts(*kinds: Kind) -> Iterator[tuple[Kind, str]]:
    return ((kind, name) for kind in kinds for name in names(kind))


def at_hand(kind: Kind, open_: Callable[[str], Any]) -> list[str]:
    """The names of a kind that `open_` opens without a download or an argument; it refuses the others in one line."""
    found = []
    with patch("pooch.retrieve", side_effect=OSError("no network here")):
        for name in names(kind):
            try:
                open_(name)
                found.append(name)
            except InputError as error:
                assert "\n" not in str(error) and name in str(error), error  # noqa: PT017
    return found


def unclipped(name: str) -> Any:
    """A sampler's kernel that leaves x̂_0 alone."""
    return make("sampler", name, clip="none")
