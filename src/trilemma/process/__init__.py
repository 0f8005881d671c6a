"""The process: schedules, the pair kernel, parameterisations, denoisers, p(y | x_t), times and the streams of noise."""

from trilemma.process.calling import Call, latent_of
from trilemma.process.codec import Codec
from trilemma.process.continuous import EDM, ContinuousVP
from trilemma.process.denoiser import (
    FIXED,
    UNCONDITIONAL,
    VARIANCES,
    BoundDenoiser,
    Condition,
    Denoiser,
    Prediction,
    Variance,
)
from trilemma.process.gaussian import (
    Pair,
    discretized_nll,
    gaussian_kl,
    gaussian_nll,
    levels_nll,
    over_image,
    pair,
    perturb,
    posterior_mean,
)
from trilemma.process.learned import VDM
from trilemma.process.low import low_condition
from trilemma.process.noise import Draw, stream, stream_seed
from trilemma.process.parameterization import PARAMETERIZATIONS, Parameterization
from trilemma.process.pixels import check_images, image_grid, png, reduced, to_model, to_uint8
from trilemma.process.posterior import ClassPosterior
from trilemma.process.schedules import SCHEDULES, Cosine, Linear, Prior, Schedule, Tabulated
from trilemma.process.times import GOLDEN, TIME_SAMPLERS, Importance, Times, TimeSampler, Uniform, quarters, spread

__all__ = [
    "EDM",
    "FIXED",
    "GOLDEN",
    "PARAMETERIZATIONS",
    "SCHEDULES",
    "TIME_SAMPLERS",
    "UNCONDITIONAL",
    "VARIANCES",
    "VDM",
    "BoundDenoiser",
    "Call",
    "ClassPosterior",
    "Codec",
    "Condition",
    "ContinuousVP",
    "Cosine",
    "Denoiser",
    "Draw",
    "Importance",
    "Linear",
    "Pair",
    "Parameterization",
    "Prediction",
    "Prior",
    "Schedule",
    "Tabulated",
    "TimeSampler",
    "Times",
    "Uniform",
    "Variance",
    "check_images",
    "discretized_nll",
    "gaussian_kl",
    "gaussian_nll",
    "image_grid",
    "latent_of",
    "levels_nll",
    "low_condition",
    "over_image",
    "pair",
    "perturb",
    "png",
    "posterior_mean",
    "quarters",
    "reduced",
    "spread",
    "stream",
    "stream_seed",
    "to_model",
    "to_uint8",
]
