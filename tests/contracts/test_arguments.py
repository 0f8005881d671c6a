"""What holds for the arguments of every part that a recipe names, whatever it is."""

from __future__ import annotations

from typing import Any

import annotated_types
import pytest
import yaml

from tests.contracts.made import all_parts
from trilemma.errors import InputError
from trilemma.recipes import component
from trilemma.recipes.components import arguments_model
from trilemma.registry import Kind, Preset, registry

PARTS = list(all_parts("schedule", "parameterization", "objective", "times", "sampler", "network"))


def bounded(kind: Kind, name: str) -> list[tuple[str, Any]]:
    """Every argument of a part that has a bound, with a value just outside it."""
    part = registry(kind)[name]
    model = arguments_model(registry(kind)[part.of] if isinstance(part, Preset) else part)
    outside = []
    for key, field in model.model_fields.items():
        for bound in field.metadata:
            match bound:
                case annotated_types.Ge(limit):
                    outside.append((key, limit - 1))
                case annotated_types.Le(limit):
                    outside.append((key, limit + 1))
                case annotated_types.Gt(limit) | annotated_types.Lt(limit):
                    outside.append((key, limit))
    return outside


@pytest.mark.parametrize(("kind", "name"), PARTS)
class TestArguments:
    def test_are_complete_and_go_through_yaml(self, kind: Kind, name: str) -> None:
        whole = plain(component(kind, name, kind))
        again = component(kind, yaml.safe_load(yaml.safe_dump(whole)), kind)
        assert plain(again) == whole

    def test_unknown_ones_are_refused_with_their_place(self, kind: Kind, name: str) -> None:
        with pytest.raises(InputError, match=r"unknown key in here\.it 'no_such'"):
            component(kind, {"name": name, "no_such": 1}, "here.it")

    def test_values_out_of_range_are_refused_with_their_place(self, kind: Kind, name: str) -> None:
        for key, value in bounded(kind, name):
            with pytest.raises(InputError, match=rf"^here\.it\.{key}.*: .*\(got {value}"):
                component(kind, {"name": name, key: value}, "here.it")


def plain(value: Any) -> Any:
    """As a recipe is written: tuples as lists, objects as mappings."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


@pytest.mark.parametrize("kind", sorted({kind for kind, _ in PARTS}))
def test_an_unknown_name_is_refused_with_the_nearest(kind: Kind) -> None:
    name = next(iter(registry(kind)))
    with pytest.raises(InputError, match=rf"unknown here\.it\.name '{name}x': did you mean '{name}'\?"):
        component(kind, name + "x", "here.it")
