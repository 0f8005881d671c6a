"""The device and the processes that this one is of, however it was started."""

from __future__ import annotations

import torch
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState


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
