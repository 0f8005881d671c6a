"""Components: what a recipe can name. A name stands for a constructor, and the arguments beside the name are the
constructor's keyword-only parameters, checked against its own annotations: there is no second list of them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import is_dataclass
from functools import cache
from typing import Any, TypeVar, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from trilemma.errors import InputError, shown, unknown
from trilemma.networks import ConvClassifier, Growing, RefineNet, UNet
from trilemma.objectives import OBJECTIVES
from trilemma.process import PARAMETERIZATIONS, PRESETS, SCHEDULES, TIME_SAMPLERS
from trilemma.samplers import SAMPLERS

M = TypeVar("M", bound=BaseModel)

NETWORKS: dict[str, Callable[..., Any]] = {
    "unet": UNet,
    "refinenet": RefineNet,
    "growing": Growing,
    "classifier": ConvClassifier,
}

COMPONENTS: dict[str, Mapping[str, Callable[..., Any]]] = {
    "schedule": SCHEDULES,
    "network": NETWORKS,
    "parameterization": PARAMETERIZATIONS,
    "objective": OBJECTIVES,
    "times": TIME_SAMPLERS,
    "sampler": SAMPLERS,
}


class _Arguments(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


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
    return create_model(
        constructor.__name__, __base__=arguments_model(passes_on) if passes_on else _Arguments, **fields
    )


def component(kind: str, value: Any, path: str) -> dict[str, Any]:
    """The named component with all its arguments, checked: {"name": …, argument: value, …}.

    `value` is a name or a mapping with `name`. Raises InputError with `path`, the place in the recipe."""
    known = COMPONENTS[kind]
    value = {"name": value} if isinstance(value, str) else value
    if not isinstance(value, Mapping) or not isinstance(value.get("name"), str):
        raise InputError(f"{path}: {shown(repr(value))} names no {kind}: expected a name or a mapping with `name:`")
    name = value["name"]
    if kind == "schedule" and name in PRESETS:
        value = {**PRESETS[name], **value, "name": name.partition("-")[0]}
        name = value["name"]
    if name not in known:
        raise unknown(f"{path}.name", name, [*known, *(PRESETS if kind == "schedule" else ())])
    model = arguments_model(known[name])
    given = {key: item for key, item in value.items() if key != "name"}
    return {"name": name, **checked(model, given, path).model_dump()}


def construct(kind: str, value: Mapping[str, Any], *dependencies: Any) -> Any:
    """The object a checked component stands for, its constructor called with the dependencies and its arguments."""
    arguments = {key: item for key, item in value.items() if key != "name"}
    try:
        return COMPONENTS[kind][value["name"]](*dependencies, **arguments)
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"{kind} {value['name']!r}: {error}") from error


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
                parent = parent.model_fields[part].annotation if part in getattr(parent, "model_fields", {}) else parent
            inside = where.rpartition(".")[0]
            raise unknown(f"key in {inside}" if inside else "key", first["loc"][-1], parent.model_fields) from None
        if first["type"] == "missing":
            raise InputError(f"{where} is missing") from None
        message = first["msg"].removeprefix("Value error, ")
        got = "" if isinstance(first["input"], dict) else f" (got {shown(repr(first['input']))})"
        raise InputError(f"{where}: {message[:1].lower()}{message[1:]}{got}") from None
