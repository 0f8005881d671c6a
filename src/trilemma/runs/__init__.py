"""Runs: trained, opened, sampled and measured; here the rooms below are put together."""

from trilemma.runs.build import example, schedule_of
from trilemma.runs.demo import demo
from trilemma.runs.dry_run import dry_run
from trilemma.runs.encodings import interpolate, invert
from trilemma.runs.evaluation import evaluate, evaluate_data
from trilemma.runs.exchange import export_run, import_run
from trilemma.runs.gradient_noise import gradient_noise, noise_table, write_noise
from trilemma.runs.likelihood import nll
from trilemma.runs.network_costs import (
    Anatomy,
    NetworkCosts,
    Ratios,
    anatomy,
    machine,
    network_costs,
    ratios,
    resolve,
    write_network_costs,
)
from trilemma.runs.pictures import Pictures
from trilemma.runs.progress import say, show, show_rows
from trilemma.runs.reference import write_statistics
from trilemma.runs.run import Run
from trilemma.runs.sampling import Samples
from trilemma.runs.training import train

__all__ = [
    "Anatomy",
    "NetworkCosts",
    "Pictures",
    "Ratios",
    "Run",
    "Samples",
    "anatomy",
    "demo",
    "dry_run",
    "evaluate",
    "evaluate_data",
    "example",
    "export_run",
    "gradient_noise",
    "import_run",
    "interpolate",
    "invert",
    "machine",
    "network_costs",
    "nll",
    "noise_table",
    "ratios",
    "resolve",
    "say",
    "schedule_of",
    "show",
    "show_rows",
    "train",
    "write_network_costs",
    "write_noise",
    "write_statistics",
]
