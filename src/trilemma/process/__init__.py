"""The process: schedules, the pair kernel, parameterisations, denoisers, times and the streams of noise."""

from trilemma.process.denoiser import UNCONDITIONAL, VARIANCES, BoundDenoiser, Condition, Denoiser, Prediction, Variance
from trilemma.process.gaussian import Pair, over_image, pair, perturb, posterior_mean
from trilemma.process.noise import Draw, stream, stream_seed
from trilemma.process.parameterization import PARAMETERIZATIONS
from trilemma.process.schedules import SCHEDULES, Cosine, Linear, Schedule, Tabulated
from trilemma.process.times import TIME_SAMPLERS, Times, TimeSampler, Uniform, spread

__all__ = [
    "PARAMETERIZATIONS",
    "SCHEDULES",
    "TIME_SAMPLERS",
    "UNCONDITIONAL",
    "VARIANCES",
    "BoundDenoiser",
    "Condition",
    "Cosine",
    "Denoiser",
    "Draw",
    "Linear",
    "Pair",
    "Prediction",
    "Schedule",
    "Tabulated",
    "TimeSampler",
    "Times",
    "Uniform",
    "Variance",
    "over_image",
    "pair",
    "perturb",
    "posterior_mean",
    "spread",
    "stream",
    "stream_seed",
]
