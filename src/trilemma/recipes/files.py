"""Recipes as files: the packaged ones by name, any other by path; overrides; writing one down."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

from trilemma.errors import InputError, shown, unknown
from trilemma.inventory import VARIANTS, packaged, variants
from trilemma.machine.untrusted import NESTING, RECIPE_LIMIT, kind_of, parse_yaml, read_text
from trilemma.recipes.sampling import renamed
from trilemma.recipes.schema import Recipe, parse


def load(recipe: str | Path | Mapping[str, Any], overrides: Sequence[str] = ()) -> Recipe:
    """The recipe of this name or file, or of these values, with `a.b=VALUE` overrides (VALUE in YAML) put over it,
    checked and completed.

    Raises InputError for an unknown name, a file that is not YAML or beyond its limits, an override of a key that does
    not exist."""
    values = _current(deepcopy(dict(recipe))) if isinstance(recipe, Mapping) else values_of(recipe)
    if isinstance(values.get("sampling"), str):
        values["sampling"] = {"sampler": values["sampling"]}
    for override in overrides:
        put(values, override)
        if re.match(r"\s*network\b", override):
            values.pop("source", None)  # it printed figures of another network
    return parse(values)


def values_of(recipe: str | Path) -> dict[str, Any]:
    """What the YAML of a recipe, by name or file, says, put over what its `base:` says, if it names one: a packaged
    recipe, or several and variants (`variants/NAME`), each put over those before it. Raises InputError as `load`
    does."""
    text = packaged().get(str(recipe))
    if text is None:
        path = Path(recipe)
        if path.suffix not in (".yaml", ".yml") or kind_of(path) != "file":
            raise unknown("recipe", recipe, packaged())
        text = _text(path)
    values = _yaml(text, str(recipe))
    if not isinstance(values, dict):
        raise InputError(f"recipe {recipe}: expected a mapping of sections, got {type(values).__name__}")
    _current(values).setdefault("name", Path(recipe).stem)
    under: dict[str, Any] = {}
    base = values.pop("base", [])
    for each in base if isinstance(base, list) else [base]:
        under = _put_over(under, _part(each))
    under.pop("source", None)  # printed of the base, not of what stands on it
    return _put_over(under, values)


def _put_over(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """A recipe with another put over it, section by section."""
    return {**base, **{key: _merged(base.get(key), value) for key, value in over.items()}}


def _part(base: Any) -> dict[str, Any]:
    """What a packaged recipe says, or a variant."""
    folder, slash, name = str(base).partition("/")
    if slash and folder == VARIANTS and name in variants():
        values: dict[str, Any] = yaml.safe_load(variants()[name])
        values.pop("recipes", None)
        return values
    if not isinstance(base, str) or base not in packaged():
        raise unknown("recipe", base, [*packaged(), *(f"{VARIANTS}/{name}" for name in variants())])
    return values_of(base)


def _current(values: dict[str, Any]) -> dict[str, Any]:
    """A recipe's values with its sampling section under today's names."""
    if isinstance(values.get("sampling"), dict):
        values["sampling"] = renamed(values["sampling"])
    return values


def _text(path: Path) -> str:
    try:
        return read_text(path, RECIPE_LIMIT)
    except ValueError as error:
        raise InputError(f"recipe {path} cannot be read as text: {error}") from error


def _merged(base: Any, over: Any) -> Any:
    """A section with another put over it, key by key. A component of another name keeps none of the base's
    arguments."""
    if not isinstance(base, dict) or not isinstance(over, dict):
        return over
    if any(key in over and over[key] != base.get(key) for key in ("name", "sampler")):
        return over
    return {**base, **{key: _merged(base.get(key), value) for key, value in over.items()}}


def _yaml(text: str, where: str) -> Any:
    try:
        return parse_yaml(text)
    except ValueError as error:
        raise InputError(f"{where} is not YAML that can be read: {error}") from error


def put(values: dict[str, Any], override: str) -> None:
    """Put `a.b=VALUE` into nested values. Sections written as a bare name (`schedule: cosine`) become {name: …}. Raises
    InputError for what is no such override."""
    key, equals, value = override.partition("=")
    where = f"--set {shown(override)!r}"
    if not equals or not key.strip():
        raise InputError(f"{where}: expected KEY=VALUE, such as training.steps=1000")
    *path, last = key.strip().split(".")
    if len(path) > NESTING:
        raise InputError(f"{where}: nested deeper than {NESTING} levels")
    place = values
    for part in path:
        inner = place.get(part)
        place[part] = inner = {"name": inner} if isinstance(inner, str) else {} if inner is None else inner
        if not isinstance(inner, dict):
            raise InputError(f"{where}: {part!r} holds {shown(repr(inner))}, which has no keys")
        place = inner
    place[last] = _number(_yaml(value, where))


def _number(value: Any) -> Any:
    """YAML 1.1 reads 1e-4 (no dot) as a string; people write it."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def dump(recipe: Recipe) -> str:
    """The recipe as YAML, complete: what `load` reads back to the same recipe."""
    values = recipe.model_dump(mode="json")
    if not recipe.requires:
        del values["requires"]
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=120)
