"""The device and the processes that this one is of, however it was started."""

from __future__ import annotations

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


def memory_of(device: torch.device) -> int:
    """Bytes of memory that this process may take on a device, taken or not."""
    return int(torch.cuda.mem_get_info(device)[1]) if device.type == "cuda" else memory()
