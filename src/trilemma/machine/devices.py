"""The device and the processes that this one is of, however it was started."""

from __future__ import annotations

import ctypes
import gc
import re
import time
from contextlib import suppress
from functools import cache
from pathlib import Path

import torch
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState

from trilemma.machine.untrusted import memory


def process_state() -> PartialState:
    """This process's device, its number and how many there are: alone, or under `torchrun` or `accelerate launch`.
    Without an accelerator the processes speak gloo."""
    return PartialState(cpu=not torch.accelerator.is_available())


def accelerator(precision: str) -> Accelerator:
    """Accelerate for training in fp32 or bf16. Several may follow each other in one Python process, each of its own
    precision."""
    AcceleratorState._reset_state()
    mixed = "no" if precision == "fp32" else precision
    return Accelerator(mixed_precision=mixed, cpu=not torch.accelerator.is_available())


def give_back() -> None:
    """Have garbage collected, and what the allocator keeps of freed memory given back to the system, if it is one that
    can."""
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def free_memory(device: torch.device) -> int:
    """Bytes of a device's memory that nobody has taken just now."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        found = re.search(
            r"^MemAvailable:\s+(\d+) kB$", Path("/proc/meminfo").read_text(encoding="utf-8"), re.MULTILINE
        )
    except OSError:
        found = None
    return min(memory(), int(found[1]) * 1024) if found else memory()


@cache
def faster_in_bf16(device: torch.device) -> bool:
    """Whether matrix products on a device are faster in bf16 than in fp32 by a fifth or more: measured, in some
    milliseconds, as not every processor that can has instructions for it."""

    def seconds(dtype: torch.dtype) -> float:
        a, taken = torch.ones(768, 768, device=device, dtype=dtype), []
        for _ in range(5):
            began = time.perf_counter()
            float((a @ a)[0, 0])  # waits for the device
            taken.append(time.perf_counter() - began)
        return min(taken)

    try:
        return seconds(torch.float32) > 1.2 * seconds(torch.bfloat16)
    except (RuntimeError, TypeError):  # a device that has no bf16
        return False


def memory_of(device: torch.device) -> int:
    """Bytes of memory that this process may take on a device, taken or not."""
    return int(torch.cuda.mem_get_info(device)[1]) if device.type == "cuda" else memory()
