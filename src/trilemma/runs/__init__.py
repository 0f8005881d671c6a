"""Runs: trained, opened, sampled and measured; here the rooms below are put together."""

from trilemma.runs.build import example, schedule_of
from trilemma.runs.demo import demo
from trilemma.runs.dry_run import dry_run
from trilemma.runs.encodings import interpolate, invert
from trilemma.runs.evaluation import evaluate, evaluate_data
from trilemma.runs.gradient_noise import gradient_noise, noise_table, write_noise
from trilemma.runs.likelihood import nll
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
    "example",
    "gradient_noise",
    "interpolate",
    "invert",
    "nll",
    "noise_table",
    "say",
    "schedule_of",
    "show",
    "show_rows",
    "train",
    "write_noise",
    "write_statistics",
]
