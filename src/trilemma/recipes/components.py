"""Components: what a recipe can name. A name stands for a constructor, and the arguments beside the name are the
constructor's keyword-only parameters, checked against its own annotations: there is no second list of them."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import is_dataclass
from functools import cache
from typing import Any, TypeVar, get_args, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from trilemma.errors import InputError, shown, unknown
from trilemma.parts import GIVEN, Part, construct
from trilemma.registry import Kind, Preset, registry

__all__ = ["arguments_model", "checked", "component", "construct"]

M = TypeVar("M", bound=BaseModel)


class Section(BaseModel):
    """A part of a recipe: unknown keys are refused, numbers are finite, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


@cache
def arguments_model(constructor: Callable[..., Any]) -> type[BaseModel]:
    """A pydantic model of a constructor's keyword-only parameters, and of those of the constructor `passes_on` to which
    it hands what it does not take itself."""
    # A dataclass's annotations are read from its classes, each in its own module; another's from its __init__.
    body = constructor if is_dataclass(constructor) else constructor.__init__
    hints = get_type_hints(body, include_extras=True)
    fields: dict[str, Any] = {
        parameter.name: (hints[parameter.name], parameter.default if parameter.default is not parameter.empty else ...)
        for parameter in inspect.signature(constructor).parameters.values()
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    passes_on = getattr(constructor, "passes_on", None)
    return create_model(constructor.__name__, __base__=arguments_model(passes_on) if passes_on else Section, **fields)


def component(kind: Kind, value: Any, path: str) -> dict[str, Any]:
    """The named component with all its arguments, checked: {"name": …, argument: value, …}. An argument that is
    a `Part` is a named component too, or None where it may be.

    `value` is a name or a mapping with `name`. Raises InputError with `path`, the place in the recipe."""
    known = registry(kind)
    value = {"name": value} if isinstance(value, str) else value
    if not isinstance(value, Mapping) or not isinstance(value.get("name"), str):
        raise InputError(f"{path}: {shown(repr(value))} names no {kind}: expected a name or a mapping with `name:`")
    if value["name"] == GIVEN:
        return {"name": GIVEN, "of": str(value.get("of"))}
    if value["name"] not in known:
        raise known.unknown(value["name"], f"{path}.name")
    if isinstance(part := known[value["name"]], Preset):
        value = {**part.arguments, **value, "name": part.of}
    name = value["name"]
    model = arguments_model(known[name])
    given = {key: item for key, item in value.items() if key != "name"}
    for key, field in model.model_fields.items():
        if isinstance(field.default, tuple):  # as it is read back
            given.setdefault(key, json.loads(json.dumps(field.default)))
        for part in field.metadata:
            chosen = given.get(key, field.default)
            if isinstance(part, Part) and not (chosen is None and field.default is None):
                given[key] = component(part.kind, chosen, f"{path}.{key}")
    return {"name": name, **checked(model, given, path).model_dump()}


def section(values: Any, path: str, bare: str = "name") -> dict[str, Any]:
    """A section's keys and values; a bare word stands for {name: …}. Raises InputError for anything else."""
    values = {bare: values} if isinstance(values, str) else values
    if not isinstance(values, Mapping):
        raise InputError(f"{path}: expected a mapping of keys and values, got {shown(repr(values))}")
    return {str(key): value for key, value in values.items()}


def checked(model: type[M], given: Any, path: str) -> M:
    """The model of these values, or one clear line that names the place, the value and what was expected."""
    try:
        return model.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join([path, *map(str, first["loc"])]).strip(".")
        if first["type"] == "extra_forbidden":
            parent: Any = model
            for part in first["loc"][:-1]:
                held = parent.model_fields[part].annotation if part in getattr(parent, "model_fields", {}) else parent
                parent = next((one for one in get_args(held) if hasattr(one, "model_fields")), held)
            inside = where.rpartition(".")[0]
            raise unknown(f"key in {inside}" if inside else "key", first["loc"][-1], parent.model_fields) from None
        if first["type"] == "missing":
            raise InputError(f"{where} is missing") from None
        message = first["msg"].removeprefix("Value error, ")
        got = "" if isinstance(first["input"], dict) else f" (got {shown(repr(first['input']))})"
        raise InputError(f"{where}: {message[:1].lower()}{message[1:]}{got}") from None
