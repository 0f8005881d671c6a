"""Samplers: grids of times, starts, kernels that step over a pair of times, the loop that walks, and the sampler that
puts them together: images from seeds."""

from trilemma.registry import registry
from trilemma.samplers.grids import SPACINGS, check_spacing, check_t_mid, cut, explicit, grid
from trilemma.samplers.handover import HandOver, hand_over_time, resized
from trilemma.samplers.inversion import encode, slerp
from trilemma.samplers.kernels import DDIM, DYNAMIC_QUANTILE, Ancestral, Clipping, Kernel, clipped, held
from trilemma.samplers.loop import Step, walk
from trilemma.samplers.sampler import Sampler
from trilemma.samplers.samples import Samples, Strip, balanced, check_seeds, paired, seed_words
from trilemma.samplers.solvers import DPMSolver, Heun, ProbabilityFlow, UniPC
from trilemma.samplers.stages import Finished, ImagesOf, Stage
from trilemma.samplers.starts import Surrogate, noise_start, surrogate_start

SAMPLERS = registry("sampler")

__all__ = [
    "DDIM",
    "DYNAMIC_QUANTILE",
    "SAMPLERS",
    "SPACINGS",
    "Ancestral",
    "Clipping",
    "DPMSolver",
    "Finished",
    "HandOver",
    "Heun",
    "ImagesOf",
    "Kernel",
    "ProbabilityFlow",
    "Sampler",
    "Samples",
    "Stage",
    "Step",
    "Strip",
    "Surrogate",
    "UniPC",
    "balanced",
    "check_seeds",
    "check_spacing",
    "check_t_mid",
    "clipped",
    "cut",
    "encode",
    "explicit",
    "grid",
    "hand_over_time",
    "held",
    "noise_start",
    "paired",
    "resized",
    "seed_words",
    "slerp",
    "surrogate_start",
    "walk",
]
