"""A sampler with an argument."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from annotated_types import Ge, Le
from torch import Tensor

from trilemma.process import BoundDenoiser, Draw
from trilemma.samplers import DDIM, Kernel


@dataclass(frozen=True, kw_only=True)
class Late(Kernel):
    """DDIM that draws until this `share` of the way is left, and then no more."""

    share: Annotated[float, Ge(0), Le(1)] = 0.5

    def step(
        self, denoiser: BoundDenoiser, x_t: Tensor, t: Tensor, s: Tensor, state: Any, draw: Draw
    ) -> tuple[Tensor, Any]:
        eta = 1.0 if float(t) > self.share * denoiser.schedule.T else 0.0
        return DDIM(clip=self.clip, eta=eta).step(denoiser, x_t, t, s, state, draw)
