"""Which size images are trained at, and how a network's patches fit it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

SIDES = (28, 32, 48, 64, 128, 256)
"""The sizes that there are recipes for, and that images of several sizes, or too large ones, are brought to."""

MULTIPLE = 8
"""Sides of images that are no squares are brought to multiples of this, which patches and levels divide."""

ALIKE = 0.05
"""Proportions this close are one; and the share of images that may be enlarged."""

Size = tuple[int, int]


def size_for(sizes: Mapping[Size, int], longest: int) -> tuple[Size, str]:
    """The (height, width) to train images of these sizes at, each with their number, the most frequent first, and why:
    theirs where it is one whose shorter side is up to `longest`; else one of `SIDES` that next to no image is enlarged
    to, in their proportions where all have the same."""
    first = next(iter(sizes))
    if len(sizes) == 1 and min(first) <= longest:
        return first, "all images have it"
    side = _all_but_few(sizes)
    standard = max((s for s in SIDES if s <= min(side, longest)), default=min(side, longest))
    why = f"all are {by(first)}" if len(sizes) == 1 else f"19 of 20 have {side} or more on their shorter side"
    why += f", and beyond {longest} this machine is slow (--size)" if side > longest else ""
    ratios = [height / width for height, width in sizes]
    if max(ratios) - min(ratios) > ALIKE * min(ratios):
        return (standard, standard), f"{why}; cropped to squares"
    if abs(ratios[0] - 1) <= ALIKE:
        return (standard, standard), why
    height, width = (MULTIPLE * max(1, round(standard * s / min(first) / MULTIPLE)) for s in first)
    return (height, width), f"{why}; in their proportions"


def _all_but_few(sizes: Mapping[Size, int]) -> int:
    """The shorter side that all but few images have at least."""
    shorter = Counter[int]()
    for size, count in sizes.items():
        shorter[min(size)] += count
    seen = 0
    for side in sorted(shorter):
        seen += shorter[side]
        if seen > ALIKE * shorter.total():
            break
    return side


def nearest_side(size: Size, sides: Sequence[int]) -> int:
    """The side of the square that has most nearly as many pixels."""
    return min(sides, key=lambda side: abs(math.log(side**2 / math.prod(size))))


def patch_for(patch: int, size: Size) -> int:
    """The divisor of both sides nearest to `patch` that leaves seven patches or more along the shorter one, else 1."""
    if patch == 1:
        return 1
    fitting = [p for p in range(1, 17) if not (size[0] % p or size[1] % p) and min(size) >= 7 * p]
    return min(fitting or [1], key=lambda p: (abs(math.log(p / patch)), p))


def by(size: Size) -> str:
    return f"{size[0]}×{size[1]}"
