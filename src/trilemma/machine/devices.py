"""The device and the processes that this one is of, however it was started."""

from __future__ import annotations

import re
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


def memory_of(device: torch.device) -> int:
    """Bytes of memory that this process may take on a device, taken or not."""
    return int(torch.cuda.mem_get_info(device)[1]) if device.type == "cuda" else memory()
