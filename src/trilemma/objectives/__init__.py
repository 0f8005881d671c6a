"""Objectives: (denoiser, x0, condition, times, draw) -> one loss an image with named parts."""

from trilemma.objectives.losses import Losses
from trilemma.objectives.simple import OBJECTIVES, Objective, Simple

__all__ = ["OBJECTIVES", "Losses", "Objective", "Simple"]
