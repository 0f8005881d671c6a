"""Samplers: grids of times, starts, kernels that step over a pair of times, and the loop that walks."""

from trilemma.registry import registry
from trilemma.samplers.grids import SPACINGS, check_spacing, cut, explicit, grid
from trilemma.samplers.inversion import encode, slerp
from trilemma.samplers.kernels import DDIM, Ancestral, Clip, Kernel, clipped
from trilemma.samplers.loop import Step, walk
from trilemma.samplers.solvers import DPMSolver, Heun, ProbabilityFlow, UniPC
from trilemma.samplers.starts import noise_start, surrogate_start

SAMPLERS = registry("sampler")

__all__ = [
    "DDIM",
    "SAMPLERS",
    "SPACINGS",
    "Ancestral",
    "Clip",
    "DPMSolver",
    "Heun",
    "Kernel",
    "ProbabilityFlow",
    "Step",
    "UniPC",
    "check_spacing",
    "clipped",
    "cut",
    "encode",
    "explicit",
    "grid",
    "noise_start",
    "slerp",
    "surrogate_start",
    "walk",
]
