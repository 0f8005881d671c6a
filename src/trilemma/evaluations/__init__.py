"""Evaluations: measuring runs and images against a reference, what is recorded of it, and what may be said of it."""

from trilemma.evaluations.evaluating import evaluate, evaluate_data
from trilemma.evaluations.reference import write_statistics

__all__ = ["evaluate", "evaluate_data", "write_statistics"]
