"""The commands that advice on a run comes with."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from trilemma.data.catalogue import available_splits
from trilemma.data.hub import is_hub
from trilemma.data.shards import are_shards
from trilemma.errors import InputError
from trilemma.evaluations.facts import Facts
from trilemma.parts import GIVEN


def train_command(facts: Facts, out: str, settings: Mapping[str, Any], *words: str) -> str:
    """The command that trains the run's recipe into `out`; none where its data or network were given in Python."""
    if GIVEN in (facts.setting("data.name"), facts.setting("network.name")) or not facts.recipe:
        return ""
    given = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    return shlex.join(["trilemma", "train", f"{facts.path}/recipe.yaml", "--out", out, *words, *given])


def run_command(facts: Facts, command: str, *words: str) -> str:
    """A command on the run; on a cascade, as it was measured."""
    spec = facts.models[-1].subject.path if facts.models and "+" in (facts.models[-1].subject.path or "") else None
    if spec is None:
        spec = f"BASE+{facts.path}" if facts.setting("learner.low") else facts.path
    return shlex.join(["trilemma", command, spec, *words])


def unseen(facts: Facts) -> dict[str, Any]:
    """The settings that hold images out of its data: by a split there is, or a share of data without; none where that
    cannot be known from here."""
    name, used = facts.setting("data.name"), facts.setting("data.split") or "train"
    if not isinstance(name, str) or name == GIVEN or is_hub(name) or are_shards(name):
        return {}  # to ask others takes a network
    if facts.setting("data.holdout"):
        return {"data.validation_split": "test"}
    with suppress(InputError):
        splits = [split for split in available_splits(name) if split not in (used, "all")]
        if splits:
            return {"data.validation_split": next((s for s in splits if s.startswith("val")), splits[0])}
        return {"data.holdout": 0.1, "data.validation_split": "test"}
    return {}
