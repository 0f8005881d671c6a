"""Runs on disk and in memory: opened, built from their recipes, sampled."""

from trilemma.runs.build import example
from trilemma.runs.cascades import Cascade, open_run
from trilemma.runs.run import Run
from trilemma.runs.schedules import schedule_of

__all__ = ["Cascade", "Run", "example", "open_run", "schedule_of"]
