"""The learners of generators against discriminators: GANs, and denoisers that draw their x̂_0 (DDGAN)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any, ClassVar

import torch
from annotated_types import Ge, Gt
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Optimizer

from trilemma.errors import InputError
from trilemma.parts import Part
from trilemma.process import Condition, Denoiser, Draw, Uniform, over_image, pair, perturb, posterior_mean
from trilemma.registry import register
from trilemma.training.batches import Batch
from trilemma.training.discriminators import LOSSES, AdversarialLoss, discriminator_of, judged
from trilemma.training.generators import check_generator, drawn, generator_of, latents
from trilemma.training.learners import Given, Learner, LearnerSettings, Loop, Outcome
from trilemma.training.settings import TrainingSettings


@dataclass(frozen=True)
class Shown:
    """What a discriminator judges: images, and what it is given beside them."""

    images: Float[Tensor, "n c h w"]
    beside: tuple[Tensor, ...] = ()


class AdversarialLearner(Learner):
    """Trains a denoiser that draws its x̂_0, the generator, against a discriminator. A training step is one update of
    the discriminator, and every `discriminator_steps`-th then one of the generator, on `generator_samples` fakes for
    each image of the batch.

    `loss`: hinge (Miyato et al. 2018, eqs. 16 and 17) or non_saturating (Goodfellow et al. 2014, section 3). `r1`: the
    weight γ of γ/2 ‖∇D‖² at real images (Mescheder et al. 2018, eq. 9), at every `r1_every`-th step, unscaled as
    DDGAN's code has it. The average of weights is the generator's."""

    denoiser: Denoiser

    def __init__(
        self,
        denoiser: Denoiser,
        discriminator: nn.Module,
        *,
        loss: AdversarialLoss,
        discriminator_steps: int = 1,
        generator_samples: int = 1,
        discriminator_learning_rate: float | None = None,
        r1: float = 0.0,
        r1_every: int = 1,
        conditional: bool = False,
    ):
        super().__init__(nn.ModuleDict({"generator": denoiser.network, "discriminator": discriminator}))
        self.denoiser, self.discriminator, self.loss = denoiser, discriminator, loss
        self.discriminator_steps, self.generator_samples = discriminator_steps, generator_samples
        self.discriminator_learning_rate, self.conditional = discriminator_learning_rate, conditional
        self.r1, self.r1_every = r1, r1_every

    def optimizers(self, settings: TrainingSettings) -> Mapping[str, Optimizer]:
        rates = {"discriminator": self.discriminator_learning_rate, "generator": None}
        return {
            name: settings.optimizer_of([
                {"params": list(self.network.get_submodule(name).parameters()), "lr": rate or settings.learning_rate}
            ])
            for name, rate in rates.items()
        }  # fmt: skip

    def compile(self) -> None:
        self.denoiser.network.compile()
        if not self.r1:  # compiled code has no second derivatives
            self.discriminator.compile()

    @abstractmethod
    def shown(self, batch: Batch, draw: Draw) -> tuple[Shown, Shown]:
        """What is real of a batch, and what the generator makes for it."""

    def judged(self, shown: Shown, batch: Batch) -> Float[Tensor, "n"]:
        """The discriminator's logits."""
        label = {"label": batch.labels} if self.conditional else {}
        return judged(self.discriminator, shown.images, *shown.beside, **label)

    def kind(self, step: int) -> tuple[object, ...]:
        """Whether the penalty is computed, and whether the generator is trained; besides what grows."""
        regular = self.r1 > 0 and step % self.r1_every == 0
        return *super().kind(step), regular, (step + 1) % self.discriminator_steps == 0

    def step(self, batch: Batch, loop: Loop) -> Outcome:
        *_, regular, generates = self.kind(loop.step)
        outcome = loop.descend(partial(self.discriminator_losses, r1=bool(regular)), batch, "discriminator")
        if not generates:
            return outcome
        generator = loop.descend(self.generator_losses, batch, "generator")
        return replace(outcome, parts={**outcome.parts, "generator_loss": generator.each})

    def discriminator_losses(self, batch: Batch, r1: bool = False) -> Outcome:
        """The discriminator's losses of a batch, with gradients; with the penalty if `r1`."""
        with torch.no_grad():
            real, fake = self.shown(batch, batch.draw())
        images = real.images.detach().requires_grad_(r1)
        on_real, on_fake = self.judged(replace(real, images=images), batch), self.judged(fake, batch)
        of_real, of_fake, _ = LOSSES[self.loss]
        each = of_real(on_real) + of_fake(on_fake)
        parts = {"logit_real": on_real.detach(), "logit_fake": on_fake.detach()}
        loss = each.mean()
        if r1:
            (gradient,) = torch.autograd.grad(on_real.sum(), images, create_graph=True)
            penalty = self.r1 / 2 * gradient.float().square().flatten(1).sum(1)
            loss, parts["r1"] = loss + penalty.mean(), penalty.detach()
        return Outcome(loss, each.detach(), parts=parts)

    def generator_losses(self, batch: Batch) -> Outcome:
        """The generator's losses, of each image over its fakes, with gradients."""
        count = self.generator_samples
        keys = [(*key, "generator", i) for i in range(count) for key in batch.keys]
        labels = None if batch.labels is None else batch.labels.repeat(count)
        several = Batch(batch.images.repeat(count, 1, 1, 1), labels, keys)
        _, fake = self.shown(several, several.draw())
        *_, of_generator = LOSSES[self.loss]
        each = of_generator(self.judged(fake, several)).view(count, len(batch)).mean(0)
        return Outcome(each.mean(), each.detach())

    @torch.no_grad()
    def validate(self, batch: Batch) -> dict[str, Float[Tensor, "n"]]:
        """How often the discriminator is right about held-out images, and about fakes of fixed latents: where it has
        learnt its training images by heart, it takes held-out ones for fakes."""
        real, fake = self.shown(batch, batch.draw())
        right = self.judged(real, batch) > 0, self.judged(fake, batch) < 0
        return {"discriminator_real": right[0].float(), "discriminator_fake": right[1].float()}


class GANLearner(AdversarialLearner):
    """A generator of latents alone, against a discriminator of images."""

    def shown(self, batch: Batch, draw: Draw) -> tuple[Shown, Shown]:
        label = batch.labels if self.conditional else None
        T = torch.tensor(self.denoiser.schedule.T, dtype=torch.float64)
        condition = Condition(label, latent=latents(self.denoiser, draw, batch.images))
        return Shown(batch.images), Shown(self.denoiser(torch.zeros_like(batch.images), T, condition).x0)


class DDGANLearner(AdversarialLearner):
    """A denoiser that draws its x̂_0, against a discriminator of pairs (x_{t−1}, x_t) and t, at any t of the table alike
    (Xiao et al. 2022, section 4 and figure 3)."""

    def shown(self, batch: Batch, draw: Draw) -> tuple[Shown, Shown]:
        schedule, x0 = self.denoiser.schedule, batch.images
        t = Uniform(schedule).sample(draw).t
        kernel = pair(schedule, t, t - 1)
        x_s = perturb(schedule, x0, t - 1, draw.normal(x0))
        forgotten = over_image(kernel.beta.sqrt(), x0) * draw.normal(x0)
        x_t = over_image(kernel.alpha_t / kernel.alpha_s, x0) * x_s + forgotten
        condition = Condition(batch.labels if self.conditional else None, latent=latents(self.denoiser, draw, x0))
        prediction = self.denoiser(x_t, t, condition)
        spread = torch.exp(0.5 * self.denoiser.log_variance(prediction, kernel))
        made = posterior_mean(kernel, prediction.x0, prediction.eps) + spread * draw.normal(x0)
        beside = x_t, schedule.network_time(t).to(x0.device, torch.float32)
        return Shown(x_s, beside), Shown(made, beside)


@dataclass(frozen=True, kw_only=True)
class AdversarialSettings(LearnerSettings):
    """What adversarial learners share: see `AdversarialLearner`. `discriminator`: a network; its learning rate is the
    training section's unless given. `conditional`: both are, on the data's classes."""

    shown: ClassVar[tuple[str, ...]]
    """What the discriminator is called with."""

    discriminator: Annotated[Any, Part("network")]
    loss: AdversarialLoss
    discriminator_steps: Annotated[int, Ge(1)] = 1
    generator_samples: Annotated[int, Ge(1)] = 1
    discriminator_learning_rate: Annotated[float, Gt(0)] | None = None
    r1: Annotated[float, Ge(0)] = 0.0
    r1_every: Annotated[int, Ge(1)] = 1
    conditional: bool = False

    def networks(self, given: Given, generator: nn.Module) -> nn.Module:
        """The generator and the discriminator."""
        discriminator = discriminator_of(self.discriminator, given, self.shown, self.conditional)
        return nn.ModuleDict({"generator": generator, "discriminator": discriminator})

    def shared(self) -> dict[str, Any]:
        """The arguments that learners take as they are."""
        keys = ("loss", "discriminator_steps", "generator_samples", "discriminator_learning_rate", "r1", "r1_every")
        return {key: getattr(self, key) for key in (*keys, "conditional")}


@register("learner", "gan")
@dataclass(frozen=True, kw_only=True)
class GANSettings(AdversarialSettings):
    """Train a GAN: the network is a generator of latents, such as `sngan`. Defaults as Miyato et al. 2018 have them.
    Counted are the discriminator's steps."""

    shown: ClassVar = ("images",)

    discriminator: Annotated[Any, Part("network")] = "sngan_discriminator"
    loss: AdversarialLoss = "hinge"
    discriminator_steps: Annotated[int, Ge(1)] = 5

    def network(self, given: Given) -> nn.Module:
        return self.networks(given, generator_of(given, self.conditional))

    def learner(self, network: nn.Module, given: Given) -> GANLearner:
        denoiser = drawn(network.get_submodule("generator"), given)
        return GANLearner(denoiser, network.get_submodule("discriminator"), **self.shared())


@register("learner", "ddgan")
@dataclass(frozen=True, kw_only=True)
class DDGANSettings(AdversarialSettings):
    """Train a denoiser that draws its x̂_0: the network is a U-Net with a `latent`, the schedule `ddgan`. Defaults as
    Xiao et al. 2022 have them for CIFAR-10."""

    timed: ClassVar = True
    shown: ClassVar = ("x_s", "x_t", "time")

    discriminator: Annotated[Any, Part("network")] = "ddgan_discriminator"
    loss: AdversarialLoss = "non_saturating"
    r1: Annotated[float, Ge(0)] = 0.02
    r1_every: Annotated[int, Ge(1)] = 15

    def network(self, given: Given) -> nn.Module:
        channels, *size = given.shape
        generator = given.network(channels, channels, tuple(size), len(given.classes) if self.conditional else 0)
        if getattr(generator, "upsampler", False):
            raise InputError("network.upsampler true: a ddgan learner has no low images; expected false")
        check_generator(generator, given)
        return self.networks(given, generator)

    def learner(self, network: nn.Module, given: Given) -> DDGANLearner:
        denoiser = Denoiser(network.get_submodule("generator"), given.schedule(), "x0", "fixed_small", given.range)
        steps = denoiser.schedule.steps
        if steps is None or steps > 8:
            has = "is continuous" if steps is None else f"has {steps} steps"
            raise InputError(
                f"schedule: DDGAN walks a table of 1 to 8 steps, and this one {has}; expected such as ddgan"
            )
        return DDGANLearner(denoiser, network.get_submodule("discriminator"), **self.shared())
