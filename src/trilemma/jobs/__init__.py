"""Jobs: what a command does that takes a while."""

from trilemma.jobs.choosing import choose
from trilemma.jobs.codecs import codec_report
from trilemma.jobs.demonstration import demo
from trilemma.jobs.dry_run import dry_run
from trilemma.jobs.encodings import interpolate, invert
from trilemma.jobs.fitting import fit
from trilemma.jobs.likelihood import nll
from trilemma.jobs.sweeping import sweep
from trilemma.jobs.training import train
from trilemma.jobs.wanted import recipe_text

__all__ = [
    "choose",
    "codec_report",
    "demo",
    "dry_run",
    "fit",
    "interpolate",
    "invert",
    "nll",
    "recipe_text",
    "sweep",
    "train",
]
