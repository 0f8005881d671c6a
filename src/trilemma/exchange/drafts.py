"""What is read of another library's checkpoint before it is a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from trilemma.errors import InputError
from trilemma.exchange.weights import Layout, Weights


@dataclass(frozen=True)
class Draft:
    """A checkpoint as read: the sections of a recipe it stands for, its weights by their own names, their layout, the
    images' shape (channels, height, width), the count of classes (0: unconditional), where it was, and what of its
    settings, in a line each, the run has not."""

    values: dict[str, Any]
    weights: Weights
    layout: Layout
    shape: tuple[int, int, int]
    classes: int
    where: str
    notes: tuple[str, ...] = ()


def attention_sides(size: tuple[int, int], levels: Sequence[bool], where: str) -> list[int]:
    """The resolutions with attention, as a recipe names them, of those levels that have it, finest first."""
    side, sides = min(size), []
    for _ in levels:
        sides.append(side)
        side = (side + 1) // 2
    chosen = {side for side, attends in zip(sides, levels, strict=True) if attends}
    if chosen & {side for side, attends in zip(sides, levels, strict=True) if not attends}:
        raise InputError(
            f"{where}: of the levels of side {sides} some of the same side have attention and some have not, which is "
            "not supported: is the size right?"
        )
    return sorted(chosen, reverse=True)


def multipliers(widths: Sequence[int], base: int) -> list[int | float]:
    """Channels as multiples of the base: whole numbers where they are."""
    return [width // base if width % base == 0 else width / base for width in widths]
