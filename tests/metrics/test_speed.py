from __future__ import annotations

import subprocess
import sys

import pytest

from trilemma.errors import InputError
from trilemma.metrics import measure, speed


class Workshop:
    """A clock that only generating moves: the i-th call takes `seconds[i]`."""

    def __init__(self, seconds):
        self.seconds, self.now, self.batches = iter(seconds), 0.0, []

    def generate(self, batch):
        self.batches.append(batch)
        self.now += next(self.seconds)


def test_median_and_spread_leave_out_the_warmup():
    shop = Workshop([100, 50, 2, 4, 1])
    found = measure(shop.generate, batch=8, repeats=3, warmup=2, network_evaluations=10, clock=lambda: shop.now)
    assert shop.batches == [8] * 5
    assert (found.images_per_second, found.slowest, found.fastest) == (4, 2, 8)
    assert found.seconds_per_image == 0.25
    assert (found.batch, found.repeats, found.warmup, found.network_evaluations) == (8, 3, 2, 10)


def test_a_real_clock_runs():
    found = measure(lambda batch: sum(range(1000)), batch=2)
    assert 0 < found.slowest <= found.images_per_second <= found.fastest


def test_the_device_is_awaited_before_each_reading(monkeypatch):
    events = []
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.is_initialized", lambda: True)
    monkeypatch.setattr("torch.cuda.synchronize", lambda: events.append("synchronise"))
    monkeypatch.setattr("torch.cuda.reset_peak_memory_stats", lambda: events.append("reset"))
    monkeypatch.setattr("torch.cuda.max_memory_allocated", lambda: events.append("peak") or 12345)

    def clock():
        events.append("clock")
        return float(len(events))

    found = measure(lambda batch: events.append("generate"), batch=1, repeats=1, warmup=1, clock=clock)
    assert events == ["reset", "generate", "synchronise", "clock", "generate", "synchronise", "clock", "peak"]
    assert (found.peak_memory, found.memory_kind) == (12345, speed.ALLOCATED)


TAKES_96_MIB = """
import numpy as np
from trilemma.metrics.speed import measure
held = np.ones(4 * 2**20)  # 32 MiB that were there before
found = measure(lambda batch: np.ones(12 * 2**20).sum() + held[0], batch=1)  # 96 MiB for a moment
print(found.peak_memory, found.memory_kind)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process its highest size")
def test_peak_memory_is_what_generating_took():
    """In a process of its own: one that has had more memory may serve a batch from what it was given before."""
    done = subprocess.run([sys.executable, "-c", TAKES_96_MIB], capture_output=True, text=True, check=True)
    peak, kind = done.stdout.strip().split(" ", 1)
    assert kind == speed.RESIDENT
    assert 90 * 2**20 < int(peak) < 160 * 2**20


def test_a_system_that_does_not_tell_has_no_peak(monkeypatch):
    monkeypatch.setattr(speed, "resident", lambda key="": None)
    found = measure(lambda batch: None, batch=1, multiply_adds=7)
    assert (found.peak_memory, found.memory_kind, found.multiply_adds) == (None, None, 7)


@pytest.mark.parametrize("bad", [{"batch": 0}, {"batch": 1, "repeats": 0}, {"batch": 1, "warmup": -1}])
def test_bad_counts_are_refused(bad):
    with pytest.raises(InputError, match="expected"):
        measure(lambda batch: None, **bad)
