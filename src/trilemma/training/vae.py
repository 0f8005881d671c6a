"""The learner of variational autoencoders."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import torch
from annotated_types import Gt
from jaxtyping import Float
from torch import Tensor, nn

from trilemma.errors import InputError
from trilemma.parts import Part, make
from trilemma.process import Condition, Denoiser
from trilemma.registry import register
from trilemma.training.batches import Batch
from trilemma.training.bounds import Spread, distortion, standard_kl
from trilemma.training.generators import drawn, generator_of, latents
from trilemma.training.learners import Given, LearnerSettings, OneLoss, Outcome


class VAELearner(OneLoss):
    """Trains a decoder of latents, a denoiser of one step, and an encoder to the mean and the log variance of
    q(z | x), by the bound on −log p(x) in nats a dimension (Kingma & Welling 2014, eq. 10), its Gaussian's σ learnt
    (Rybkin et al. 2021): no weight between the two terms has to be chosen. `beta` is one all the same, of the KL term
    (Higgins et al. 2017). Samples are x̂, without the noise of p(x | z). The average of weights is the decoder's."""

    denoiser: Denoiser

    def __init__(self, denoiser: Denoiser, encoder: nn.Module, spread: Spread, beta: float, conditional: bool):
        super().__init__(nn.ModuleDict({"generator": denoiser.network, "encoder": encoder, "spread": spread}))
        self.denoiser, self.encoder, self.spread = denoiser, encoder, spread
        self.beta, self.conditional = beta, conditional

    def compile(self) -> None:
        self.denoiser.network.compile()
        self.encoder.compile()

    def losses(self, batch: Batch) -> Outcome:
        x = batch.images
        encoded = self.encoder(x)
        if tuple(encoded.shape) != (len(x), 2 * self.denoiser.latent):
            raise InputError(
                f"encoder {type(self.encoder).__name__} gave {list(encoded.shape)}, expected "
                f"{[len(x), 2 * self.denoiser.latent]}, a mean and a log variance for each number of the latent"
            )
        mean, log_variance = encoded.float().chunk(2, dim=1)
        z = mean + torch.exp(0.5 * log_variance) * latents(self.denoiser, batch.draw(), mean)
        T = torch.tensor(self.denoiser.schedule.T, dtype=torch.float64)
        condition = Condition(batch.labels if self.conditional else None, latent=z)
        made = self.denoiser(torch.zeros_like(x), T, condition).x0.float()
        off, rate = distortion(x, made, self.spread.log_sigma), standard_kl(mean, log_variance) / x[0].numel()
        each = off + self.beta * rate
        parts = {"distortion": off.detach(), "rate": rate.detach()}
        return Outcome(each.mean(), each.detach(), parts=parts)

    @torch.no_grad()
    def validate(self, batch: Batch) -> dict[str, Float[Tensor, "n"]]:
        """The bound, of latents from fixed noise."""
        outcome = self.losses(batch)
        return {"validation_loss": outcome.each, **{f"validation_{k}": part for k, part in outcome.parts.items()}}


@register("learner", "vae")
@dataclass(frozen=True, kw_only=True)
class VAESettings(LearnerSettings):
    """Train a variational autoencoder, see `VAELearner`: the network is its decoder, a generator of latents such as
    `sngan`. `conditional`: the decoder is, on the data's classes."""

    encoder: Annotated[Any, Part("network")] = "resnet_encoder"
    beta: Annotated[float, Gt(0)] = 1.0
    conditional: bool = False

    def network(self, given: Given) -> nn.Module:
        channels, *size = given.shape
        generator = generator_of(given, self.conditional)
        outputs = 2 * drawn(generator, given).latent
        encoder = make(
            "network", self.encoder, "VAE's encoder", in_channels=channels, size=tuple(size), outputs=outputs
        )
        return nn.ModuleDict({"generator": generator, "encoder": encoder, "spread": Spread()})

    def learner(self, network: nn.Module, given: Given) -> VAELearner:
        spread = network.get_submodule("spread")
        assert isinstance(spread, Spread)
        denoiser = drawn(network.get_submodule("generator"), given)
        return VAELearner(denoiser, network.get_submodule("encoder"), spread, self.beta, self.conditional)
