"""What is refused for want of memory, before anything is built: less where a recipe takes less."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from trilemma.errors import InputError
from trilemma.jobs.dry_run import check_memory
from trilemma.machine import devices
from trilemma.recipes import load
from trilemma.runs.build import completed, open_images


def test_what_takes_less_memory_is_refused_later(
    write_recipe: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fits(there: float, processes: int = 1, **training: Any) -> bool:
        recipe = load(write_recipe(training={"batch": 24, **training}))
        monkeypatch.setattr(devices, "memory", lambda: int(there))
        try:
            check_memory(completed(recipe, open_images(recipe)), torch.device("cpu"), processes)
        except InputError:
            return False
        return True

    assert fits(4.0e6) and not fits(3.0e6)
    for less in ({"recompute": True}, {"micro_batch": 3}, {"micro_batch": "auto"}):
        assert fits(3.0e6, **less), less
    assert fits(1.7e6, 4) and not fits(1.3e6, 4)
    assert fits(1.3e6, 4, shard=True)
