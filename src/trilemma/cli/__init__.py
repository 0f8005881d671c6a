"""The command line: one file a command, imported when it is chosen. Commands parse, call and print; bad input ends in
one line and exit code 2."""

from __future__ import annotations

import io
import os
import platform
import sys
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from trilemma import __version__
from trilemma.errors import InputError, one_line, shown
from trilemma.inventory import summary
from trilemma.registry import load_plugin

COMMANDS = {
    "list": "list_.list_",
    "train": "train.train",
    "recipe": "recipe.recipe",
    "sample": "sample.sample",
    "evaluate": "evaluate.evaluate",
    "measure": "measure.measure",
    "sweep": "sweep.sweep",
    "stats": "stats.stats",
    "data": "data.data_",
    "schedule": "schedule.schedule",
    "network": "network.network",
    "nll": "nll.nll",
    "codec": "codec.codec",
    "gradient-noise": "gradient_noise.gradient_noise",
    "invert": "invert.invert",
    "interpolate": "invert.interpolate",
    "compare": "compare.compare",
    "import": "import_.import_",
    "export": "export.export",
    "report": "report.report",
    "demo": "demo.demo",
}
"""The commands in the order of `--help`: which function of which file each is."""

NOT_UTF_8 = f"is not UTF-8, or the locale ({sys.getfilesystemencoding()}) cannot say so: try PYTHONUTF8=1"

PLAIN: dict[str, Any] = {"add_completion": False, "pretty_exceptions_enable": False, "rich_markup_mode": None}


class Commands(TyperGroup):
    """The commands, each imported when it is chosen; `--help` reads what they are from their files."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        module, function = COMMANDS[cmd_name].split(".")
        file = import_module(f"trilemma.cli.{module}")
        found: typer.Typer | None = getattr(file, "app", None)
        if found is None:  # the file is a command, not a group of them
            command, found = getattr(file, function), typer.Typer(**PLAIN)
            found.command(cmd_name, cls=getattr(command, "command_class", TyperCommand))(command)
        return typer.main.get_command(found)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """`--plugin` may stand anywhere, after the command too: it is taken to the front, whose option it is."""
        plugins, rest = [], []
        words = iter(args)
        for word in words:
            if word == "--":
                rest += [word, *words]
            elif word.startswith("--plugin="):
                plugins += [word]
            elif word == "--plugin":
                plugins += [word, *([value] if (value := next(words, None)) is not None else [])]
            else:
                rest += [word]
        return super().parse_args(ctx, [*plugins, *rest])

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, _summary(place)) for name, place in COMMANDS.items()])


def _summary(place: str) -> str:
    """The first sentence of a command's docstring."""
    module, function = place.split(".")
    return summary(Path(__file__).with_name(f"{module}.py"), function).partition(". ")[0].rstrip(".")


app = typer.Typer(name="trilemma", no_args_is_help=True, cls=Commands, **{**PLAIN, "add_completion": True})


def _load(plugins: list[str] | None) -> None:
    for spec in plugins or []:
        load_plugin(spec)


def _version(asked: bool) -> None:
    if asked:
        print(f"trilemma {__version__}, PyTorch {version('torch')}, Python {platform.python_version()}")
        raise typer.Exit


@app.callback()
def trilemma(
    plugin: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE.py|MODULE", callback=_load, help="Whose samplers, metrics, data … can be named; repeatable."
        ),
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_version, help="Say which this is, and end.")
    ] = False,
) -> None:
    """Train, sample, measure and compare diffusion models of images: quality, coverage, speed."""


def main() -> None:
    """The `trilemma` command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # what the terminal has no character for is a question mark
    try:
        for word in sys.argv[1:]:
            _check_word(word)
        app(prog_name="trilemma")
    except InputError as error:
        _say(f"error: {error}")
        sys.exit(2)
    except KeyboardInterrupt:
        _say("interrupted; the same command goes on with what is finished")
        sys.exit(130)
    except (OSError, MemoryError, RuntimeError, UnicodeEncodeError) as error:
        reason = _reason(error)
        if reason is None:
            raise
        _say(f"error: {reason}")
        sys.exit(1 if type(error).__name__ == "DivergedError" else 2)


def _check_word(word: str) -> None:
    """Whatever is named stands in records, which are UTF-8: before anything is made of a name that cannot."""
    try:
        word.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{shown(word)!r} {NOT_UTF_8}") from error


def _reason(error: Exception) -> str | None:
    """What to say of an error that a path, the memory or the training made; None: it is a defect of ours."""
    if isinstance(error, UnicodeEncodeError):
        around = error.object[max(0, error.start - 40) : error.end + 40]  # the folder that all this is in
        return f"{around!r} {NOT_UTF_8}" if "surrogates" in error.reason else None
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
