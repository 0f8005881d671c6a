"""The command line: one file a command. Commands parse, call and print; bad input ends in one line and exit code 2."""

from __future__ import annotations

import io
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
from trilemma.errors import InputError, one_line

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
app.command("sample")(sample.sample)
app.command("evaluate")(evaluate.evaluate)
app.command("stats")(stats.stats)
app.add_typer(data.app, name="data")
app.command("schedule")(schedule.schedule)
app.command("network")(network.network)
app.command("nll")(nll.nll)
app.command("gradient-noise")(gradient_noise.gradient_noise)
app.command("invert")(invert.invert)
app.command("interpolate")(invert.interpolate)
app.command("compare")(compare.compare)
app.command("import")(import_.import_)
app.command("export")(export.export)
app.command("report")(report.report)
app.command("demo")(demo.demo)


def main() -> None:
    """The `trilemma` command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # what the terminal has no character for is a question mark
    try:
        app()
    except InputError as error:
        _say(f"error: {error}")
        sys.exit(2)
    except KeyboardInterrupt:
        _say("interrupted; the same command goes on with what is finished")
        sys.exit(130)
    except (OSError, MemoryError, RuntimeError) as error:
        reason = _reason(error)
        if reason is None:
            raise
        _say(f"error: {reason}")
        sys.exit(1 if type(error).__name__ == "DivergedError" else 2)


def _reason(error: Exception) -> str | None:
    """What to say of an error that a path, the memory or the training made; None: it is a defect of ours."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    # torch, whose errors two of these are, takes seconds to import: by name, or by what they say.
    kind, text = type(error).__name__, str(error)
    if isinstance(error, MemoryError) or kind == "OutOfMemoryError" or "can't allocate memory" in text:
        return f"out of memory: {text}"
    return text if kind == "DivergedError" or text.startswith("Symlink loop") else None


def _say(line: str) -> None:
    """Once, whatever the number of processes."""
    if os.environ.get("RANK", "0") == "0":
        text = one_line(line)
        print(text if len(text) <= 1000 else f"{text[:700]} … {text[-300:]}", file=sys.stderr)
