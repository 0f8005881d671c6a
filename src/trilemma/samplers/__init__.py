"""Samplers: grids of times, kernels that step over a pair of them, and the loop that walks."""

from trilemma.samplers.grids import SPACINGS, grid
from trilemma.samplers.kernels import DDIM, SAMPLERS, Ancestral, Kernel
from trilemma.samplers.loop import Step, noise_start, walk

__all__ = ["DDIM", "SAMPLERS", "SPACINGS", "Ancestral", "Kernel", "Step", "grid", "noise_start", "walk"]
