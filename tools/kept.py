"""Where studies keep what they measured."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from trilemma.evaluations import Evaluation

HOME = Path(__file__).parents[1]


def keep(found: Evaluation, folder: str, name: str, label: str, shown: Iterable[str]) -> Evaluation:
    """A copy under results/, by the name that tables have for it; those of its figures that are `shown` are printed."""
    kept = found.model_copy(update={"label": label})
    kept.write(HOME / "results" / folder / f"{name}.json")
    print(label, json.dumps({key: found.metrics.get(key) for key in shown}), flush=True)
    return kept
