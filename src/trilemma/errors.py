"""The one error a user of trilemma is meant to read, and how names that do not exist, and values, are shown in it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

MANY = 30

SHOWN = 120
"""Characters of a value that a message shows."""


class InputError(ValueError):
    """What the user gave cannot be used. The message names the thing, its value, what was expected and the nearest
    valid choice, in one line. The command line prints it and exits with code 2."""


def unknown(kind: str, name: object, known: Iterable[str]) -> InputError:
    """The error for a name that is not among `known`, with the nearest one that is, and all of them, or, where they are
    many, those most like it."""
    choices, text = sorted(known), str(name)[: SHOWN + 1]  # a long name takes long to compare
    near = difflib.get_close_matches(text, choices, n=1, cutoff=0.5)
    hint = f": did you mean {near[0]!r}?" if near else ""
    some = choices if len(choices) <= MANY else difflib.get_close_matches(text, choices, n=MANY // 2, cutoff=0.0)
    more = f" and {len(choices) - len(some)} more" if len(some) < len(choices) else ""
    return InputError(f"unknown {kind} {shown(text)!r}{hint} (known: {', '.join(some)}{more})")


def shown(value: object) -> str:
    """A value as a message shows it: cut where it is long."""
    text = str(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def an(name: str) -> str:
    """The name after the article that it takes: a gan, an autoencoder."""
    return f"{'an' if name[:1] in tuple('aeiou') else 'a'} {name}"


def one_line(text: str) -> str:
    """A text in one line, without the characters by which a file's name could steer the terminal."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in " ".join(text.split()))
