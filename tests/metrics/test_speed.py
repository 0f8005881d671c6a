from __future__ import annotations

import pytest

from trilemma.errors import InputError
from trilemma.metrics import measure


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

    def clock():
        events.append("clock")
        return float(len(events))

    measure(lambda batch: events.append("generate"), batch=1, repeats=1, warmup=1, clock=clock)
    assert events == ["generate", "synchronise", "clock", "generate", "synchronise", "clock"]


@pytest.mark.parametrize("bad", [{"batch": 0}, {"batch": 1, "repeats": 0}, {"batch": 1, "warmup": -1}])
def test_bad_counts_are_refused(bad):
    with pytest.raises(InputError, match="expected"):
        measure(lambda batch: None, **bad)
