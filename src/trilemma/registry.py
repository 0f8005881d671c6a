"""What a name stands for: one registry a kind of part, filled by decorators.

    @register("sampler", "euler")
    class Euler(Kernel): ...

A part is a constructor: what a kind hands to it (a schedule, channels and size, a split) comes first, and what a recipe
may say beside its name are its keyword-only parameters. The package's own parts register themselves as their rooms are
imported, which the first look for one sees to. Those of other installed packages are found by their entry points, in
the group `trilemma.KIND`, and imported when they are first named; those of a script or a module by `load_plugin`.
Nothing that a saved file says is ever imported.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from trilemma.errors import InputError, unknown

Kind = Literal[
    "schedule", "parameterization", "objective", "times", "sampler", "network", "block", "metric", "features", "data",
    "learner",
]  # fmt: skip
KINDS: tuple[Kind, ...] = get_args(Kind)

ROOMS: dict[Kind, tuple[str, ...]] = {
    **{"schedule": ("process",), "parameterization": ("process",), "times": ("process",)},
    **{"objective": ("objectives",), "sampler": ("samplers",), "network": ("networks",), "block": ("networks",)},
    **{"metric": ("metrics",), "features": ("metrics", "evaluations"), "data": ("data",), "learner": ("training",)},
}
"""Where the package's own parts of each kind are."""

P = TypeVar("P")

OWN = "trilemma"
"""The origin of the package's own parts."""


class Registry(Mapping[str, Any]):
    """The parts of one kind by name: the package's own and those of plugins in the order they were registered, then
    those of installed packages, which are imported when they are first looked up: iterating over the names imports none
    of them."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self._parts: dict[str, Any] = {}
        self._modules: dict[str, str] = {}
        self._elsewhere: dict[str, str] = {}
        self._complete = False

    def add(self, name: str, part: Any, module: str) -> None:
        """Let `name` stand for `part`, which `module` registers. Raises InputError where it stands for another's."""
        if name in self._parts and (self._modules[name] != module or origin_of(module) == OWN):
            taken, by = self.origin(name), origin_of(module)
            raise InputError(f"{self.kind} {name!r} of {by}: the name is taken by {taken}; choose another")
        self._parts[name], self._modules[name] = part, module

    def origin(self, name: str) -> str:
        """Where a part comes from: `trilemma`, `package NAME`, or `plugin FILE.py|MODULE`."""
        return origin_of(self._modules[name] if name in self._modules else self.points()[name].module)

    def expect(self, name: str, origin: str) -> None:
        """Remember where a part came from that may be missing here: whoever looks for it in vain is told."""
        self._elsewhere[name] = origin

    def unknown(self, name: str, what: str | None = None, known: Iterable[str] | None = None) -> InputError:
        """The error for a name that there is no part of: the name of `what` (unless simply of a kind), and how those
        that there are can be written, if not simply by their names."""
        origin = self._elsewhere.get(name.partition(":")[0])
        if origin is None:
            return unknown(what or self.kind, name, known or self)
        source, _, where = origin.partition(" ")
        remedy = f"add --plugin {where}" if source == "plugin" else f"pip install {where}"
        return InputError(f"{self.kind} {name!r} is not there: it came from {origin}; {remedy}")

    def registered(self) -> dict[str, Any]:
        """The parts that have been imported so far."""
        return dict(self._parts)

    def points(self) -> dict[str, EntryPoint]:
        """The entry points of installed packages."""
        return {point.name: point for point in _entry_points() if point.group == f"trilemma.{self.kind}"}

    def _look(self) -> None:
        """Have the package's own parts register themselves: import every file of their rooms."""
        if not self._complete:
            self._complete = True
            for room in ROOMS[self.kind]:
                package = importlib.import_module(f"trilemma.{room}")
                for file in pkgutil.iter_modules(package.__path__):
                    importlib.import_module(f"trilemma.{room}.{file.name}")

    def __getitem__(self, name: str) -> Any:
        if name not in self:
            raise KeyError(name)
        if name not in self._parts:
            point = self.points()[name]
            try:
                part = point.load()
            except Exception as error:  # whatever is wrong with another's code is said of it
                origin = origin_of(point.module)
                reason = f"{type(error).__name__}: {error}"
                raise InputError(f"{self.kind} {name!r} of {origin} cannot be imported: {reason}") from error
            if name not in self._parts:  # importing it may have registered it
                self.add(name, part, point.module)
        return self._parts[name]

    def __contains__(self, name: object) -> bool:
        if name not in self._parts:
            self._look()
        return name in self._parts or name in self.points()

    def __iter__(self) -> Iterator[str]:
        self._look()
        return iter(dict.fromkeys([*self._parts, *self.points()]))

    def __len__(self) -> int:
        return len(list(iter(self)))


@dataclass(frozen=True)
class Preset:
    """Another part of its kind, `of`, with these arguments, which those given go before."""

    kind: Kind
    of: str
    arguments: Mapping[str, Any]

    def __call__(self, *dependencies: Any, **given: Any) -> Any:
        return registry(self.kind)[self.of](*dependencies, **{**self.arguments, **given})


_REGISTRIES: dict[Kind, Registry] = {kind: Registry(kind) for kind in KINDS}
_PLUGINS: dict[str, str] = {}
"""The modules that `load_plugin` has imported: what was given for each."""


def registry(kind: Kind) -> Registry:
    """The registry of a kind. Raises InputError for a kind that there is none of."""
    if kind not in _REGISTRIES:
        raise unknown("kind of part", kind, KINDS)
    return _REGISTRIES[kind]


def register(kind: Kind, name: str) -> Callable[[P], P]:
    """A decorator that lets `name` stand for a part of a kind, in recipes, on the command line and in Python.

    Raises InputError for a kind that does not exist and a name that is taken."""
    chosen, module = registry(kind), _caller()

    def keep(part: P) -> P:
        # An object that another decorator made may say itself whose it is.
        own = None if isinstance(part, type) else getattr(part, "__dict__", {}).get("__module__")
        chosen.add(name, part, own or module)
        return part

    return keep


def preset(kind: Kind, name: str, of: str, **arguments: Any) -> None:
    """Let `name` stand for the part called `of` with these arguments. Raises InputError as `register` does."""
    registry(kind).add(name, Preset(kind, of, arguments), _caller())


def load_plugin(spec: str) -> None:
    """Import FILE.py or MODULE, whose decorators register its parts; again does nothing. What lies beside the file, or
    in the working directory, can be imported from it. Raises InputError where it cannot be imported."""
    path = Path(spec)
    is_file = path.suffix == ".py"
    module = f"trilemma_plugin_{path.resolve().as_posix().replace('/', '_')[:-3]}" if is_file else spec
    if module in _PLUGINS:
        return
    _PLUGINS[module] = spec
    beside = str(path.resolve().parent if is_file else Path.cwd())
    if beside not in sys.path:
        sys.path.append(beside)
    try:
        if is_file:
            _run_file(module, path)
        else:
            importlib.import_module(module)
    except Exception as error:  # whatever is wrong with a user's own code is said of it
        del _PLUGINS[module]
        if isinstance(error, InputError):
            raise
        raise InputError(f"plugin {spec!r} cannot be imported: {type(error).__name__}: {error}") from error


def _run_file(module: str, path: Path) -> None:
    found = importlib.util.spec_from_file_location(module, path)
    assert found is not None and found.loader is not None
    sys.modules[module] = importlib.util.module_from_spec(found)
    try:
        found.loader.exec_module(sys.modules[module])
    except BaseException:
        del sys.modules[module]
        raise


def origin_of(module: str) -> str:
    """Where the parts come from that a module registers: `trilemma`, `package NAME`, or `plugin FILE.py|MODULE`."""
    package = module.partition(".")[0]
    if package == OWN:
        return OWN
    for name in (module, package):
        if name in _PLUGINS:
            return f"plugin {_PLUGINS[name]}"
    for point in _entry_points():
        if point.module.partition(".")[0] == package and point.dist is not None:
            return f"package {point.dist.name}"
    # A module that a program has imported itself, or the program: `load_plugin` would take either.
    return f"plugin {getattr(sys.modules.get(module), '__file__', None) if module == '__main__' else module}"


@cache
def _entry_points() -> tuple[EntryPoint, ...]:
    """Those of all kinds."""
    return tuple(point for kind in KINDS for point in entry_points(group=f"trilemma.{kind}"))


def _caller() -> str:
    """The name of the module that calls the function that calls this."""
    return str(sys._getframe(2).f_globals.get("__name__", "__main__"))
