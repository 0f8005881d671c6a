"""The command line: one file a command. Commands parse, call and print; bad input ends in one line and exit code 2."""

from __future__ import annotations

import os
import sys

import typer

from trilemma.cli import (
    compare,
    data,
    demo,
    evaluate,
    export,
    gradient_noise,
    import_,
    invert,
    list_,
    network,
    nll,
    report,
    sample,
    schedule,
    stats,
    train,
)
from trilemma.cli.options import SamplingCommand
from trilemma.errors import InputError

app = typer.Typer(
    name="trilemma",
    help="Train, sample, measure and compare diffusion models of images: quality, coverage, speed.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("list")(list_.list_)
app.command("train")(train.train)
app.command("sample", cls=SamplingCommand)(sample.sample)
app.command("evaluate", cls=SamplingCommand)(evaluate.evaluate)
app.command("stats")(stats.stats)
app.add_typer(data.app, name="data")
app.command("schedule")(schedule.schedule)
app.command("network")(network.network)
app.command("nll", cls=SamplingCommand)(nll.nll)
app.command("gradient-noise")(gradient_noise.gradient_noise)
app.command("invert", cls=SamplingCommand)(invert.invert)
app.command("interpolate", cls=SamplingCommand)(invert.interpolate)
app.command("compare")(compare.compare)
app.command("import")(import_.import_)
app.command("export")(export.export)
app.command("report")(report.report)
app.command("demo")(demo.demo)


def main() -> None:
    """The `trilemma` command."""
    try:
        app()
    except InputError as error:
        _say(f"error: {error}")
        sys.exit(2)
    except KeyboardInterrupt:
        _say("interrupted; the same command goes on with what is finished")
        sys.exit(130)
    except RuntimeError as error:
        if type(error).__name__ != "DivergedError":
            raise
        _say(f"error: {error}")
        sys.exit(1)


def _say(line: str) -> None:
    """Once, whatever the number of processes."""
    if os.environ.get("RANK", "0") == "0":
        print(" ".join(line.split()), file=sys.stderr)
