"""Guidance: what steers a denoiser on the way from noise to image, towards a class or away from a weaker model."""

from trilemma.guidance.guided import GuidedDenoiser, bind
from trilemma.guidance.guides import Autoguidance, ClassifierFree, ClassifierGuidance, Guide, Interval

__all__ = [
    "Autoguidance",
    "ClassifierFree",
    "ClassifierGuidance",
    "Guide",
    "GuidedDenoiser",
    "Interval",
    "bind",
]
