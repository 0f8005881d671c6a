"""What a shell completes: names of what there is, read without importing it, so that a key press does not wait for
torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from trilemma.inventory import PACKAGE, entries, fields, packaged
from trilemma.registry import Kind

Completer = Callable[[str], list[str]]


def recipes(incomplete: str) -> list[str]:
    """The packaged recipes."""
    return list(packaged())


def parts(kind: Kind, *, several: bool = False) -> Completer:
    """The parts of a kind; with `several`, the last of names with commas between."""

    def complete(incomplete: str) -> list[str]:
        before, comma, _ = incomplete.rpartition(",") if several else ("", "", "")
        return [f"{before}{comma}{entry.name}" for entry in entries(kind)]

    return complete


def sampling_names() -> Iterator[tuple[str, bool]]:
    """Every option of `options.sampling_options`, and whether it is a flag."""
    found = fields(PACKAGE / "runs" / "companions.py", "Companions")
    found |= {"sampler": ""} | {name: text for entry in entries("sampler") for name, text in entry.arguments.items()}
    found |= fields(PACKAGE / "recipes" / "sampling.py", "SamplingSettings")
    yield from ((name, text in ("True", "False")) for name, text in found.items() if name != "kernel")
