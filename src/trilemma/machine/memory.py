"""How much memory something takes at its peak, and how much there is."""

from __future__ import annotations

import math
import os
import re
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from trilemma.machine.untrusted import memory


def free_memory(device: torch.device) -> int:
    """Bytes of a device's memory that nobody has taken just now; on a CPU, this process's share of them."""
    if device.type == "cuda":
        torch.cuda.empty_cache()  # what tensors of before have left
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        said = Path("/proc/meminfo").read_text(encoding="utf-8")
    except OSError:
        said = ""
    found = re.search(r"^MemAvailable:\s+(\d+) kB$", said, re.MULTILINE)
    free = min(memory(), int(found[1]) * 1024) if found else memory()
    return free // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # processes that torchrun started here


def peak_of(run: Callable[[], Any], device: torch.device) -> float:
    """Bytes that `run` takes at its peak beyond what was taken before; inf where a GPU's memory does not suffice. On a
    GPU what PyTorch reserves, gaps between tensors included; on a CPU the tensors that are alive together, without what
    a computation takes inside."""
    if device.type != "cuda":
        with _Alive() as alive:
            run()
        return alive.peak
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_reserved(device)
    try:
        run()
        torch.cuda.synchronize(device)
    except torch.OutOfMemoryError:
        return math.inf
    return torch.cuda.max_memory_reserved(device) - before


class _Alive(TorchDispatchMode):
    """Counts the bytes of tensors that are made while it is on, for as long as they live."""

    def __init__(self) -> None:
        super().__init__()
        self.now, self.peak = 0, 0
        self._known: dict[weakref.ref[Any], int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self._note((args, kwargs), counted=False)  # what was there before
        result = func(*args, **(kwargs or {}))
        self._note(result, counted=True)
        return result

    def _note(self, values: Any, counted: bool) -> None:
        for value in tree_leaves(values):
            if not isinstance(value, Tensor):
                continue
            storage = value.untyped_storage()
            place = weakref.ref(storage, self._gone)
            if place not in self._known:
                self._known[place] = storage.nbytes() if counted else 0
                self.now += self._known[place]
                self.peak = max(self.peak, self.now)

    def _gone(self, place: weakref.ref[Any]) -> None:
        self.now -= self._known.pop(place, 0)
