"""On what something was measured."""

from __future__ import annotations

import platform
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch


@cache
def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def environment(device: torch.device, processes: int = 1) -> dict[str, Any]:
    """Versions, device and hardware, as evaluation files record them."""
    hardware = torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu()
    return {
        "trilemma": version("trilemma"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": device.type,
        "hardware": hardware,
        "threads": torch.get_num_threads(),
        "processes": processes,
    }
