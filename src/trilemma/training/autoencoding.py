"""The learner of autoencoders, in whose latents others diffuse."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import cached_property, partial
from typing import Annotated, Any, ClassVar

import torch
from annotated_types import Ge, Gt
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch.optim import Optimizer

from trilemma.errors import InputError
from trilemma.parts import Part
from trilemma.process import Codec
from trilemma.registry import register
from trilemma.training.batches import Batch
from trilemma.training.bounds import Reconstruction, Spread, distortion, standard_kl
from trilemma.training.discriminators import LOSSES, discriminator_of, judged
from trilemma.training.learners import Given, Learner, LearnerSettings, Loop, Outcome
from trilemma.training.settings import TrainingSettings

SPREAD_RATE = 10.0
"""Times the learning rate: log σ's, which has some way to go, from 0 to −3 or so, and Adam goes by the rate."""


@dataclass(frozen=True)
class Critic:
    """A discriminator of patches, by the hinge loss: the `weight` of what it makes of reconstructions, which is fixed
    (Rombach et al. 2022 adapt it to the gradients), and the step `begins` with which it is trained and heard."""

    network: nn.Module
    weight: float
    begins: int = 0


@dataclass(frozen=True)
class Features:
    """A classifier's feature maps, and the `weight` of how those of a reconstruction differ. `make` gives the
    classifier, which is not trained; it is called once, in training alone."""

    make: Callable[[], nn.Module]
    weight: float

    @cached_property
    def classifier(self) -> nn.Module:
        """Raises InputError for one without stages."""
        found = self.make()
        if not hasattr(found, "stages"):
            raise InputError(
                f"learner.perceptual: network {type(found).__name__} has no stages(x), its feature maps; expected such "
                "as classifier"
            )
        return found

    def difference(self, x: Float[Tensor, "n c h w"], made: Float[Tensor, "n c h w"]) -> Float[Tensor, "n"]:
        """Of feature maps brought to length 1 at each position: the squared distance, the mean over positions and over
        the classifier's stages (Zhang et al. 2018, eq. 1, all channels weighing the same)."""
        with torch.no_grad():
            wanted = self.classifier.stages(x)  # type: ignore[operator]
        found = self.classifier.stages(made)  # type: ignore[operator]
        each = [
            (normalize(a.float(), dim=1) - normalize(b.float(), dim=1)).square().sum(1).mean((1, 2))
            for a, b in zip(wanted, found, strict=True)
        ]
        return torch.stack(each).mean(0)


class AutoencoderLearner(Learner):
    """Trains an autoencoder to the mean and the log variance of q(z | x), by the bound on −log p(x), in nats a
    dimension of the image (Kingma & Welling 2014, eq. 10; Rombach et al. 2022, section 3.1): distortion + beta · rate,
    the σ of p(x | z) learnt. `reconstruction`: p(x | z) is N(x̂, σ² I) (l2), or Laplace's of scale σ (l1), of which a
    codec knows no likelihood.

    `alpha`: C's latent consistency (section 4), alpha · distortion + beta · rate + consistency, the last
    ½ ‖sg(z) − e(g(z))‖² over the dimensions of the image, z a draw of q(z | x), e the encoder's mean and g the decoder.
    C's sums ‖z − e(x)‖² + α ‖g(z) − x‖², over latents and over pixels, keep their ratio so at σ = 1; with the learnt σ
    the second weighs 1/σ² as much, as likelihoods have it. The target is held fixed (sg), or latents would shrink to
    meet it; and the rate, beta > 0, holds their size, or they would inflate to hide the error.

    `features` add their weight × perceptual, `critic` its weight × adversarial, −D(x̂) in logits; D's own update is the
    second of a step. The average of weights is the autoencoder's."""

    def __init__(
        self,
        autoencoder: nn.Module,
        spread: Spread,
        low_high: tuple[float, float] = (-1.0, 1.0),
        *,
        beta: float,
        alpha: float | None = None,
        reconstruction: Reconstruction = "l2",
        critic: Critic | None = None,
        features: Features | None = None,
    ):
        networks = {"codec": autoencoder, "spread": spread}
        super().__init__(nn.ModuleDict(networks | ({} if critic is None else {"discriminator": critic.network})))
        self.autoencoder, self.spread, self.low_high = autoencoder, spread, low_high
        self.beta, self.alpha, self.reconstruction = beta, alpha, reconstruction
        self.critic, self.features = critic, features

    @property
    def codec(self) -> Codec:
        sigma = self.spread.log_sigma.detach() if self.reconstruction == "l2" else None
        return Codec(self.autoencoder, log_sigma=sigma)

    def optimizers(self, settings: TrainingSettings) -> Mapping[str, Optimizer]:
        spread = {"params": list(self.spread.parameters()), "lr": SPREAD_RATE * settings.learning_rate}
        spread["weight_decay"] = 0.0
        made = {"codec": settings.optimizer_of([{"params": list(self.autoencoder.parameters())}, spread])}
        if self.critic is not None:
            made["discriminator"] = settings.optimizer_of(self.critic.network.parameters())
        return made

    def ready(self) -> None:
        if self.features is not None:
            _ = self.features.classifier

    def compile(self) -> None:
        for half in ("encode", "decode"):  # which is what is called, not forward
            setattr(self.autoencoder, half, torch.compile(getattr(self.autoencoder, half)))
        if self.critic is not None:
            self.critic.network.compile()

    def kind(self, step: int) -> tuple[object, ...]:
        """Whether the critic is heard; besides what grows."""
        return *super().kind(step), self.critic is not None and step >= self.critic.begins

    def step(self, batch: Batch, loop: Loop) -> Outcome:
        heard = bool(self.kind(loop.step)[-1])
        outcome = loop.descend(partial(self.losses, heard=heard), batch, "codec")
        if not heard:
            return outcome
        against = loop.descend(self.discriminator_losses, batch, "discriminator")
        return Outcome(
            outcome.loss, outcome.each, parts={**outcome.parts, "discriminator_loss": against.each, **against.parts}
        )

    def encoded(self, x: Float[Tensor, "n c h w"]) -> tuple[Tensor, Tensor]:
        """Means and log variances of q(z | x), in float32."""
        mean, log_variance = self.autoencoder.encode(x).float().chunk(2, dim=1)  # type: ignore[operator]
        return mean, log_variance

    def decoded(self, z: Tensor) -> Float[Tensor, "n c h w"]:
        """x̂ of these latents, in float32."""
        return self.autoencoder.decode(z).float()  # type: ignore[operator]

    def drawn(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Means and log variances of q(z | x), and a draw of it for each image."""
        mean, log_variance = self.encoded(batch.images)
        return mean, log_variance, mean + torch.exp(0.5 * log_variance) * batch.draw().normal(mean)

    def losses(self, batch: Batch, heard: bool = False) -> Outcome:
        """The losses of a batch, with gradients; with the critic's if it is `heard`."""
        x, dims = batch.images, batch.images[0].numel()
        mean, log_variance, z = self.drawn(batch)
        made = self.decoded(z)
        off = distortion(x, made, self.spread.log_sigma, self.reconstruction)
        terms = {
            "distortion": (off, 1.0 if self.alpha is None else self.alpha),
            "rate": (standard_kl(mean, log_variance) / dims, self.beta),
        }
        if self.alpha is not None:
            again, _ = self.encoded(made)
            terms["consistency"] = 0.5 * (z.detach() - again).square().flatten(1).sum(1) / dims, 1.0
        if self.features is not None:
            terms["perceptual"] = self.features.difference(x, made), self.features.weight
        if self.critic is not None and heard:
            *_, of_generator = LOSSES["hinge"]
            terms["adversarial"] = of_generator(judged(self.critic.network, made)), self.critic.weight
        each = torch.stack([weight * term for term, weight in terms.values()]).sum(0)
        return Outcome(each.mean(), each.detach(), parts={name: term.detach() for name, (term, _) in terms.items()})

    def discriminator_losses(self, batch: Batch) -> Outcome:
        """The discriminator's losses of images and of their reconstructions, with gradients."""
        assert self.critic is not None
        with torch.no_grad():
            made = self.decoded(self.drawn(batch)[-1])
        on_real, on_fake = judged(self.critic.network, batch.images), judged(self.critic.network, made)
        of_real, of_fake, _ = LOSSES["hinge"]
        each = of_real(on_real) + of_fake(on_fake)
        return Outcome(
            each.mean(), each.detach(), parts={"logit_real": on_real.detach(), "logit_fake": on_fake.detach()}
        )

    @torch.no_grad()
    def validate(self, batch: Batch) -> dict[str, Float[Tensor, "n"]]:
        """The loss, of latents from fixed noise and without the critic's say, which means something else at every step;
        its parts; and the root of the mean squared error of what the means of latents decode to, in grey levels of
        255. Of a critic, what it says of the reconstructions."""
        outcome = self.losses(batch)
        low, high = self.low_high
        made = self.decoded(self.encoded(batch.images)[0]).clamp(low, high)
        rmse = (made - batch.images).square().flatten(1).mean(1).sqrt() * (255 / (high - low))
        parts = {f"validation_{name}": part for name, part in outcome.parts.items()}
        if self.critic is not None:
            *_, of_generator = LOSSES["hinge"]
            parts["validation_adversarial"] = of_generator(judged(self.critic.network, made))
        return {"validation_loss": outcome.each, **parts, "validation_rmse": rmse}


@register("learner", "autoencoder")
@dataclass(frozen=True, kw_only=True)
class AutoencoderSettings(LearnerSettings):
    """Train an autoencoder, see `AutoencoderLearner`: the network is one, such as `autoencoder`. `discriminator`: a
    network of images, such as `patch_discriminator`, whose hinge loss weighs `adversarial` from the step
    `adversarial_from` on. `perceptual`: the run of a classifier of such images, whose feature maps weigh
    `perceptual_weight`; it is needed for training alone."""

    generates: ClassVar = False

    beta: Annotated[float, Gt(0)] = 1.0e-6
    alpha: Annotated[float, Gt(0)] | None = None
    reconstruction: Reconstruction = "l2"
    discriminator: Annotated[Any, Part("network")] = None
    adversarial: Annotated[float, Gt(0)] = 0.5
    adversarial_from: Annotated[int, Ge(0)] = 0
    perceptual: str | None = None
    perceptual_weight: Annotated[float, Gt(0)] = 1.0

    def __post_init__(self) -> None:
        """What has no say without another key is not said."""
        idle = {"discriminator": ("adversarial", "adversarial_from"), "perceptual": ("perceptual_weight",)}
        usual = {field.name: field.default for field in fields(self)}
        for whose, keys in idle.items():
            for key in keys if getattr(self, whose) is None else ():
                if getattr(self, key) != usual[key]:
                    raise InputError(
                        f"learner.{key} {getattr(self, key):g}: it goes with learner.{whose}, and none is named"
                    )

    def network(self, given: Given) -> nn.Module:
        channels, *size = given.shape
        network = given.network(in_channels=channels, size=tuple(size))
        missing = [name for name in ("encode", "decode", "latent_channels") if not hasattr(network, name)]
        if missing:
            raise InputError(
                f"network {type(network).__name__}: an autoencoder has encode, decode and latent_channels, and it has "
                f"no {missing[0]}; expected such as autoencoder"
            )
        made = nn.ModuleDict({"codec": network, "spread": Spread()})
        if self.discriminator is not None:
            made["discriminator"] = discriminator_of(self.discriminator, given, ["images"])
        return made

    def learner(self, network: nn.Module, given: Given) -> AutoencoderLearner:
        spread = network.get_submodule("spread")
        assert isinstance(spread, Spread)
        critic = features = None
        if self.discriminator is not None:
            critic = Critic(network.get_submodule("discriminator"), self.adversarial, self.adversarial_from)
        if self.perceptual is not None:
            features = Features(partial(given.classifier, self.perceptual), self.perceptual_weight)
        return AutoencoderLearner(
            network.get_submodule("codec"),
            spread,
            given.range,
            beta=self.beta,
            alpha=self.alpha,
            reconstruction=self.reconstruction,
            critic=critic,
            features=features,
        )
