"""What an objective gives: one loss an image, with named parts that add up to it."""

from __future__ import annotations

from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Losses:
    """`total` [n], one loss an image; `parts`: name -> [n], which sum to it. Means over a pixel's squared error."""

    total: Float[Tensor, "n"]
    parts: dict[str, Float[Tensor, "n"]] = field(default_factory=dict)
