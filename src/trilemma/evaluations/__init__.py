"""Evaluations: measuring runs and images against a reference, what is recorded of it, and what may be said of it."""

from trilemma.evaluations.evaluating import evaluate, measure
from trilemma.evaluations.record import Evaluation
from trilemma.evaluations.reference import write_statistics

__all__ = ["Evaluation", "evaluate", "measure", "write_statistics"]
