"""The learning rate of every step."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from trilemma.training import TrainingSettings


def rates(**given: object) -> list[float]:
    settings = TrainingSettings(steps=10, learning_rate=2.0, **given)
    return [settings.rate(step) for step in range(10)]


def test_constant() -> None:
    assert rates() == [2.0] * 10


def test_warm_up_rises_linearly_to_the_full_rate() -> None:
    assert rates(warmup=4) == [0.5, 1.0, 1.5, 2.0, *[2.0] * 6]


def test_linear_decay() -> None:
    assert rates(decay="linear") == pytest.approx([2.0 * (1 - k / 10) for k in range(10)])


def test_cosine_decay_after_a_warm_up() -> None:
    got = rates(warmup=2, decay="cosine")
    assert got[:3] == [1.0, 2.0, 2.0]
    assert got[6] == pytest.approx(1.0)  # half way from step 2 to step 10
    assert got[9] == pytest.approx(1 - 0.9238795325112867)  # cos(7π/8)


def test_decay_ends_at_zero() -> None:
    for decay in ("linear", "cosine"):
        assert TrainingSettings(steps=10, decay=decay).rate(10) == pytest.approx(0.0, abs=1e-12)


def test_warm_up_longer_than_the_run_is_refused() -> None:
    with pytest.raises(ValidationError, match="warmup 11 is longer than the 10 steps"):
        TrainingSettings(steps=10, warmup=11)
