"""Stages: an upsampler starts from what the stage below it made, and together they sample the joint distribution."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.exact import ExactNetwork, Mixture, schedule_levels
from trilemma.errors import InputError
from trilemma.networks import UNet
from trilemma.process import SCHEDULES, Denoiser, Draw, perturb, to_model
from trilemma.samplers import DDIM, Ancestral, Finished, Sampler

SCHEDULE = SCHEDULES["cosine"](steps=200)

MEAN, VARIANCE = 0.1, 0.04
"""Of a low image's one pixel."""

SLOPE, OFFSET, REST = 0.8, -0.05, 0.2
"""Each pixel of the image is SLOPE times the low one plus OFFSET, give or take a variance of REST."""


class ExactUpsampler(nn.Module):
    """The ε̂ of a perfectly trained upsampler of Gaussian images whose mean is SLOPE · low + OFFSET. Its low images are
    noised as far as it is told: it knows them through their noise by the posterior of z given z_s."""

    def __init__(self) -> None:
        super().__init__()
        self.levels = schedule_levels(SCHEDULE)
        self.heard: list[tuple[Tensor, Tensor]] = []

    def forward(self, x_t: Tensor, time: Tensor, low: Tensor, low_time: Tensor) -> Tensor:
        self.heard.append((low.clone(), low_time.clone()))
        z, rest = functional.interpolate(low.double(), size=x_t.shape[-2:], mode="bilinear"), REST
        if float(low_time[0]) >= 0:
            alpha, sigma = (level.reshape(-1, 1, 1, 1) for level in self.levels(low_time))
            gain = alpha * VARIANCE / (alpha**2 * VARIANCE + sigma**2)
            z = MEAN + gain * (z - alpha * MEAN)
        mean = SLOPE * z + OFFSET
        alpha, sigma = (level.reshape(-1, 1, 1, 1) for level in self.levels(time))
        x0 = mean + alpha * rest / (alpha**2 * rest + sigma**2) * (x_t.double() - alpha * mean)
        return ((x_t.double() - alpha * x0) / sigma).to(x_t.dtype)


def base(**settings: Any) -> Sampler:
    data = Mixture.gaussian(torch.full((1, 1, 1), MEAN), torch.full((1, 1, 1), VARIANCE))
    network = ExactNetwork(data, schedule_levels(SCHEDULE))
    chosen: dict[str, Any] = {"steps": 200, "batch": 5000, **settings}
    return Sampler(Denoiser(network, SCHEDULE), DDIM(clip="none"), shape=(1, 1, 1), **chosen)


def upsampler(low: Any, **settings: Any) -> Sampler:
    chosen: dict[str, Any] = {"steps": 200, "batch": 5000, **settings}
    denoiser = Denoiser(ExactUpsampler(), SCHEDULE, variance="fixed_small")
    return Sampler(denoiser, DDIM(clip="none"), shape=(1, 2, 2), low=low, **chosen)


def ended(sampler: Sampler, seeds: range) -> np.ndarray:
    """The images before they are rounded, as float64 [n, pixels]."""
    *_, step = sampler.walk(seeds)
    return step.x.double().flatten(1).numpy()


def test_a_cascade_samples_the_joint_distribution() -> None:
    """Image and low image of the same seeds: the slope between them, what is left, and that this is nobody's else's.
    Sharing the base's streams, the image's start would be the low image's, and the rest would tell of it."""
    seeds = range(3000)
    first = base()
    z = to_model(first.generate(seeds)).double().flatten().numpy()
    x = ended(upsampler(first), seeds)
    error = 1 / len(seeds) ** 0.5
    assert abs(z.mean() - MEAN) < 4 * VARIANCE**0.5 * error
    assert z.var() == pytest.approx(VARIANCE, rel=0.2)
    rest = x - (SLOPE * z + OFFSET)[:, None]
    assert np.abs(rest.mean(0)).max() < 4 * REST**0.5 * error
    covariance = np.cov(rest.T)
    assert np.diag(covariance) == pytest.approx(np.full(4, REST), rel=0.1)
    together = np.corrcoef(np.concatenate([z[:, None], rest], 1).T) - np.eye(5)
    assert np.abs(together).max() < 4 * error


def test_a_noised_condition_leaves_what_it_hides_open() -> None:
    """z_s tells of z what its signal tells: the spread of x given z is that of z given z_s as well."""
    seeds, s = range(3000), 60.0
    first = base()
    whole = upsampler(first, low_noise=s)
    x = ended(whole, seeds)
    low, told = whole.denoiser.network.heard[0]
    assert told.tolist() == [s - 1] * len(seeds)
    alpha, sigma = (float(f(torch.tensor(s, dtype=torch.float64))) for f in (SCHEDULE.alpha, SCHEDULE.sigma))
    z = to_model(first.generate(seeds)).double().flatten().numpy()
    noise = (low.double().flatten().numpy() - alpha * z) / sigma
    error = 1 / len(seeds) ** 0.5
    assert abs(noise.mean()) < 4 * error and noise.std() == pytest.approx(1, abs=4 * error)
    assert abs(np.corrcoef(noise, z)[0, 1]) < 4 * error
    gain = alpha * VARIANCE / (alpha**2 * VARIANCE + sigma**2)
    rest = x - (SLOPE * (MEAN + gain * (low.double().flatten().numpy() - alpha * MEAN)) + OFFSET)[:, None]
    assert rest.var() == pytest.approx(REST, rel=0.1)
    assert np.abs(np.corrcoef(np.concatenate([noise[:, None], rest], 1).T) - np.eye(5)).max() < 4 * error


def test_every_stage_has_noise_of_its_own() -> None:
    """Three stages that each begin a walk: the starts are independent draws, and the first one's is a lone base's."""
    images = np.zeros((4, 2, 2, 1), dtype=np.uint8)

    def start(low: Any) -> Tensor:
        return next(iter(upsampler(low, steps=1).walk(range(4)))).x

    lone = next(iter(Sampler(base().denoiser, DDIM(), shape=(1, 2, 2), steps=1).walk(range(4)))).x
    one = Finished(lambda *_: images, (1, 2, 2), "made")
    two = Finished(lambda *_: images, (1, 2, 2), "made", stages=2)
    assert not torch.isclose(start(one), lone).any() and not torch.isclose(start(one), start(two)).any()
    assert torch.equal(lone, Draw.for_seeds(range(4), "start").normal(lone))


@pytest.mark.parametrize("kernel", [DDIM(), Ancestral()])
def test_an_image_is_of_its_seed_alone(kernel: Any) -> None:
    def made(batch: int) -> np.ndarray:
        first = Sampler(base().denoiser, kernel, shape=(1, 1, 1), steps=5, batch=batch)
        last = Sampler(upsampler(first).denoiser, kernel, shape=(1, 2, 2), steps=4, batch=batch, low=first, low_noise=9)
        return last(seeds=range(40, 104)).images

    together, alone = made(64), made(1)
    assert len(np.unique(together.reshape(64, -1), axis=0)) > 60
    assert np.abs(together.astype(int) - alone).max() <= 1


def test_what_it_costs_and_how_it_is_called_is_of_all_stages() -> None:
    first = base(steps=7)
    second = upsampler(first, steps=5)
    third = upsampler(second, steps=3, low_noise=4)
    assert [each.evaluations for each in (first, second, third)] == [7, 12, 15]
    assert [each.stages for each in (first, second, third)] == [1, 2, 3]
    assert second.label == "DDIM, 7 steps, clip none + DDIM, 5 steps, clip none"
    assert third.label == f"{second.label} + DDIM, 3 steps, clip none, low noise 4"


def test_the_low_images_are_of_the_seeds_and_classes_asked_for() -> None:
    asked: list[Any] = []

    def images(seeds: Any, labels: Any) -> np.ndarray:
        asked.append((list(seeds), None if labels is None else labels.tolist()))
        return np.array(seeds, dtype=np.uint8).reshape(-1, 1, 1, 1)

    sampler = upsampler(Finished(images, (1, 1, 1), "made"), steps=2, batch=2)
    sampler(seeds=[3, 9, 4], labels=[1, 0, 2])
    assert asked == [([3, 9], [1, 0]), ([4], [2])]
    low, time = sampler.denoiser.network.heard[0]
    assert torch.equal(low, to_model(np.array([3, 9], dtype=np.uint8).reshape(2, 1, 1, 1)))
    assert time.tolist() == [-1, -1]


def test_noise_up_to_a_time_is_that_of_the_schedule() -> None:
    images = np.full((3, 1, 1, 1), 200, dtype=np.uint8)
    sampler = upsampler(Finished(lambda *_: images, (1, 1, 1), "made"), steps=2, low_noise=30)
    list(sampler.walk([5, 6, 7]))
    z = to_model(images)
    eps = Draw.for_seeds([5, 6, 7], "low 2").normal(z)
    expected = perturb(SCHEDULE, z, torch.tensor(30.0, dtype=torch.float64), eps)
    torch.testing.assert_close(sampler.denoiser.network.heard[0][0], expected)


class TestRefusals:
    def test_an_upsampler_alone(self) -> None:
        network = UNet(1, 1, (8, 8), base_channels=8, multipliers=(1,), blocks=1, attention=(), upsampler=True)
        with pytest.raises(InputError, match="the network is an upsampler, and `low`"):
            Sampler(Denoiser(network, SCHEDULE), DDIM(), shape=(1, 8, 8))

    def test_noise_on_no_low_image(self) -> None:
        with pytest.raises(InputError, match="low_noise 3: expected 0, there is no low image"):
            base(low_noise=3)

    @pytest.mark.parametrize("s", [-1, 201])
    def test_a_time_beyond_the_schedule(self, s: float) -> None:
        with pytest.raises(InputError, match=rf"low_noise {s}: expected 0 to 200"):
            upsampler(base(), low_noise=s)
