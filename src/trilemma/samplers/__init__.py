"""Samplers: grids of times, starts, kernels that step over a pair of times, the loop that walks, and the sampler that
puts them together: images from seeds."""

from trilemma.registry import registry
from trilemma.samplers.grids import SPACINGS, check_spacing, cut, explicit, grid
from trilemma.samplers.inversion import encode, slerp
from trilemma.samplers.kernels import DDIM, DYNAMIC_QUANTILE, Ancestral, Clipping, Kernel, clipped, held
from trilemma.samplers.loop import Step, walk
from trilemma.samplers.sampler import Sampler
from trilemma.samplers.samples import Samples, Strip, check_seeds, seed_words
from trilemma.samplers.solvers import DPMSolver, Heun, ProbabilityFlow, UniPC
from trilemma.samplers.stages import Finished, Stage
from trilemma.samplers.starts import Surrogate, SurrogateImages, noise_start, surrogate_start

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
    "Heun",
    "Kernel",
    "ProbabilityFlow",
    "Sampler",
    "Samples",
    "Stage",
    "Step",
    "Strip",
    "Surrogate",
    "SurrogateImages",
    "UniPC",
    "check_seeds",
    "check_spacing",
    "clipped",
    "cut",
    "encode",
    "explicit",
    "grid",
    "held",
    "noise_start",
    "seed_words",
    "slerp",
    "surrogate_start",
    "walk",
]
