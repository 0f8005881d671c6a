"""Holding x̂_0 in range: static, dynamic, not at all; in kernels and by the recipe's names."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.exact import Fixed, Given
from trilemma.errors import InputError
from trilemma.process import Condition, Denoiser, Linear
from trilemma.recipes import parse_sampling
from trilemma.samplers import (
    DDIM,
    DYNAMIC_QUANTILE,
    Ancestral,
    DPMSolver,
    Heun,
    Kernel,
    ProbabilityFlow,
    UniPC,
    clipped,
)

SCHEDULE = Linear(steps=50, beta_end=0.3)
KERNELS: list[type[Kernel]] = [Ancestral, DDIM, ProbabilityFlow, Heun, DPMSolver, UniPC]
RANGES = [(-1.0, 1.0), (0.0, 1.0), (2.0, 6.0)]


def wild(seed: int, low: float, high: float) -> Tensor:
    """x̂_0 of three images: within the range, somewhat outside, far outside."""
    noise = torch.randn(3, 2, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    scaled = noise * torch.tensor([0.1, 1.5, 8.0], dtype=torch.float64).reshape(3, 1, 1, 1)
    return (low + high) / 2 + (high - low) / 2 * scaled


@pytest.mark.parametrize(("low", "high"), RANGES)
class TestClip:
    def test_static_is_the_range(self, low: float, high: float) -> None:
        x0 = wild(0, low, high)
        np.testing.assert_array_equal(clipped(x0, (low, high)).numpy(), np.minimum(np.maximum(x0.numpy(), low), high))

    @pytest.mark.parametrize("quantile", [0.5, 0.9, 0.995])
    def test_dynamic_by_hand(self, low: float, high: float, quantile: float) -> None:
        """Image by image, in the range's own units: s = max(1, the quantile of |x̂_0|), cut at ±s, over s."""
        x0 = wild(1, low, high).numpy()
        found = clipped(torch.from_numpy(x0), (low, high), quantile).numpy()
        middle, half = (low + high) / 2, (high - low) / 2
        for image, held in zip(x0, found, strict=True):
            scaled = (image - middle) / half
            s = max(1.0, float(np.quantile(np.abs(scaled), quantile)))
            np.testing.assert_allclose(held, middle + half * np.clip(scaled, -s, s) / s, rtol=1e-5, atol=1e-5)

    def test_dynamic_ends_within_the_range(self, low: float, high: float) -> None:
        held = clipped(wild(2, low, high), (low, high), 0.6)
        assert held.min() >= low - 1e-9 and held.max() <= high + 1e-9
        assert (held[2] > high - 1e-9).double().mean() < 0.5

    def test_images_within_the_range_are_left_alone(self, low: float, high: float) -> None:
        inside = wild(3, low, high)[:1].clamp(low, high)
        for quantile in (0.5, 0.995, 1.0):
            torch.testing.assert_close(clipped(inside, (low, high), quantile), inside, rtol=1e-12, atol=1e-12)

    def test_an_image_is_held_by_itself(self, low: float, high: float) -> None:
        x0 = wild(4, low, high)
        together = clipped(x0, (low, high), 0.9)
        for i in range(3):
            torch.testing.assert_close(clipped(x0[i : i + 1], (low, high), 0.9)[0], together[i])


def test_dynamic_keeps_low_precision() -> None:
    x0 = wild(5, -1, 1).to(torch.bfloat16)
    assert clipped(x0, quantile=0.9).dtype == torch.bfloat16


@pytest.mark.parametrize("kind", KERNELS)
@pytest.mark.parametrize("clip", ["static", "dynamic"])
class TestInKernels:
    def stepped(self, kernel: Kernel, x_t: Tensor, x0: Tensor, times: tuple[int, int], low: float = -1.0) -> Tensor:
        bound = Denoiser(Fixed(x0), SCHEDULE, "x0", "fixed_small", (low, 1.0)).bind(Condition())
        t, s = torch.tensor(times, dtype=torch.float64)
        return kernel.step(bound, x_t, t, s, None, cast(Any, Given(*([torch.ones_like(x_t)] if s else []))))[0]

    def held(self, clip: str, x0: Tensor, low: float = -1.0) -> Tensor:
        return clipped(x0, (low, 1.0), DYNAMIC_QUANTILE if clip == "dynamic" else 1.0)

    def test_a_held_prediction_is_the_prediction_of_what_is_held(self, kind: Any, clip: str) -> None:
        """Clipping is the same as a network that says the clipped x̂_0, and so ε̂ belongs to it (x_t = α x̂_0 + σ ε̂)."""
        x_t, x0 = wild(6, -1, 1), wild(7, -1, 1)
        found = self.stepped(kind(clip=clip), x_t, x0, (40, 25))
        expected = self.stepped(kind(clip="none"), x_t, self.held(clip, x0), (40, 25))
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
        assert not torch.allclose(found, self.stepped(kind(clip="none"), x_t, x0, (40, 25)), atol=1e-3)

    def test_the_last_step_ends_at_what_is_held(self, kind: Any, clip: str) -> None:
        x_t, x0 = wild(8, 0, 1), wild(9, 0, 1)
        found = self.stepped(kind(clip=clip), x_t, x0, (1, 0), low=0.0)
        # Song's Euler step in σ̄² goes half of the way: to x̂_0 + ½ σ̄ ε̂.
        t, held = torch.tensor(1, dtype=torch.float64), self.held(clip, x0, 0.0)
        half = 0.5 * float(SCHEDULE.sigma(t) / SCHEDULE.alpha(t)) if kind is ProbabilityFlow else 0.0
        eps = (x_t - SCHEDULE.alpha(t) * held) / SCHEDULE.sigma(t)
        torch.testing.assert_close(found, held + half * eps, rtol=1e-5, atol=1e-6)
        assert half or (found.min() >= -1e-9 and found.max() <= 1 + 1e-9)


class TestByName:
    def test_imagens_quantile(self) -> None:
        assert DYNAMIC_QUANTILE == 0.995

    def test_static_unless_told(self) -> None:
        assert parse_sampling("ddim").kernel.clip == "static"

    @pytest.mark.parametrize("clip", ["dynamyc", True, 3])
    def test_others_are_refused(self, clip: Any) -> None:
        with pytest.raises(InputError, match=r"sampling\.clip: .*'static', 'dynamic' or 'none'"):
            parse_sampling({"sampler": "ddim", "clip": clip})
