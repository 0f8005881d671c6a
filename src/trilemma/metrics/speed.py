"""How fast images are generated, after a warm-up, at a stated batch."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from trilemma.errors import InputError


@dataclass(frozen=True)
class Speed:
    """`images_per_second`: the median over `repeats` batches of `batch` images; `slowest` and `fastest` of them in the
    same unit. `network_evaluations`: those that one image takes, if known."""

    images_per_second: float
    slowest: float
    fastest: float
    batch: int
    repeats: int
    warmup: int
    network_evaluations: int | None = None

    @property
    def seconds_per_image(self) -> float:
        return 1 / self.images_per_second


def measure(
    generate: Callable[[int], Any],
    *,
    batch: int,
    repeats: int = 3,
    warmup: int = 1,
    network_evaluations: int | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Speed:
    """Time `generate(batch)`, which makes `batch` images, `repeats` times after `warmup` untimed ones. The device has
    finished its work whenever `clock` (seconds) is read. Raises InputError for batch or repeats below 1, or warmup
    below 0."""
    for name, value, least in (("batch", batch, 1), ("repeats", repeats, 1), ("warmup", warmup, 0)):
        if value < least:
            raise InputError(f"speed: {name} is {value}, expected {least} or more")
    for _ in range(warmup):
        generate(batch)
    rates = []
    for _ in range(repeats):
        _synchronise()
        start = clock()
        generate(batch)
        _synchronise()
        # A clock too coarse for one batch must not end in a division by zero.
        rates.append(batch / max(clock() - start, 1e-9))
    return Speed(statistics.median(rates), min(rates), max(rates), batch, repeats, warmup, network_evaluations)


def _synchronise() -> None:
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()
