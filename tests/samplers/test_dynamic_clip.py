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
from trilemma.runs.sample_sets import DYNAMIC_QUANTILE, Sampler
from trilemma.samplers import DDIM, SAMPLERS, Ancestral, Clip, DPMSolver, Heun, Kernel, ProbabilityFlow, UniPC

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
        np.testing.assert_array_equal(Clip(low, high)(x0).numpy(), np.minimum(np.maximum(x0.numpy(), low), high))

    @pytest.mark.parametrize("quantile", [0.5, 0.9, 0.995])
    def test_dynamic_by_hand(self, low: float, high: float, quantile: float) -> None:
        """Image by image, in the range's own units: s = max(1, the quantile of |x̂_0|), cut at ±s, over s."""
        x0 = wild(1, low, high).numpy()
        found = Clip(low, high, quantile)(torch.from_numpy(x0)).numpy()
        middle, half = (low + high) / 2, (high - low) / 2
        for image, held in zip(x0, found, strict=True):
            scaled = (image - middle) / half
            s = max(1.0, float(np.quantile(np.abs(scaled), quantile)))
            np.testing.assert_allclose(held, middle + half * np.clip(scaled, -s, s) / s, rtol=1e-5, atol=1e-5)

    def test_dynamic_ends_within_the_range(self, low: float, high: float) -> None:
        held = Clip(low, high, 0.6)(wild(2, low, high))
        assert held.min() >= low - 1e-9 and held.max() <= high + 1e-9
        assert (held[2] > high - 1e-9).double().mean() < 0.5

    def test_images_within_the_range_are_left_alone(self, low: float, high: float) -> None:
        inside = wild(3, low, high)[:1].clamp(low, high)
        for quantile in (0.5, 0.995, 1.0):
            torch.testing.assert_close(Clip(low, high, quantile)(inside), inside, rtol=1e-12, atol=1e-12)

    def test_an_image_is_held_by_itself(self, low: float, high: float) -> None:
        x0 = wild(4, low, high)
        together = Clip(low, high, 0.9)(x0)
        for i in range(3):
            torch.testing.assert_close(Clip(low, high, 0.9)(x0[i : i + 1])[0], together[i])


def test_dynamic_keeps_low_precision() -> None:
    x0 = wild(5, -1, 1).to(torch.bfloat16)
    assert Clip(quantile=0.9)(x0).dtype == torch.bfloat16


@pytest.mark.parametrize("kind", KERNELS)
@pytest.mark.parametrize("quantile", [1.0, 0.8])
class TestInKernels:
    def stepped(self, kernel: Kernel, x_t: Tensor, x0: Tensor) -> Tensor:
        bound = Denoiser(Fixed(x0), SCHEDULE, "x0", "fixed_small").bind(Condition())
        t, s = torch.tensor([40, 25], dtype=torch.float64)
        noise = torch.ones_like(x_t)
        return kernel.step(bound, x_t, t, s, None, cast(Any, Given(noise)))[0]

    def test_a_held_prediction_is_the_prediction_of_what_is_held(self, kind: Any, quantile: float) -> None:
        """Clipping is the same as a network that says the clipped x̂_0, and so ε̂ belongs to it (x_t = α x̂_0 + σ ε̂)."""
        x_t, x0 = wild(6, -1, 1), wild(7, -1, 1)
        clip = Clip(quantile=quantile)
        found = self.stepped(kind(clip=clip), x_t, x0)
        torch.testing.assert_close(found, self.stepped(kind(clip="none"), x_t, clip(x0)), rtol=1e-5, atol=1e-5)
        assert not torch.allclose(found, self.stepped(kind(clip="none"), x_t, x0), atol=1e-3)

    def test_the_last_step_ends_at_what_is_held(self, kind: Any, quantile: float) -> None:
        x_t, x0 = wild(8, 0, 1), wild(9, 0, 1)
        bound = Denoiser(Fixed(x0), SCHEDULE, "x0", "fixed_small").bind(Condition())
        t, s = torch.tensor([1, 0], dtype=torch.float64)
        found, _ = kind(clip=Clip(0.0, 1.0, quantile)).step(bound, x_t, t, s, None, cast(Any, Given()))
        # Song's Euler step in σ̄² goes half of the way: to x̂_0 + ½ σ̄ ε̂.
        half = 0.5 * float(SCHEDULE.sigma(t) / SCHEDULE.alpha(t)) if kind is ProbabilityFlow else 0.0
        held = Clip(0.0, 1.0, quantile)(x0)
        eps = (x_t - SCHEDULE.alpha(t) * held) / SCHEDULE.sigma(t)
        torch.testing.assert_close(found, held + half * eps, rtol=1e-5, atol=1e-6)
        assert half or (found.min() >= -1e-9 and found.max() <= 1 + 1e-9)


class TestByName:
    def sampler(self, name: str, clip: str, low_high: tuple[float, float]) -> Sampler:
        denoiser = Denoiser(Fixed(torch.zeros(1, 2, 2)), SCHEDULE)
        settings = parse_sampling({"name": name, "clip": clip})
        return Sampler.of(denoiser, settings, (1, 2, 2), low_high, torch.device("cpu"))

    @pytest.mark.parametrize("low_high", RANGES)
    @pytest.mark.parametrize("name", sorted(SAMPLERS))
    def test_the_recipes_three(self, name: str, low_high: tuple[float, float]) -> None:
        """The range held is the data's, whatever it is."""
        assert self.sampler(name, "none", low_high).kernel.clip is None
        assert self.sampler(name, "static", low_high).kernel.clip == Clip(*low_high)
        assert self.sampler(name, "dynamic", low_high).kernel.clip == Clip(*low_high, DYNAMIC_QUANTILE)

    def test_imagens_quantile(self) -> None:
        assert DYNAMIC_QUANTILE == 0.995

    def test_static_unless_told(self) -> None:
        assert parse_sampling("ddim").clip == "static"

    @pytest.mark.parametrize("clip", ["dynamyc", True, 3])
    def test_others_are_refused(self, clip: Any) -> None:
        with pytest.raises(InputError, match=r"sampling\.clip: .*'static', 'dynamic' or 'none'"):
            parse_sampling({"name": "ddim", "clip": clip})
