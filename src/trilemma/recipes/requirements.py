"""What a recipe needs that is not of this package: written down with a run, so that whoever opens it is told. It is
never imported."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from trilemma.errors import InputError
from trilemma.registry import KINDS, OWN, Kind, registry

Requirements = dict[Kind, dict[str, str]]
"""The parts by kind and name, and where each comes from: `plugin FILE.py|MODULE` or `package NAME`."""

_KEYS: dict[str, Kind] = {**{kind: kind for kind in KINDS}, "metrics": "metric"}
"""What stands under these keys of a recipe names parts of these kinds, wherever they stand."""


def required(recipe: Mapping[str, Any]) -> Requirements:
    """What a recipe's values name that plugins and installed packages have registered."""
    found: Requirements = {}
    for kind, name in _named(recipe):
        known = registry(kind)
        if name in known and known.origin(name) != OWN:
            found.setdefault(kind, {})[name] = known.origin(name)
    return found


def expect(requirements: Any) -> None:
    """Have those that are missing here missed by where they came from. Raises InputError for what is no such table."""
    for kind, parts in requirements.items() if isinstance(requirements, Mapping) else [("", requirements)]:
        if kind not in KINDS or not isinstance(parts, Mapping):
            raise InputError(f"requires: {requirements!r}, expected names and where they come from by kind of part")
        for name, origin in parts.items():
            registry(kind).expect(str(name), str(origin))


def _named(values: Mapping[str, Any]) -> Iterator[tuple[Kind, str]]:
    for key, value in values.items():
        for each in value if isinstance(value, list) else [value]:
            name = each.get("name") if isinstance(each, Mapping) else each
            if key in _KEYS and isinstance(name, str):
                yield _KEYS[key], name.partition(":")[0]
            if isinstance(each, Mapping):
                yield from _named(each)
