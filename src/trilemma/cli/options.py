"""Options that several commands share. Those of sampling are read off the settings and the samplers themselves."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import fields
from functools import partial
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import typer
from typer.core import TyperCommand

from trilemma.cli import completing
from trilemma.errors import InputError, shown

if TYPE_CHECKING:
    from trilemma.runs import Run

Seeds = Annotated[str | None, typer.Option(help="Image seeds, such as 0-999 or 3,7,20-29. Instead of -n.")]
Class = Annotated[
    str | None,
    typer.Option("--class", help="Class of the images, by number or name, or several: 0,3,7; balanced unless given."),
]


def _renamed(old: str, new: str) -> Any:
    """An option that is not shown and says what it is called now."""

    def refuse(value: str | None) -> None:
        if value is not None:
            raise InputError(f"{old} {value}: did you mean {new}?")

    return Annotated[str | None, typer.Option(old, hidden=True, callback=refuse)]


Grid = _renamed("--grid", "--picture, a PNG of the samples, or --spacing")
Out = _renamed("--out", "--picture")
Metrics = Annotated[
    str | None,
    typer.Option(
        help="Names with commas between (see `trilemma list metrics`).",
        autocompletion=completing.parts("metric", several=True),
    ),
]
Neighbours = Annotated[int, typer.Option(metavar="K", help="k of precision and recall.")]
FEATURES = typer.Option(
    metavar="NAME",
    help="Feature extractor, NAME or NAME:ARGUMENT (`trilemma list features`); else the best at hand.",
    autocompletion=completing.parts("features"),
)
Root = Annotated[str | None, typer.Option(help="Where the data's files lie, for data that would be downloaded.")]
NoVerify = Annotated[
    bool, typer.Option("--no-verify", help="Do not hold the checkpoint's files against their hashes: quicker to begin.")
]

Base = Annotated[
    str | None,
    typer.Option("--recipe", metavar="NAME", help="For images: the recipe to stand on."),
]
Size = Annotated[str | None, typer.Option(metavar="N|HxW", help="Size that images are cropped and resized to.")]
Time = Annotated[str | None, typer.Option(help="How long training may take, such as 90s, 30m, 2h or 1h30m.")]
Steps = Annotated[int | None, typer.Option(min=1, help="Training steps, instead of --time.")]
Set = Annotated[list[str] | None, typer.Option("--set", help="Override, such as training.steps=1000.")]

LIMIT = 10_000_000
"""Images in one set."""


def parse_seeds(text: str | None) -> list[int] | None:
    """Seeds from text such as 0-999 or 3,7,20-29. Raises InputError for anything else."""
    if text is None:
        return None
    seeds: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        numbers = [first, last] if dash else [first]
        if not all(n.isascii() and n.isdigit() and len(n) <= 18 for n in numbers) or int(numbers[-1]) < int(first):
            raise InputError(f"--seeds {shown(text)!r}: expected numbers and ranges, such as 0-999 or 3,7,20-29")
        seeds += range(int(first), min(int(numbers[-1]), int(first) + LIMIT) + 1)
        if len(seeds) > LIMIT:
            raise InputError(f"--seeds {shown(text)!r}: more than {LIMIT:,} images in one set; make several")
    return seeds


def parse_metrics(text: str | None) -> list[str] | None:
    """The names in kid,recall; blanks around them don't count. Raises InputError where one is empty."""
    if text is None:
        return None
    names = [part.strip() for part in text.split(",")]
    if not all(names):
        raise InputError(f"--metrics {text!r}: expected names with commas between, such as kid,recall")
    return names


def parse_size(text: str | None, option: str = "--size") -> int | tuple[int, int] | None:
    """A side, or (height, width), from text such as 64 or 48x64. Raises InputError, naming the option, for anything
    else."""
    if text is None:
        return None
    sides = text.lower().replace("×", "x").split("x")
    if len(sides) > 2 or not all(side.isascii() and side.isdigit() and len(side) < 9 and int(side) for side in sides):
        raise InputError(f"{option} {shown(text)!r}: expected a side or HEIGHTxWIDTH, such as 64 or 48x64")
    return int(sides[0]) if len(sides) == 1 else (int(sides[0]), int(sides[1]))


def parse_time(text: str | None) -> float | None:
    """Seconds, from text such as 90s, 30m, 2h or 1h30m. Raises InputError for anything else."""
    if text is None:
        return None
    found = re.fullmatch(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?", text.strip().lower())
    seconds = sum(float(n) * unit for n, unit in zip(found.groups(), (3600, 60, 1), strict=True) if n) if found else 0
    if not 0 < seconds < 1e9:
        raise InputError(f"--time {shown(text)!r}: expected hours, minutes, seconds, such as 30m, 2h or 1h30m")
    return seconds


F = TypeVar("F", bound=Callable[..., None])


def sampling(*only: str, several: bool = False) -> Callable[[F], F]:
    """For a command whose last parameter is `**settings`: it gets those sampling settings that are given, named by
    `only` or all. `several`: numbers, names and choices as lists, from values with commas between; a flag has one value
    and so has a setting with commas of its own."""

    def decorate(function: F) -> F:
        own = inspect.signature(function, eval_str=True)
        *stated, _ = own.parameters.values()
        function.__signature__ = own.replace(parameters=stated)  # type: ignore[attr-defined]
        function.sampling, function.several = only, several  # type: ignore[attr-defined]
        function.command_class = SamplingCommand  # type: ignore[attr-defined]
        return function

    return decorate


class SamplingCommand(TyperCommand):
    """A command with `sampling` settings, whose options are made when it is chosen: only then are the samplers, and
    with them torch, imported."""

    def make_context(self, *arguments: Any, **more: Any) -> Any:
        function = inspect.unwrap(self.callback)  # type: ignore[arg-type]
        # A shell that completes asks for names alone, and waits.
        known = completed_options() if more.get("resilient_parsing") else sampling_options(function.several)
        options = {option.name: option for option in known if not function.sampling or option.name in function.sampling}

        def call(**given: Any) -> None:
            settings = {name: given.pop(name) for name in options}
            function(**given, **{name: value for name, value in settings.items() if value is not None})

        stated = inspect.signature(function)
        parameters = [*stated.parameters.values(), *options.values()]
        call.__signature__ = stated.replace(parameters=parameters)  # type: ignore[attr-defined]
        call.__annotations__ = {p.name: p.annotation for p in parameters}
        app = typer.Typer(add_completion=False)
        app.command()(call)
        whole = typer.main.get_command(app)
        self.params, self.callback = whole.params, whole.callback
        return super().make_context(*arguments, **more)


def completed_options() -> Iterator[inspect.Parameter]:
    """The same by name, as a shell that completes has to know them."""
    for name, flag in completing.sampling_names():
        option = typer.Option(autocompletion=completing.parts("sampler") if name == "sampler" else None)
        kind: Any = bool if flag else str
        annotation = Annotated[kind | None, option]
        yield inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def sampling_options(several: bool = False) -> Iterator[inspect.Parameter]:
    """Every sampling setting as a parameter of a command, its help from the setting's or the sampler's own field; with
    `several`, in their comma form where they have one."""
    from trilemma.recipes import SamplingSettings
    from trilemma.runs.companions import Handover
    from trilemma.samplers import SAMPLERS

    option = partial(_option, several=several)
    yield option("surrogate", str, "Begin from these: RUN, RUN@STEP, samples (.npz, folder, zip) or module:function.")
    yield option("t_mid", float, "The time that the surrogate's images are noised to.")
    text = "What a run of lower resolution hands over: x̂_0 at t_mid (mean; unless it walks one step), or its sample."
    yield option("handover", Handover, f"{text} [{', '.join(get_args(Handover))}]")
    yield option("classifier", str, "Guide by this run, a classifier of noised images: RUN or RUN@STEP.")
    yield option("guide", str, "Guide away from this weaker run: RUN or RUN@STEP, or @STEP of the run itself.")
    name: Any = Literal[tuple(SAMPLERS)]
    yield option("sampler", name, "See `trilemma list samplers`; the recipe's unless given.")
    taken: dict[str, dict[str, Any]] = {}
    for name, kernel in SAMPLERS.items():
        hints = get_type_hints(kernel, include_extras=True)
        for field in fields(kernel):
            taken.setdefault(field.name, {})[name] = hints[field.name]
    for key, hints in taken.items():
        kind, _ = _read(next(iter(hints.values())))
        texts = {name: _read(hint)[1] for name, hint in hints.items()}
        shared = len(set(texts.values())) == 1
        words = next(iter(texts.values())) if shared else " ".join(f"{name}: {text}" for name, text in texts.items())
        yield option(key, kind, words if not shared or len(hints) == len(SAMPLERS) else f"{', '.join(hints)}: {words}")
    hints = get_type_hints(SamplingSettings, include_extras=True)
    for key in SamplingSettings.model_fields:
        if key != "kernel":
            yield option(key, *_read(hints[key]))


COMMAS: dict[Any, tuple[str, str]] = {
    int: ("N,N,…", "whole numbers with commas between, such as 10,20"),
    float: ("X,X,…", "numbers with commas between, such as 0,0.5,1"),
    str: ("NAME,NAME,…", "names with commas between"),
}
"""The comma form of a setting, for the help and for who got it wrong."""


def _option(name: str, kind: Any, text: str, *, several: bool) -> inspect.Parameter:
    several = several and (kind in (int, float) or get_origin(kind) is Literal)
    kind = kind if kind in (bool, int, float) else str
    option = typer.Option(help=text)
    if several:
        option = typer.Option(help=text, metavar=COMMAS[kind][0], callback=_listed(name, kind))
        kind = str
    annotation = Annotated[kind | None, option]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _listed(name: str, kind: Any) -> Callable[[str | None], list[Any] | None]:
    """What reads an option's comma form."""

    def read(value: str | None) -> list[Any] | None:
        parts = [part.strip() for part in value.split(",")] if value is not None else []
        try:
            if not all(parts):
                raise ValueError
            return [kind(part) for part in parts] or None
        except ValueError as error:
            option = f"--{name.replace('_', '-')}"
            raise InputError(f"{option} {shown(value)!r}: expected {COMMAS[kind][1]}") from error

    return read


def _read(hint: Any) -> tuple[Any, str]:
    """A field's type, and what its annotation says of it: text, bounds, choices."""
    kind, *notes = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    parts = [part for part in get_args(kind) if part is not NoneType] if get_origin(kind) in (Union, UnionType) else []
    kind = parts[0] if parts else kind
    text = " ".join(note.documentation for note in notes if hasattr(note, "documentation"))
    low, high = (next((getattr(note, end) for note in notes if hasattr(note, end)), None) for end in ("ge", "le"))
    if get_origin(kind) is Literal:
        text += f" [{', '.join(map(str, get_args(kind)))}]"
    elif low is not None:
        text += f" [{low} to {high}]" if high is not None else f" [{low} or more]"
    return kind, text


def following(run: Run) -> str:
    """The command that a run is there for, once it has been trained or imported."""
    return {
        "classifier": f"evaluate SAMPLES --reference DATA:SPLIT --features classifier:{run.path}",
        "noisy_classifier": f"sample MODEL --classifier {run.path} --guidance 1",
        "autoencoder": f"codec {run.path} --reference DATA:SPLIT",
    }.get(run.recipe.learner["name"], f"sample {run.path}")
