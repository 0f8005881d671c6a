"""What a name stands for: one registry a kind of part, filled by decorators.

    @register("sampler", "euler")
    class Euler(Kernel): ...

The package's own parts register themselves as their rooms are imported. Those of other installed packages are found by
their entry points, in the group `trilemma.KIND`, and imported when they are first named; those of a script or a module
by `load_plugin`. Nothing that a saved file says is ever imported.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from trilemma.errors import InputError, unknown

Kind = Literal[
    "schedule", "parameterization", "objective", "times", "sampler", "network", "block", "metric", "features", "data",
    "learner",
]  # fmt: skip
KINDS: tuple[Kind, ...] = get_args(Kind)

P = TypeVar("P")

OWN = "trilemma"
"""The origin of the package's own parts."""

_loading: ContextVar[str | None] = ContextVar("loading", default=None)


class Registry(Mapping[str, Any]):
    """The parts of one kind by name, in the order they were registered, then those of installed packages. A part of a
    package is imported when it is first looked up, so iterating over the names imports nothing."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self._parts: dict[str, Any] = {}
        self._origins: dict[str, str] = {}
        self._found: dict[str, EntryPoint] | None = None

    def add(self, name: str, part: Any) -> None:
        """Let `name` stand for `part`. Raises InputError where it stands for another one already."""
        origin = _loading.get() or str(getattr(part, "__module__", OWN)).partition(".")[0]
        known = self._origins.get(name)
        if known is not None and (known != origin or known == OWN):
            raise InputError(f"{self.kind} {name!r} of {origin}: the name is taken by {known}; choose another")
        self._parts[name], self._origins[name] = part, origin

    def origin(self, name: str) -> str:
        """Where a part comes from: `trilemma`, an installed package's name, or what was given to `load_plugin`."""
        if name in self._origins:
            return self._origins[name]
        point = self._points()[name]
        return point.dist.name if point.dist is not None else point.module

    def _points(self) -> dict[str, EntryPoint]:
        if self._found is None:
            self._found = {point.name: point for point in entry_points(group=f"trilemma.{self.kind}")}
        return self._found

    def __getitem__(self, name: str) -> Any:
        if name not in self._parts and name in self._points():
            point = self._points()[name]
            with _from(self.origin(name)):
                part = point.load()
                if name not in self._parts:  # importing it may have registered it
                    self.add(name, part)
        return self._parts[name]

    def __contains__(self, name: object) -> bool:
        return name in self._parts or name in self._points()

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys([*self._parts, *self._points()]))

    def __len__(self) -> int:
        return len(list(iter(self)))


_REGISTRIES: dict[Kind, Registry] = {kind: Registry(kind) for kind in KINDS}


def registry(kind: Kind) -> Registry:
    """The registry of a kind. Raises InputError for a kind that there is none of."""
    if kind not in _REGISTRIES:
        raise unknown("kind of part", kind, KINDS)
    return _REGISTRIES[kind]


def register(kind: Kind, name: str) -> Callable[[P], P]:
    """A decorator that lets `name` stand for a part of a kind, in recipes, on the command line and in Python.

    Raises InputError for a kind that does not exist and a name that is taken."""
    chosen = registry(kind)

    def keep(part: P) -> P:
        chosen.add(name, part)
        return part

    return keep


def load_plugin(spec: str) -> None:
    """Import FILE.py or MODULE, whose decorators register its parts; again does nothing. Raises InputError where it
    cannot be imported."""
    path = Path(spec)
    name = f"trilemma_plugin_{path.stem}" if path.suffix == ".py" else spec
    if name in sys.modules:
        return
    with _from(spec):
        try:
            if path.suffix != ".py":
                importlib.import_module(name)
                return
            found = importlib.util.spec_from_file_location(name, path)
            assert found is not None and found.loader is not None
            module = importlib.util.module_from_spec(found)
            sys.modules[name] = module
            found.loader.exec_module(module)
        except InputError:
            sys.modules.pop(name, None)
            raise
        except Exception as error:  # whatever is wrong with a user's own code is said of it
            sys.modules.pop(name, None)
            raise InputError(f"plugin {spec!r} cannot be imported: {type(error).__name__}: {error}") from error


@contextmanager
def _from(origin: str) -> Iterator[None]:
    token = _loading.set(origin)
    try:
        yield
    finally:
        _loading.reset(token)
