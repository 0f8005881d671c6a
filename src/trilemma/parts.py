"""Parts as words and as objects: what a recipe says of one, made; an object, in a recipe's words."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Self

from trilemma.errors import InputError, an, unknown
from trilemma.registry import Kind, registry

GIVEN = "own"
"""The name that a saved recipe has for a part that was given as an object and is not registered. It says of what class
the part is, which is never imported: whoever opens the run gives the part again."""


@dataclass(frozen=True)
class Part:
    """What an argument is annotated with that is itself a part of a kind: `Annotated[Any, Part("objective")]`. Recipes
    check it as one; `construct` makes it."""

    kind: Kind


def constructor(kind: Kind, value: Any) -> Any:
    """What makes the part that `value` stands for: registered under a name or the `name` of a mapping; the class of an
    object; None for a part that is to be given again."""
    if not isinstance(value, str | Mapping):
        return type(value)
    return None if named(value) == GIVEN else registry(kind)[named(value)]


def named(value: Any) -> str:
    """The name of a part in words; of an object, its class's."""
    if isinstance(value, Mapping):
        return str(value["name"])
    return value if isinstance(value, str) else type(value).__name__


def construct(kind: Kind, value: Any, *dependencies: Any) -> Any:
    """The part that `value` stands for: its constructor called with the dependencies and its arguments, if it is a name
    or a mapping with `name` and checked arguments; itself, if it is an object already.

    Raises InputError for what a constructor refuses, and for a part that has to be given again."""
    if not isinstance(value, str | Mapping):
        return value
    arguments = {} if isinstance(value, str) else {key: item for key, item in value.items() if key != "name"}
    make = constructor(kind, value)
    if make is None:
        raise InputError(f"{kind} {GIVEN!r}: {arguments.get('of')} was given in Python; there it can be given again")
    try:
        return make(*dependencies, **arguments)
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"{kind} {named(value)!r}: {error}") from error


def make(kind: Kind, value: Any, whose: str, *given: Any, **by_name: Any) -> Any:
    """The part that `value` stands for, as `construct` makes it, of what is given by place or by name. Raises
    InputError for one that is made of other things, saying `whose` it was to be and which would do."""
    constructs = constructor(kind, value)
    if isinstance(value, str | Mapping) and constructs is not None:
        bound = _bound(constructs, given, by_name)
        if bound is None:
            fitting = [name for name, part in registry(kind).registered().items() if _bound(part, given, by_name)]
            raise unknown(f"{kind} of {an(whose)}", named(value), fitting)
        given = bound.args
    return construct(kind, value, *given)


def _bound(constructs: Any, given: Sequence[Any], by_name: Mapping[str, Any]) -> inspect.BoundArguments | None:
    """These arguments in their places, if they are those that a constructor asks for, in its order: a discriminator
    asks for size and classes, a classifier of noised images for classes and size."""
    try:
        bound = inspect.signature(constructs).bind(*given, **by_name)
    except TypeError:
        return None
    return bound if [name for name in bound.arguments if name in by_name] == list(by_name) else None


class Described:
    """Keeps the keyword arguments that it was made with, so that it can be written into a recipe, and prints them."""

    arguments: dict[str, Any]

    def __new__(cls, *dependencies: Any, **arguments: Any) -> Self:
        made = super().__new__(cls)
        object.__setattr__(made, "arguments", arguments)
        return made

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{key}={value!r}' for key, value in self.arguments.items())})"


def described(kind: Kind, part: Any) -> Any:
    """A part as recipes name it: the inverse of `construct`. Names and mappings are left as they are. An object of no
    registered class, or one that does not tell its arguments, is {"name": "own", "of": its class}."""
    if isinstance(part, str | Mapping):
        return part
    known = registry(kind)
    names = [name for name in known if known[name] is type(part)]
    if names and is_dataclass(part):
        return {"name": names[0], **{field.name: getattr(part, field.name) for field in fields(part)}}
    if names and isinstance(part, Described):
        return {"name": names[0], **part.arguments}
    return {"name": GIVEN, "of": f"{type(part).__module__}.{type(part).__qualname__}"}
