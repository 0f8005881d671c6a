"""Recipes and settings that are made to break what reads them: refused in one line, or read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from trilemma.errors import InputError
from trilemma.machine.untrusted import NESTING, RECIPE_LIMIT
from trilemma.recipes import load, packaged
from trilemma.recipes.components import arguments_model
from trilemma.recipes.sampling import SamplingSettings
from trilemma.recipes.schema import DataSettings, EvaluateSettings
from trilemma.registry import Preset, registry
from trilemma.training import TrainingSettings

pytestmark = pytest.mark.usefixtures("at_once")

LAUGHS = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))
FILES = {
    "laughs": (LAUGHS, "values with its aliases written out"),
    "merged laughs": (
        LAUGHS.replace("[x, x]", "{x: x}").replace("[*", "{<<: [*").replace("]\n", "]}\n"),
        "written out",
    ),
    "circle": ("name: &a [*a]", f"deeper than {NESTING}"),
    "brackets": ("network: " + "[" * 100_000, f"deeper than {NESTING}"),
    "braces": ("network: " + "{a: " * 500 + "}" * 500, f"deeper than {NESTING}"),
    "dashes": ("- " * 100_000, f"deeper than {NESTING}"),
    "long": ("#" * (RECIPE_LIMIT + 1), f"more than {RECIPE_LIMIT:,} bytes"),
    "no date": ("name: 2001-99-99", "month"),
    "no number": ("name: !!int x", "invalid literal"),
    "no truth": ("name: !!bool x", "'x'"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_beyond_the_limits_is_refused_at_once(tmp_path: Path, name: str) -> None:
    text, says = FILES[name]
    (tmp_path / "odd.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=says) as caught:
        load(tmp_path / "odd.yaml")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600


@pytest.mark.parametrize("name", ["laughs", "circle", "braces", "no date"])
def test_so_is_an_override(name: str) -> None:
    text, says = FILES[name]
    with pytest.raises(InputError, match=says) as caught:
        load("demo", [f"network={text}"])
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600
    with pytest.raises(InputError, match=f"deeper than {NESTING}"):
        load("demo", [".".join("a" * 100_000) + "=1"])


def test_a_recipe_is_a_file_with_a_name_that_files_have(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(InputError, match="is a named pipe"):
        load(tmp_path / "pipe.yaml")
    for name in ("x" * 300 + ".yaml", "x" * 100_000, "a\0.yaml", "/dev/zero"):
        with pytest.raises(InputError) as caught:
            load(name)
        assert len(str(caught.value)) < 1500


VALUES: list[Any] = [
    *(None, True, -1, 0, 10**30, 1e300, -1e300, float("nan"), float("inf"), -float("inf")),
    *("", "x", "x" * 300, "\0", "é", [], {}, [1], [[1]], [None], {"a": 1}, {1: 2}, {"name": [1]}, {"name": {}}),
]
SECTIONS = {
    "data": DataSettings,
    "training": TrainingSettings,
    "sampling": SamplingSettings,
    "evaluate": EvaluateSettings,
}
PLACES = {"network": "network", "schedule": "schedule", "sampler": "sampling"} | {
    part: f"learner.{part}" for part in ("objective", "times", "parameterization")
}
KEYS = [
    *(
        "",
        "name",
        "base",
        "learner",
        "learner.name",
        "learner.variance",
        "images",
        "source",
        *SECTIONS,
        *PLACES.values(),
    ),
    "sampling.sampler",
    *(f"{place}.name" for place in PLACES.values() if place != "sampling"),
    *(f"{section}.{key}" for section, model in SECTIONS.items() for key in model.model_fields),
]


DEMO = {"name": "demo", **yaml.safe_load(packaged()["demo"])}


def refused_or_read(overrides: list[str]) -> None:
    try:
        load(DEMO, overrides)
    except InputError as error:
        said = str(error)
    else:
        return
    assert "\n" not in said and len(said) < 900, said


@pytest.mark.parametrize("value", VALUES, ids=lambda value: repr(value)[:20])
def test_a_setting_of_any_type_is_refused_in_one_line_or_read(value: Any) -> None:
    text = yaml.safe_dump(value, allow_unicode=True, default_flow_style=True, width=1000).removesuffix("...\n")
    for key in KEYS:
        refused_or_read([f"{key}={text}"])
    for kind, place in PLACES.items():
        for name, made in registry(kind).items():
            if isinstance(made, Preset):
                continue
            for key in arguments_model(made).model_fields:
                refused_or_read(
                    [f"{place}={{{'sampler' if kind == 'sampler' else 'name'}: {name}}}", f"{place}.{key}={text}"]
                )


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("learner.name={}", "names no learner"),
        ("network.name=[1]", "names no network"),
        ("sampling={sampler: [1], eta: 0.5}", "names no sampler"),
        ("training.learning_rate=1e300", "less than or equal to 10000000"),
        ("training.weight_decay=.inf", "finite"),
        ("training.clip_norm=.nan", "training.clip_norm"),
        ("training.steps=1000000000000", "less than or equal to 1000000000"),
        ("training.workers=1000000000", "less than or equal to 1024"),
        ("sampling.steps=1000000000000", "less than or equal to 1000000"),
        ("sampling={times: [.inf, 1]}", "finite"),
        ("data.range=[0, 1e300]", "rising numbers"),
        ("network.norm_eps=.inf", "finite"),
        ("learner.times={name: importance, history: 1000000000000}", "less than or equal to 10000"),
        ("learner.objective={name: iwdiff, k: 1000000000}", "less than or equal to 10000"),
    ],
)
def test_sizes_that_nothing_can_have(override: str, says: str) -> None:
    with pytest.raises(InputError) as caught:
        load("demo", [override])
    assert says in str(caught.value)


def test_packaged_recipes_stay_far_within_the_limits() -> None:
    assert max(map(len, packaged().values())) < RECIPE_LIMIT / 1000
