"""Runs on disk and in memory: opened, built from their recipes, sampled."""

from trilemma.runs.build import example, schedule_of
from trilemma.runs.run import Run

__all__ = ["Run", "example", "schedule_of"]
