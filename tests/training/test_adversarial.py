"""The adversarial learners: what the discriminator is shown, the losses, their turns, and what reaches what."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from trilemma.errors import InputError
from trilemma.process import SCHEDULES, Denoiser, Prior, pair, posterior_mean
from trilemma.training import Batch, DDGANLearner, GANLearner, TrainingSettings

N = 6


class Generator(nn.Module):
    """A latent of three numbers as an 8×8 image."""

    def __init__(self, classes: int = 0) -> None:
        super().__init__()
        self.latent = 3
        self.head = nn.Linear(3 + classes, 64)
        self.classes = classes
        self.seen: list[tuple[Tensor, Tensor | None]] = []

    def forward(self, latent: Tensor, label: Tensor | None = None) -> Tensor:
        self.seen.append((latent, label))
        if self.classes:
            latent = torch.cat([latent, nn.functional.one_hot(label, self.classes).to(latent)], 1)
        return torch.tanh(self.head(latent)).view(-1, 1, 8, 8)


class Drawing(nn.Module):
    """x̂_0 of x_t, the time and a latent; `x0`: whatever those say, this."""

    def __init__(self, x0: Tensor | None = None) -> None:
        super().__init__()
        self.latent, self.x0 = 3, x0
        self.weight = nn.Parameter(torch.tensor([0.3, -0.2, 0.1]))
        self.times: list[Tensor] = []

    def forward(self, x: Tensor, time: Tensor, label: Tensor | None = None, latent: Tensor | None = None) -> Tensor:
        self.times.append(time)
        assert latent is not None
        made = torch.tanh(0.5 * x + (latent @ self.weight)[:, None, None, None])
        return made if self.x0 is None else self.x0.expand_as(made) + 0 * made


class Discriminator(nn.Module):
    """A smooth logit of everything that it is given."""

    def __init__(self, inputs: int = 1) -> None:
        super().__init__()
        self.conv, self.out = nn.Conv2d(inputs, 4, 3), nn.Linear(4, 1)
        self.seen: list[tuple[Any, ...]] = []

    def forward(self, *given: Tensor, label: Tensor | None = None) -> Tensor:
        self.seen.append((*given, label))
        images = torch.cat([part for part in given if part.dim() == 4], 1)
        return self.out(torch.tanh(self.conv(images)).mean((2, 3)))[:, 0]


class Logits(nn.Module):
    """Known logits: of real images, which are all ones at their first pixel, and of fakes."""

    def __init__(self, real: float, fake: float) -> None:
        super().__init__()
        self.values, self.scale = (real, fake), nn.Parameter(torch.ones(()))

    def forward(self, images: Tensor) -> Tensor:
        real, fake = self.values
        return self.scale * torch.where(images[:, 0, 0, 0] == 1, real, fake)


@pytest.fixture
def batch() -> Batch:
    images = torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, (N, 1, 8, 8)).astype(np.float32))
    images[:, 0, 0, 0] = 1
    return Batch(images, torch.arange(N) % 4, [(0, "train", 0, i) for i in range(N)])


def gan(discriminator: nn.Module | None = None, classes: int = 0, **given: Any) -> GANLearner:
    torch.manual_seed(0)
    denoiser = Denoiser(Generator(classes), Prior(), "x0", "fixed_small")
    return GANLearner(denoiser, discriminator or Discriminator(), **{"loss": "hinge", **given})


def ddgan(x0: Tensor | None = None, steps: int = 4, **given: Any) -> DDGANLearner:
    torch.manual_seed(0)
    denoiser = Denoiser(Drawing(x0), SCHEDULES["ddgan"](steps=steps), "x0", "fixed_small")
    return DDGANLearner(denoiser, Discriminator(2), **{"loss": "non_saturating", **given})


def softplus(x: float) -> float:
    return float(np.log1p(np.exp(x)))


class TestLosses:
    @pytest.mark.parametrize(
        ("loss", "real", "fake", "expected", "generators"),
        [
            ("hinge", 0.25, 0.5, 0.75 + 1.5, -0.5),
            ("hinge", 2.0, -3.0, 0.0, 3.0),
            ("non_saturating", 0.25, 0.5, softplus(-0.25) + softplus(0.5), softplus(-0.5)),
        ],
    )
    def test_are_those_of_the_papers(
        self, batch: Batch, loss: Any, real: float, fake: float, expected: float, generators: float
    ) -> None:
        learner = gan(Logits(real, fake), loss=loss)
        found = learner.discriminator_losses(batch)
        assert found.each.tolist() == pytest.approx([expected] * N) and found.loss.item() == pytest.approx(expected)
        assert found.parts["logit_real"].tolist() == [real] * N and found.parts["logit_fake"].tolist() == [fake] * N
        assert learner.generator_losses(batch).each.tolist() == pytest.approx([generators] * N)
        right = {"discriminator_real": [float(real > 0)] * N, "discriminator_fake": [float(fake < 0)] * N}
        assert {name: value.tolist() for name, value in learner.validate(batch).items()} == right

    def test_the_penalty_is_the_slope_at_real_images(self, batch: Batch) -> None:
        """By differences in every direction; and its own slope reaches the discriminator's weights."""
        learner = gan(r1=0.7)
        plain, found = learner.discriminator_losses(batch), learner.discriminator_losses(batch, r1=True)
        discriminator, images = learner.discriminator.double(), batch.images.double()
        squares = torch.zeros(N, dtype=torch.float64)
        for i in range(64):
            step = torch.zeros(64, dtype=torch.float64)
            step[i] = 1e-5
            ahead, behind = (discriminator(images + sign * step.view(1, 1, 8, 8)) for sign in (1, -1))
            squares += ((ahead - behind) / 2e-5).square()
        expected = (0.7 / 2 * squares).detach()
        assert found.parts["r1"].double().tolist() == pytest.approx(expected.tolist(), rel=1e-4)
        assert (found.loss - plain.loss).item() == pytest.approx(float(expected.mean()), rel=1e-3)
        assert not batch.images.requires_grad, "the batch is the generator's too"
        weight = gan(r1=0.7)
        gradients = []
        for r1 in (False, True):
            weight.network.zero_grad()
            weight.discriminator_losses(batch, r1=r1).loss.backward()
            gradients.append(weight.discriminator.conv.weight.grad.clone())
        assert not torch.allclose(*gradients)

    def test_several_fakes_an_image_are_the_mean_over_them(self, batch: Batch) -> None:
        """Each of a latent of its own, and none that the discriminator's step had."""
        learner = gan(generator_samples=3)
        learner.discriminator_losses(batch)
        found = learner.generator_losses(batch)
        (first, _), (latents, _) = learner.denoiser.network.seen
        assert (
            latents.shape == (3 * N, 3) and len({tuple(row) for row in [*first.tolist(), *latents.tolist()]}) == 4 * N
        )
        logits = learner.discriminator(learner.denoiser.network(latents))
        assert found.each.tolist() == pytest.approx((-logits).view(3, N).mean(0).tolist(), rel=1e-5)

    def test_classes_reach_both_if_it_is_conditional(self, batch: Batch) -> None:
        learner = gan(classes=4, conditional=True)
        learner.discriminator_losses(batch)
        assert torch.equal(learner.denoiser.network.seen[0][1], batch.labels)
        assert all(torch.equal(label, batch.labels) for _, label in learner.discriminator.seen)
        plain = gan()
        plain.discriminator_losses(batch)
        assert plain.denoiser.network.seen[0][1] is None and plain.discriminator.seen[0][1] is None

    def test_a_discriminator_that_gives_no_logits_is_refused(self, batch: Batch) -> None:
        with pytest.raises(InputError, match=rf"Conv2d gave \[{N}, 1, 8, 8\], expected a logit for each of {N} images"):
            gan(nn.Conv2d(1, 1, 1)).discriminator_losses(batch)


class TestPairs:
    """What DDGAN's discriminator is shown, as a table of many draws of one image."""

    COUNT = 40_000

    def shown(self, steps: int = 3) -> tuple[Any, Any, Tensor]:
        x0 = torch.tensor([[[0.8, -0.4]]])
        batch = Batch(x0.expand(self.COUNT, 1, 1, 2), None, [(0, "train", 0, i) for i in range(self.COUNT)])
        learner = ddgan(x0, steps)
        real, fake = learner.shown(batch, batch.draw())
        return real, fake, learner.denoiser.network.times[0]

    def test_are_of_two_neighbouring_times_and_all_times_alike(self) -> None:
        """Moments of (x_{t−1}, x_t) against q, and, x̂_0 being right, those of the generator's own: the posterior."""
        real, fake, told = self.shown()
        # ᾱ of the paper's β, by a plain loop.
        alpha_bar = [1.0]
        for t in (1, 2, 3):
            alpha_bar.append(alpha_bar[-1] * np.exp(-0.1 / 3 - (20 - 0.1) * (2 * t - 1) / (2 * 9)))
        assert torch.equal(real.beside[0], fake.beside[0]) and torch.equal(real.beside[1], told)
        for t in (1, 2, 3):
            chosen = told == t - 1
            assert int(chosen.sum()) == pytest.approx(self.COUNT / 3, rel=0.05)
            a, b = np.sqrt(alpha_bar[t]), np.sqrt(alpha_bar[t - 1])
            for shown in (real, fake):
                x_s, x_t = (
                    part[chosen].detach().double().flatten(1).numpy() for part in (shown.images, shown.beside[0])
                )
                for pixel, value in enumerate((0.8, -0.4)):
                    s, t_ = x_s[:, pixel], x_t[:, pixel]
                    assert s.mean() == pytest.approx(b * value, abs=0.04)
                    assert t_.mean() == pytest.approx(a * value, abs=0.04)
                    assert s.var() == pytest.approx(1 - alpha_bar[t - 1], abs=0.04)
                    assert t_.var() == pytest.approx(1 - alpha_bar[t], abs=0.04)
                    # Cov(x_s, x_t) = (α_t/α_s) σ_s²
                    assert np.cov(s, t_)[0, 1] == pytest.approx(a / b * (1 - alpha_bar[t - 1]), abs=0.04)

    def test_the_last_step_shows_the_image_itself(self) -> None:
        real, fake, told = self.shown(1)
        assert torch.equal(real.images, fake.images) and not bool(told.any())
        assert bool((real.images == torch.tensor([0.8, -0.4])).all())

    def test_the_generator_s_step_has_pairs_of_its_own(self, batch: Batch) -> None:
        learner = ddgan()
        learner.discriminator_losses(batch)
        learner.generator_losses(batch)
        first, second = learner.denoiser.network.times
        assert not torch.equal(first, second)
        on_real, on_fake, on_generated = learner.discriminator.seen
        assert torch.equal(on_real[1], on_fake[1]) and not torch.equal(on_fake[1], on_generated[1])
        assert torch.equal(on_generated[2], second)


class TestTurns:
    def test_the_generator_s_turn_and_the_penalty_s(self, make_trainer: Callable[..., Any]) -> None:
        learner = gan(discriminator_steps=3, r1=0.1, r1_every=2, discriminator_learning_rate=5e-4)
        trainer, batches = make_trainer(learner=learner, steps=6, warmup=0, flip=False)
        assert {name: o.param_groups[0]["lr"] for name, o in trainer.updates.optimizers.items()} == {
            "discriminator": 5e-4,
            "generator": 1e-3,
        }
        before: dict[str, Tensor] = {}
        turns = []
        for report in trainer.run(batches):
            now = {name: value.clone() for name, value in trainer.network.named_parameters()}
            changed = {name.split(".")[0] for name in before if not torch.equal(before[name], now[name])}
            assert report.grad_norms.keys() == ({"discriminator"} | ({"generator"} if report.step % 3 == 0 else set()))
            turns.append((changed, "r1" in report.outcome.parts, "generator_loss" in report.outcome.parts))
            before = now
        alone, both = {"discriminator"}, {"discriminator", "generator"}
        assert turns[1:] == [
            (alone, False, False), (both, True, True), (alone, False, False), (alone, True, False), (both, False, True)
        ]  # fmt: skip
        assert trainer.ema.module is learner.denoiser.network and trainer.ema.updates == 2

    def test_a_generator_that_is_learning_is_told_apart_less(self, make_trainer: Callable[..., Any]) -> None:
        """On ramps that a generator of three numbers can make: the two learn from each other."""
        learner = gan(loss="non_saturating")
        settings = {"steps": 400, "batch": 16, "learning_rate": 5e-3, "betas": (0.0, 0.9), "flip": False, "ema": 0.9}
        trainer, batches = make_trainer(learner=learner, **settings)
        real = batches.transform(batches.source.batch(range(16))[0]).mean(0)

        def distance() -> float:
            images = learner.denoiser.network(torch.randn(256, 3, generator=torch.Generator().manual_seed(0)))
            return float((images.mean(0) - real).square().mean())

        before = distance()
        list(islice(trainer.run(batches), 400))
        assert distance() < 0.1 * before


def test_rates_without_one_of_their_own_are_the_training_section_s() -> None:
    optimizers = gan().optimizers(TrainingSettings(steps=1, batch=1, learning_rate=3e-4, betas=(0.5, 0.9)))
    assert [o.param_groups[0]["lr"] for o in optimizers.values()] == [3e-4, 3e-4]
    assert all(o.param_groups[0]["betas"] == (0.5, 0.9) for o in optimizers.values())


def test_its_schedule_is_the_paper_s() -> None:
    """Against a β that is written out, and against ᾱ of the SDE at t/T, its other form."""
    for steps in (1, 2, 4, 8):
        schedule = SCHEDULES["ddgan"](steps=steps)
        t = np.arange(steps + 1) / steps
        expected = np.exp(-0.1 * t - 0.5 * (20 - 0.1) * t**2)
        found = schedule.alpha(torch.arange(steps + 1, dtype=torch.float64)).square().numpy()
        np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_its_posterior_is_the_paper_s() -> None:
    """q(x_{t−1} | x_t, x_0) from β and ᾱ, as the paper's appendix has it, in float64."""
    steps = 4
    schedule, t = SCHEDULES["ddgan"](), np.arange(1, steps + 1)
    beta = 1 - np.exp(-0.1 / steps - (20 - 0.1) * (2 * t - 1) / (2 * steps**2))
    alpha_bar = np.concatenate([[1.0], np.cumprod(1 - beta)])
    x_t, x0 = np.random.default_rng(0).normal(size=(2, steps))
    mean = (
        np.sqrt(alpha_bar[:-1]) * beta / (1 - alpha_bar[1:]) * x0
        + np.sqrt(1 - beta) * (1 - alpha_bar[:-1]) / (1 - alpha_bar[1:]) * x_t
    )
    times = torch.from_numpy(t).double()
    kernel = pair(schedule, times, times - 1)
    image = torch.from_numpy(x0).view(-1, 1, 1, 1)
    eps = (torch.from_numpy(x_t).view(-1, 1, 1, 1) - kernel.alpha_t.view(-1, 1, 1, 1) * image) / kernel.sigma_t.view(
        -1, 1, 1, 1
    )
    np.testing.assert_allclose(posterior_mean(kernel, image, eps).flatten().numpy(), mean, rtol=1e-12, atol=1e-14)
    variance = beta * (1 - alpha_bar[:-1]) / (1 - alpha_bar[1:])
    np.testing.assert_allclose(kernel.beta_tilde.numpy(), variance, rtol=1e-11)
