"""Objectives: (denoiser, x0, condition, times, draw) -> one loss an image with named parts."""

from trilemma.objectives.iwdiff import IWDiff
from trilemma.objectives.losses import Losses
from trilemma.objectives.simple import Objective, Simple
from trilemma.objectives.variational import Hybrid, Variational, bits, bound_term, prior_term, read_nll
from trilemma.objectives.vdm import VariationalDiffusion, between
from trilemma.registry import registry

OBJECTIVES = registry("objective")

__all__ = [
    "OBJECTIVES",
    "Hybrid",
    "IWDiff",
    "Losses",
    "Objective",
    "Simple",
    "Variational",
    "VariationalDiffusion",
    "between",
    "bits",
    "bound_term",
    "prior_term",
    "read_nll",
]
