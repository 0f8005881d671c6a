"""Training: batches, learners, the loop, averaged weights and checkpoints."""

from trilemma.training import checkpoint
from trilemma.training.batches import Batch, Batches
from trilemma.training.learners import Affine, ClassifierLearner, DenoisingLearner, Learner, Outcome
from trilemma.training.loop import DivergedError, Report, Trainer
from trilemma.training.settings import TrainingSettings

__all__ = [
    "Affine",
    "Batch",
    "Batches",
    "ClassifierLearner",
    "DenoisingLearner",
    "DivergedError",
    "Learner",
    "Outcome",
    "Report",
    "Trainer",
    "TrainingSettings",
    "checkpoint",
]
