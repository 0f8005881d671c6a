"""The learning rate of every step; what the optimisers do."""

from __future__ import annotations

import pytest
import torch
from torch import nn

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


def test_a_warm_up_longer_than_the_run_is_a_tenth_of_it() -> None:
    fitted, note = TrainingSettings(steps=500, warmup=5000).fitted()
    assert fitted == TrainingSettings(steps=500, warmup=50)
    assert note == "warm-up 5,000 steps: more than the run's 500, shortened to a tenth, 50"
    whole = TrainingSettings(steps=500, warmup=500)
    assert whole.fitted() == (whole, None)


def stepped(optimizer: str, gradient: float, weight_decay: float = 0.1) -> float:
    """The weight 2 after one step at rate 0.01."""
    weight = nn.Parameter(torch.tensor([2.0]))
    settings = TrainingSettings(steps=1, learning_rate=0.01, optimizer=optimizer, weight_decay=weight_decay)
    made = settings.optimizer_of([weight])
    weight.grad = torch.tensor([gradient])
    made.step()
    return weight.item()


class TestOptimizer:
    def test_adamw_decays_the_weight_itself(self) -> None:
        """θ(1 − lr λ), and the gradient's own step apart from it (Loshchilov & Hutter 2019, algorithm 2)."""
        assert stepped("adamw", 0.0) == pytest.approx(2.0 * (1 - 0.01 * 0.1))
        assert stepped("adamw", -3.0) == pytest.approx(2.0 * (1 - 0.01 * 0.1) + 0.01)

    def test_adam_s_decay_is_a_gradient(self) -> None:
        """g + λθ = 0.2 or −2.8: a first step of Adam's is of one rate whatever its size (algorithm 2, coupled)."""
        assert stepped("adam", 0.0) == pytest.approx(2.0 - 0.01)
        assert stepped("adam", -3.0) == pytest.approx(2.0 + 0.01)

    @pytest.mark.parametrize("optimizer", ["adam", "adamw"])
    def test_without_decay_a_weight_without_gradient_stays(self, optimizer: str) -> None:
        assert stepped(optimizer, 0.0, weight_decay=0.0) == 2.0

    def test_betas_are_those_of_both_moments(self) -> None:
        weight = nn.Parameter(torch.tensor([2.0]))
        optimizer = TrainingSettings(steps=1, betas=(0.5, 0.75)).optimizer_of([weight])
        weight.grad = torch.tensor([4.0])
        optimizer.step()
        moments = optimizer.state[weight]
        assert (moments["exp_avg"].item(), moments["exp_avg_sq"].item()) == (0.5 * 4.0, 0.25 * 16.0)
