"""Runs on disk and in memory: opened, built from their recipes, sampled."""

from trilemma.runs.build import example, schedule_of
from trilemma.runs.pictures import Pictures
from trilemma.runs.run import Run
from trilemma.runs.sample_sets import Samples

__all__ = ["Pictures", "Run", "Samples", "example", "schedule_of"]
