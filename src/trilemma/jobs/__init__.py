"""Jobs: what a command does that takes a while."""

from trilemma.jobs.demonstration import demo
from trilemma.jobs.dry_run import dry_run
from trilemma.jobs.encodings import interpolate, invert
from trilemma.jobs.fitting import fit
from trilemma.jobs.gradient_noise import gradient_noise, noise_table, write_noise
from trilemma.jobs.likelihood import nll
from trilemma.jobs.network_costs import (
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
from trilemma.jobs.training import train

__all__ = [
    "Anatomy",
    "NetworkCosts",
    "Ratios",
    "anatomy",
    "demo",
    "dry_run",
    "fit",
    "gradient_noise",
    "interpolate",
    "invert",
    "machine",
    "network_costs",
    "nll",
    "noise_table",
    "ratios",
    "resolve",
    "train",
    "write_network_costs",
    "write_noise",
]
