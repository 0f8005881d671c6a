"""How fast images are generated, after a warm-up, at a stated batch, and how much memory that takes."""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from trilemma.errors import InputError
from trilemma.machine.devices import give_back

ALLOCATED = "allocated on the GPU, weights included"
RESIDENT = "resident, beyond what the process held before"


@dataclass(frozen=True)
class Speed:
    """`images_per_second`: the median over `repeats` batches of `batch` images; `slowest` and `fastest` of them in the
    same unit. `network_evaluations`: those that one image takes, `multiply_adds`: of the networks for one image, over
    all evaluations; if known. `peak_memory`: bytes at the peak of making a batch, of the kind that `memory_kind` says
    (`ALLOCATED` or `RESIDENT`, which don't compare); None where the system doesn't tell."""

    images_per_second: float
    slowest: float
    fastest: float
    batch: int
    repeats: int
    warmup: int
    network_evaluations: int | None = None
    multiply_adds: int | None = None
    peak_memory: int | None = None
    memory_kind: str | None = None

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
    multiply_adds: int | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Speed:
    """Time `generate(batch)`, which makes `batch` images, `repeats` times after `warmup` untimed ones, and see how much
    memory it takes. The device has finished its work whenever `clock` (seconds) is read. Raises InputError for batch or
    repeats below 1, or warmup below 0."""
    for name, value, least in (("batch", batch, 1), ("repeats", repeats, 1), ("warmup", warmup, 0)):
        if value < least:
            raise InputError(f"speed: {name} is {value}, expected {least} or more")
    memory = peak_memory()
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
    peak, kind = memory()
    return Speed(
        statistics.median(rates), min(rates), max(rates), batch, repeats, warmup,
        network_evaluations, multiply_adds, peak, kind,
    )  # fmt: skip


def peak_memory() -> Callable[[], tuple[int | None, str | None]]:
    """What will say, as often as it is asked, how many bytes of memory are taken at the peak from here on, and of which
    kind (`ALLOCATED` or `RESIDENT`); None where the system doesn't tell."""
    return _on_gpu() if _gpu_in_use() else _in_process()


def _gpu_in_use() -> bool:
    return torch.cuda.is_available() and torch.cuda.is_initialized()


def _synchronise() -> None:
    if _gpu_in_use():
        torch.cuda.synchronize()


def _on_gpu() -> Callable[[], tuple[int | None, str | None]]:
    """What will say how many bytes torch has allocated at most from here on, on the current GPU."""
    torch.cuda.reset_peak_memory_stats()
    return lambda: (int(torch.cuda.max_memory_allocated()), ALLOCATED)


def _in_process() -> Callable[[], tuple[int | None, str | None]]:
    """What will say by how many bytes this process has outgrown its present size at most, as Linux keeps it.

    Before the warm-up, since an allocator keeps the memory of a first batch for the next."""
    give_back()  # or what was freed before would hide what is taken
    before, mark = resident(), resident("VmHWM")
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # the highest size so far is forgotten
        mark = 0
    except OSError:
        pass  # then only a new highest size says something

    def grown() -> tuple[int | None, str | None]:
        highest = resident("VmHWM")
        if before is None or mark is None or highest is None or highest <= mark:
            return None, None
        return max(highest - before, 0), RESIDENT

    return grown


def resident(key: str = "VmRSS") -> int | None:
    """A size of this process in bytes: VmRSS now, VmHWM at its highest; None where there is no such file."""
    try:
        found = re.search(rf"^{key}:\s+(\d+) kB$", Path("/proc/self/status").read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None
