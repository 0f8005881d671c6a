"""Parts as words and as objects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch

from trilemma.errors import InputError
from trilemma.objectives import IWDiff, Simple
from trilemma.parts import construct, described
from trilemma.process import Cosine, Importance, Linear, Tabulated
from trilemma.process.parameterization import EDM, V
from trilemma.recipes import component

SCHEDULE = Cosine(steps=12)


@pytest.mark.parametrize(
    ("kind", "part", "dependencies"),
    [
        ("schedule", Linear(steps=9, beta_end=0.5), ()),
        ("schedule", SCHEDULE, ()),
        ("times", Importance(SCHEDULE, bins=4), (SCHEDULE,)),
        ("objective", IWDiff(k=3, exponent="mean"), ()),
        ("parameterization", EDM(sigma_data=0.3), ()),
        ("parameterization", V(), ()),
    ],
)
def test_a_part_in_words_is_the_same_part(kind: Any, part: Any, dependencies: tuple[Any, ...]) -> None:
    words = component(kind, described(kind, part), kind)
    again = construct(kind, words, *dependencies)
    assert type(again) is type(part) and component(kind, described(kind, again), kind) == words
    assert repr(again).startswith(type(part).__name__)


def test_words_and_objects_are_left_as_they_are() -> None:
    simple = Simple()
    assert construct("objective", simple) is simple
    assert construct("objective", "simple") == simple
    assert described("objective", {"name": "simple"}) == {"name": "simple"} and described("objective", "vlb") == "vlb"


def test_what_is_not_registered_is_to_be_given_again() -> None:
    @dataclass(frozen=True)
    class Mine:
        scale: float = 2.0

    for kind, part in (("objective", Mine()), ("schedule", Tabulated(torch.tensor([0.1, 0.2])))):
        words = component(kind, described(kind, part), kind)
        assert words == {"name": "own", "of": f"{type(part).__module__}.{type(part).__qualname__}"}
        with pytest.raises(InputError, match=rf"{kind} 'own': .*{type(part).__name__} was given in Python"):
            construct(kind, words)
