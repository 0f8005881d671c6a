"""Evaluations: measuring runs and images against a reference, what is recorded of it, and what may be said of it."""

from trilemma.evaluations.evaluating import evaluate, measure
from trilemma.evaluations.judge import Judgement, judge
from trilemma.evaluations.record import Evaluation
from trilemma.evaluations.reference import write_statistics

__all__ = ["Evaluation", "Judgement", "evaluate", "judge", "measure", "write_statistics"]
