"""Runs: trained, opened, sampled and measured; here the rooms below are put together."""

from trilemma.runs.demo import demo
from trilemma.runs.dry_run import dry_run
from trilemma.runs.evaluation import evaluate, evaluate_data
from trilemma.runs.pictures import Pictures
from trilemma.runs.progress import say, show, show_rows
from trilemma.runs.reference import write_statistics
from trilemma.runs.run import Run
from trilemma.runs.sampling import Samples
from trilemma.runs.training import train

__all__ = [
    "Pictures",
    "Run",
    "Samples",
    "demo",
    "dry_run",
    "evaluate",
    "evaluate_data",
    "say",
    "show",
    "show_rows",
    "train",
    "write_statistics",
]
