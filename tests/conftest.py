"""What holds for every test: one thread a process, no window, no network, the same examples each time."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

# Before the first import of torch, here and in the processes that tests start: the suite runs as several processes
# (`make test`), which would fight for the cores with more threads than one each.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "agg")
os.environ["HF_HUB_OFFLINE"] = "1"
# Commands are checked by what they print: without colours, and not folded to the width of whoever's terminal it is.
os.environ["NO_COLOR"] = "1"
os.environ["COLUMNS"] = "160"
os.environ.pop("FORCE_COLOR", None)

import pytest
from hypothesis import settings

# No deadline, since a test machine may be busy; derandomised, since a suite that fails by luck stops being believed.
settings.register_profile("suite", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("suite")


@pytest.fixture
def at_once() -> Iterator[None]:
    """What hangs fails, instead of hanging the suite."""

    def late(*_: object) -> None:
        raise AssertionError("took more than a minute")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)
