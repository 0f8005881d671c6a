"""Objectives: (denoiser, x0, condition, times, draw) -> one loss an image with named parts."""

from collections.abc import Callable

from trilemma.objectives.iwdiff import IWDiff
from trilemma.objectives.losses import Losses
from trilemma.objectives.simple import Objective, Simple
from trilemma.objectives.variational import Hybrid, Variational, bound_term

OBJECTIVES: dict[str, Callable[..., Objective]] = {
    "simple": Simple,
    "vlb": Variational,
    "hybrid": Hybrid,
    "iwdiff": IWDiff,
}

__all__ = ["OBJECTIVES", "Hybrid", "IWDiff", "Losses", "Objective", "Simple", "Variational", "bound_term"]
