"""p(y | x_t): what the network is given, and what it gives."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.networks.test_noisy_classifier import build
from tests.networks.test_unet import images
from trilemma.errors import InputError
from trilemma.process import EDM, SCHEDULES, ClassPosterior, Schedule

COSINE = SCHEDULES["cosine"](steps=128)
T = torch.tensor([1.0, 40.0, 127.5], dtype=torch.float64)


class Told(nn.Module):
    """Logits that say what it was given: the mean of the image, and the time."""

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        return torch.stack([x.mean((1, 2, 3)), time.to(x.dtype)], 1)


@pytest.mark.parametrize("schedule", [COSINE, SCHEDULES["vp"](), EDM()], ids=["cosine", "vp", "edm"])
def test_the_network_is_given_x_t_at_unit_variance_and_the_schedules_time(schedule: Schedule) -> None:
    t = T / 128 * schedule.T
    x = images(3, 2, 4, 4)
    scale = (schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2).sqrt()
    expected = torch.stack([x.double().mean((1, 2, 3)) / scale, schedule.network_time(t)], 1)
    torch.testing.assert_close(ClassPosterior(Told(), schedule)(x, t).double(), expected, rtol=1e-6, atol=1e-6)


def test_one_time_stands_for_all_images() -> None:
    posterior, x = ClassPosterior(build(), COSINE), images(3, 2, 8, 8)
    torch.testing.assert_close(posterior(x, T[1]), posterior(x, T[1].expand(3)))


def test_the_gradient_is_that_of_finite_differences() -> None:
    """Guidance takes ∇_{x_t} log p(y | x_t): in float64 it is the slope, and each image's own."""
    posterior = ClassPosterior(build().double(), COSINE)
    x, label = images(3, 2, 8, 8).double().requires_grad_(), torch.tensor([0, 3, 4])

    def log_p(x_t: Tensor) -> Tensor:
        return posterior(x_t, T).log_softmax(1)[torch.arange(3), label]

    (gradient,) = torch.autograd.grad(log_p(x).sum(), x)
    h = 1e-5
    for seed in range(4):
        direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        with torch.no_grad():
            slope = (log_p(x + h * direction) - log_p(x - h * direction)) / (2 * h)
        assert slope.abs().min() > 1e-4
        torch.testing.assert_close((gradient * direction).sum((1, 2, 3)), slope, rtol=1e-6, atol=1e-9)


def test_logits_are_float32_whatever_the_network_computes_in() -> None:
    posterior, x = ClassPosterior(build(), COSINE), images(3, 2, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        found = posterior(x, T)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, posterior(x, T), rtol=0.1, atol=0.1)


def test_what_is_no_classifier_of_noised_images_is_refused() -> None:
    class Timeless(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x

    class Pictures(nn.Module):
        def forward(self, x: Tensor, t: Tensor) -> Any:
            return x

    with pytest.raises(InputError, match="Timeless: forward\\(x\\) takes no time"):
        ClassPosterior(Timeless(), COSINE)
    with pytest.raises(InputError, match=r"Pictures gave \[3, 2, 4, 4\], expected logits \[3, classes\]"):
        ClassPosterior(Pictures(), COSINE)(images(3, 2, 4, 4), T)
