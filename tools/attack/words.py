"""Settings and command lines, drawn by hypothesis from what the package says it takes, and from what nobody expects."""

from __future__ import annotations

import json
import string
from collections.abc import Callable
from typing import Any

import typer
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from trilemma import cli
from trilemma.recipes import load

ODD = [
    *("", " ", "-", "--", "-1", "0", "1", "2", "0.5", "1e300", "-1e300", "1e-320", "nan", "inf", "1e999", "null"),
    *("[]", "{}", "[[]]", "{a: {b: 1}}", "? [1]\n: 2", "[1, 2", "*a", "!!set {a}", "2001-01-01", "0x10", "1_000"),
    *("100000", "1000000", "1000000000000", "9223372036854775808", "9" * 400, "ü∂" * 20, "\udcff", "\x1b[31m"),
    *("'", '"', "%s{}", "x" * 300, "/" * 300, "mine", "/dev/null", "/dev/full", "data.npz", "run", "set.npz"),
]  # fmt: skip
"""Values of no type in particular."""

LEAVES = st.none() | st.booleans() | st.integers(-5, 300) | st.text(string.ascii_letters, max_size=5)
VALUES = st.one_of(
    st.sampled_from(ODD),
    st.integers().map(str),
    st.integers(-2, 64).map(str),
    st.floats().map(str),
    st.text(st.characters(blacklist_characters="\0", blacklist_categories=("Cs",)), max_size=30),
    st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abc"), inner)).map(
        json.dumps
    ),
)

GIVEN: dict[str, list[str]] = {
    "list": ["recipes"],
    "train": ["recipe.yaml", "--out", "new"],
    "sample": ["run", "-n", "2", "--out", "new.npz"],
    "evaluate": ["set.npz", "--reference", "statistics.npz", "--features", "pixels", "--out", "new.json"],
    "stats": ["data.npz", "--out", "new.npz", "--features", "pixels"],
    "data": ["check", "data.npz"],
    "schedule": ["linear", "--picture", "new.png"],
    "network": ["recipe.yaml", "--no-timing"],
    "nll": ["run", "--reference", "data.npz", "-n", "2", "--out", "new.json"],
    "gradient-noise": ["run", "--batches", "2", "--batch", "2", "--out", "new.json"],
    "invert": ["run", "data.npz", "--out", "new.npz", "-n", "2"],
    "interpolate": ["run", "--seeds", "1,2", "--picture", "new.png"],
    "compare": ["evaluation.json", "other.json"],
    "import": ["set.npz", "--out", "new"],
    "export": ["run", "--out", "new"],
    "report": ["evaluation.json", "--out", "new.html"],
}
"""A line of each command that it takes (`import` refuses it); none of `demo`, which trains for minutes."""


def drawn(strategy: st.SearchStrategy[Any], count: int, number: int) -> list[Any]:
    """So many values of a strategy, by a seed."""
    found: list[Any] = []

    @seed(number)
    @settings(max_examples=count, database=None, deadline=None, phases=[Phase.generate],
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(strategy)
    def collect(value: Any) -> None:
        found.append(value)

    collect()
    return found[:count]


def keys(recipe: str) -> list[str]:
    """The settings that a recipe has, as `--set` names them."""
    values = load(recipe).model_dump(mode="json")
    return [
        f"{section}.{key}" if key else section
        for section, inner in values.items()
        for key in (["", *inner] if isinstance(inner, dict) else [""])
    ]


def setting_lines(recipe: str, count: int, number: int) -> list[list[str]]:
    """`train` with one to three settings, one in four of them for good, the others as a dry run."""
    unknown = ["", "x", "training", "training.x", "network.", ".", "a" * 300, "network.levels.0.x", "data.name.x"]
    setting = st.tuples(st.sampled_from([*keys(recipe), *unknown]), VALUES).map("=".join)
    found = drawn(st.lists(setting, min_size=1, max_size=3), count, number)
    return [
        [
            "train",
            "recipe.yaml",
            *(["--out", "new"] if i % 4 == 0 else ["--dry-run"]),
            *(f"--set={each}" for each in one),
        ]
        for i, one in enumerate(found)
    ]


def options(command: str) -> list[str]:
    """The options of a command, hidden ones too."""
    found: Any = typer.main.get_command(cli.app).get_command(None, command)  # type: ignore[attr-defined]
    return [name for parameter in found.params for name in parameter.opts if name.startswith("-")] + ["--help"]


def command_lines(count: int, number: int) -> list[list[str]]:
    """Command lines that are taken, with words dropped, changed and added."""

    @st.composite
    def line(draw: Callable[[Any], Any]) -> list[str]:
        command = draw(st.sampled_from(sorted(GIVEN)))
        words = list(GIVEN[command])
        for _ in range(draw(st.integers(0, 3))):
            what, at = draw(st.sampled_from(["drop", "change", "option", "option", "flag"])), draw(st.integers(0, 9))
            if what == "drop" and words:
                del words[at % len(words)]
            elif what == "change" and words:
                words[at % len(words)] = draw(VALUES)
            else:
                option = draw(st.sampled_from([*options(command), "--plugin", "--no-such"]))
                words += [option, draw(VALUES)] if what == "option" else [option]
        return [draw(st.sampled_from([command] * 20 + ["", "demos", "-x"])), *words]

    return drawn(line(), count, number)
