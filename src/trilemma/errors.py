"""The one error a user of trilemma is meant to read, and how a name that does not exist is reported."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

MANY = 30


class InputError(ValueError):
    """What the user gave cannot be used. The message names the thing, its value, what was expected and the nearest
    valid choice, in one line. The command line prints it and exits with code 2."""


def unknown(kind: str, name: object, known: Iterable[str]) -> InputError:
    """The error for a name that is not among `known`, with the nearest one that is, and all of them, or, where they are
    many, those most like it."""
    choices = sorted(known)
    near = difflib.get_close_matches(str(name), choices, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    shown = choices if len(choices) <= MANY else difflib.get_close_matches(str(name), choices, n=MANY // 2, cutoff=0.0)
    more = f" and {len(choices) - len(shown)} more" if len(shown) < len(choices) else ""
    return InputError(f"unknown {kind} {str(name)!r}: {hint}(known: {', '.join(shown)}{more})")
