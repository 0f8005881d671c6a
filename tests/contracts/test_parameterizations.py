"""What a parameterization promises, under every kind of schedule."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.contracts.made import make, names
from tests.exact import Fixed
from trilemma.process import EDM, ContinuousVP, Cosine, Denoiser, Linear, Parameterization, Schedule, perturb

SCHEDULES: list[Schedule] = [Linear(), Cosine(steps=50), ContinuousVP(), EDM()]


def images(seed: int, count: int = 4) -> Tensor:
    return torch.randn(count, 2, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def some_times(schedule: Schedule) -> Tensor:
    at = torch.tensor([0.0, 0.3, 0.7, 1.0], dtype=torch.float64)
    return schedule.t_min + at * (schedule.T - schedule.t_min)


class Echo(torch.nn.Module):
    """F that depends on all that the network is shown."""

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        return 0.3 * x + (0.01 * time)[:, None, None, None].to(x.dtype)


def parameterization(name: str) -> Parameterization:
    """By its name, and further ones that are to be set."""
    name, *flags = name.split(", ")
    made: Parameterization = make("parameterization", name, **dict.fromkeys(flags, True))
    return made


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda each: type(each).__name__)
@pytest.mark.parametrize("name", [*names("parameterization"), "epsilon, skip"])
class TestParameterization:
    def denoiser(self, name: str, schedule: Schedule, network: torch.nn.Module) -> Denoiser:
        return Denoiser(network, schedule, parameterization(name))

    def test_a_prediction_explains_x_t(self, name: str, schedule: Schedule) -> None:
        """Whatever F is, α x̂_0 + σ ε̂ = x_t."""
        t, x_t = some_times(schedule), images(0)
        found = self.denoiser(name, schedule, Fixed(images(1)))(x_t, t)
        alpha, sigma = (level(t)[:, None, None, None] for level in (schedule.alpha, schedule.sigma))
        torch.testing.assert_close(alpha * found.x0 + sigma * found.eps, x_t, rtol=1e-8, atol=1e-8)

    def test_the_target_is_the_output_that_gives_the_truth(self, name: str, schedule: Schedule) -> None:
        x0, eps, t = images(2), images(3), some_times(schedule)
        target = self.denoiser(name, schedule, Fixed(x0)).target(x0, eps, t)
        found = self.denoiser(name, schedule, Fixed(target))(perturb(schedule, x0, t, eps), t)
        # At the noisiest time x_0 is what float64 leaves of it after a division by α.
        close = 1e-10 / float(schedule.alpha(t).min())
        torch.testing.assert_close(found.x0, x0, rtol=1e-6, atol=close)
        torch.testing.assert_close(found.eps, eps, rtol=1e-6, atol=1e-6)
        assert torch.equal(found.output, target)

    def test_a_time_an_image_is_the_time_of_each(self, name: str, schedule: Schedule) -> None:
        x_t, x0, eps, t = images(4), images(5), images(6), some_times(schedule)
        denoiser = self.denoiser(name, schedule, Echo())
        together, targets = denoiser(x_t, t), denoiser.target(x0, eps, t)
        for i in range(4):
            one = slice(i, i + 1)
            alone = denoiser(x_t[one], t[i])
            torch.testing.assert_close(together.x0[one], alone.x0, rtol=1e-12, atol=1e-12)
            torch.testing.assert_close(together.eps[one], alone.eps, rtol=1e-12, atol=1e-12)
            torch.testing.assert_close(targets[one], denoiser.target(x0[one], eps[one], t[i]), rtol=1e-12, atol=0)

    def test_images_keep_their_type(self, name: str, schedule: Schedule) -> None:
        for dtype in (torch.float32, torch.bfloat16):
            found = self.denoiser(name, schedule, Echo())(images(0).to(dtype), some_times(schedule)[1])
            assert (found.x0.dtype, found.eps.dtype, found.output.dtype) == (dtype,) * 3
