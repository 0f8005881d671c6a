"""trilemma: train, sample, measure and compare diffusion models of images under one protocol.

import trilemma as tl
run = tl.train("mnist-conditional")
run.sample(64, out="digits.npz")
tl.evaluate(run, "mnist:train")
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trilemma.data import open_data
    from trilemma.errors import InputError
    from trilemma.evaluations import evaluate
    from trilemma.jobs import demo, train
    from trilemma.registry import register
    from trilemma.report import build_report
    from trilemma.runs import Run

__version__ = "0.1.0"

__all__ = ["InputError", "Run", "build_report", "demo", "evaluate", "open_data", "register", "train"]

_HOMES = {
    "InputError": ("trilemma.errors", "InputError"),
    "Run": ("trilemma.runs", "Run"),
    "demo": ("trilemma.jobs", "demo"),
    "evaluate": ("trilemma.evaluations", "evaluate"),
    "open_data": ("trilemma.data", "open_data"),
    "register": ("trilemma.registry", "register"),
    "build_report": ("trilemma.report", "build_report"),
    "train": ("trilemma.jobs", "train"),
}


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is: `import trilemma` itself costs nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module 'trilemma' has no attribute {name!r}")
    module, attribute = _HOMES[name]
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
