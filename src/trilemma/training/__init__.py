"""Training: batches, learners, the loop, averaged weights and checkpoints."""

from trilemma.training import checkpoint
from trilemma.training.adversarial import AdversarialLearner, DDGANLearner, DDGANSettings, GANLearner, GANSettings
from trilemma.training.autoencoding import AutoencoderLearner, AutoencoderSettings
from trilemma.training.batches import Batch, Batches
from trilemma.training.classifying import (
    Affine,
    ClassifierLearner,
    ClassifierSettings,
    NoisyClassifierLearner,
    NoisyClassifierSettings,
)
from trilemma.training.denoising import DenoisingLearner, DenoisingSettings
from trilemma.training.learners import (
    Given,
    Learner,
    LearnerSettings,
    Loop,
    Losses,
    OneLoss,
    Outcome,
    TimedLearner,
    sampled,
)
from trilemma.training.loop import DivergedError, Report, Trainer
from trilemma.training.pairs import Pairs, check_pairs
from trilemma.training.settings import TrainingSettings
from trilemma.training.vae import VAELearner, VAESettings

__all__ = [
    "AdversarialLearner",
    "Affine",
    "AutoencoderLearner",
    "AutoencoderSettings",
    "Batch",
    "Batches",
    "ClassifierLearner",
    "ClassifierSettings",
    "DDGANLearner",
    "DDGANSettings",
    "DenoisingLearner",
    "DenoisingSettings",
    "DivergedError",
    "GANLearner",
    "GANSettings",
    "Given",
    "Learner",
    "LearnerSettings",
    "Loop",
    "Losses",
    "NoisyClassifierLearner",
    "NoisyClassifierSettings",
    "OneLoss",
    "Outcome",
    "Pairs",
    "Report",
    "TimedLearner",
    "Trainer",
    "TrainingSettings",
    "VAELearner",
    "VAESettings",
    "check_pairs",
    "checkpoint",
    "sampled",
]
