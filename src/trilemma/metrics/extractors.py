"""Extractors by name.

An extractor is a part of the kind `features`: a constructor of an `Extractor`. Its positional parameter, if it has one,
is what stands after a colon in its name (`timm:NAME`); `device` is given to those that take one.
"""

from __future__ import annotations

import inspect

import torch

from trilemma.metrics.features import Extractor
from trilemma.registry import registry

Device = str | torch.device

EXTRACTORS = registry("features")


def open_extractor(name: str, *, device: Device = "cpu") -> Extractor:
    """The extractor called `name` (`trilemma list features`), ready on `device`: NAME, or NAME:ARGUMENT for one that
    takes an argument.

    Raises InputError for a name that does not exist, and for weights that cannot be had."""
    kind, _, argument = name.partition(":")
    if name.endswith(":") or not any((":" in form) == (":" in name) for form in _forms(kind)):
        raise EXTRACTORS.unknown(name, "features", [form for each in EXTRACTORS for form in _forms(each)])
    part = EXTRACTORS[kind]
    where = {"device": device} if "device" in inspect.signature(part).parameters else {}
    opened: Extractor = part(*([argument] if argument else []), **where)
    return opened


def _forms(kind: str) -> list[str]:
    """How an extractor's name is written: without an argument, with one, or either way."""
    if kind not in EXTRACTORS:
        return []
    parameters = inspect.signature(EXTRACTORS[kind]).parameters.values()
    taken = next((each for each in parameters if each.kind is each.POSITIONAL_OR_KEYWORD), None)
    if taken is None:
        return [kind]
    with_argument = f"{kind}:{taken.name.upper()}"
    return [with_argument] if taken.default is taken.empty else [kind, with_argument]
