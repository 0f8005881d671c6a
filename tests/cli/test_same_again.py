"""The commands that a report prints under "The same again", run: the same samples to the last byte, by every sampler
and with every argument and setting that images depend on."""

from __future__ import annotations

import html
import json
import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
import yaml

from trilemma.evaluations import evaluate
from trilemma.samplers import SAMPLERS

Command = Callable[..., Any]


def another(hint: Any, default: Any) -> Any:
    """A value that a field can have and that is not its default."""
    kind, *notes = get_args(hint)
    choices = [not default] if kind is bool else list(get_args(kind)) if get_origin(kind) is Literal else []
    choices += [getattr(note, end) for note in notes for end in ("ge", "le") if hasattr(note, end)]
    return next(choice for choice in choices if choice != default)


def ways() -> Iterator[dict[str, Any]]:
    for name, kernel in SAMPLERS.items():
        hints = get_type_hints(kernel, include_extras=True)
        others = {field.name: another(hints[field.name], field.default) for field in fields(kernel)}
        yield {"sampler": name, "steps": 3, **others}
    yield {}
    yield {"spacing": "log_snr", "steps": 4, "skip": 1}
    yield {"skip": 0, "eta": 0.0}
    yield {"spacing": "2,1", "steps": 3}
    yield {"times": [5.5, 3.0, 1.25]}
    yield {"weights": "raw", "precision": "bf16", "cls": "2", "seeds": [4, 9, 2]}


def test_are_the_same_samples(
    command: Command, run: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the run's own settings are."""
    settings = {"sampler": "ddim", "eta": 0.75, "steps": 4, "clip": "none", "skip": 1, "batch": 3}
    monkeypatch.chdir(data.parent)  # a record names data by its file alone
    recipe = run / "recipe.yaml"
    values = yaml.safe_load(recipe.read_text())
    recipe.write_text(yaml.safe_dump({**values, "sampling": settings}))
    only = {"features": "pixels", "metrics": ["frechet_distance"]}
    held = {"surrogate": str(data), "t_mid": 2.5}
    led = {"guidance": 1.5, "guidance_interval": [1.0, 4.0], "guide": "@2"}
    itself = {"surrogate": str(run), "t_mid": 3.0, "handover": "mean"}
    made: dict[str, Path] = {}
    for i, way in enumerate([*ways(), {**held, "sampler": "ddim"}, led, itself]):
        place = tmp_path / f"{i}.npz"
        out = tmp_path / f"{i}.json"
        evaluation = evaluate(run, n=4, samples_out=place, out=out, **{**only, **way})
        assert evaluation.samples.count == len(way.get("seeds", range(4)))
        made[str(out)] = place
    page = tmp_path / "page.html"
    assert command("report", *made, "--out", page).code == 0
    (printed,) = re.findall(r"The same again</h3>\s*<pre>(.*?)</pre>", page.read_text(), re.DOTALL)
    lines = html.unescape(printed).splitlines()
    assert len(lines) == len({*lines}) >= len(made) - 2  # one way may be the recipe's, said twice
    again = {}
    for i, line in enumerate(lines):
        program, *words = shlex.split(line)
        place = tmp_path / f"again-{i}.npz"
        assert program == "trilemma"
        found = command(*words, "--metrics", "frechet_distance", "--samples", place, "--out", tmp_path / "again.json")
        assert found.code == 0, (line, found.err)
        again[place.read_bytes()] = line
    for out, place in made.items():
        assert place.read_bytes() in again, json.loads(Path(out).read_text())["sampler"]
