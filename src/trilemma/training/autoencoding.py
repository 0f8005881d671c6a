"""The learner of autoencoders, in whose latents others diffuse."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from annotated_types import Gt
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Optimizer

from trilemma.errors import InputError
from trilemma.process import Codec
from trilemma.registry import register
from trilemma.training.batches import Batch
from trilemma.training.bounds import Reconstruction, Spread, distortion, standard_kl
from trilemma.training.learners import Given, Learner, LearnerSettings, Loop, Outcome
from trilemma.training.settings import TrainingSettings

SPREAD_RATE = 10.0
"""Times the learning rate: log σ's, which has some way to go, from 0 to −3 or so, and Adam goes by the rate."""


class AutoencoderLearner(Learner):
    """Trains an autoencoder to the mean and the log variance of q(z | x), by the bound on −log p(x), in nats a
    dimension of the image (Kingma & Welling 2014, eq. 10; Rombach et al. 2022, section 3.1): distortion + beta · rate,
    the σ of p(x | z) learnt. `reconstruction`: p(x | z) is N(x̂, σ² I) (l2), or Laplace's of scale σ (l1), of which a
    codec knows no likelihood.

    `alpha`: C's latent consistency (section 4), alpha · distortion + beta · rate + consistency, the last
    ½ ‖sg(z) − e(g(z))‖² over the dimensions of the image, z a draw of q(z | x), e the encoder's mean and g the decoder.
    C's sums ‖z − e(x)‖² + α ‖g(z) − x‖², over latents and over pixels, keep their ratio so at σ = 1; with the learnt σ
    the second weighs 1/σ² as much, as likelihoods have it. The target is held fixed (sg), or latents would shrink to
    meet it; and the rate, beta > 0, holds their size, or they would inflate to hide the error."""

    def __init__(
        self,
        autoencoder: nn.Module,
        spread: Spread,
        low_high: tuple[float, float] = (-1.0, 1.0),
        *,
        beta: float,
        alpha: float | None = None,
        reconstruction: Reconstruction = "l2",
    ):
        super().__init__(nn.ModuleDict({"codec": autoencoder, "spread": spread}))
        self.autoencoder, self.spread, self.low_high = autoencoder, spread, low_high
        self.beta, self.alpha, self.reconstruction = beta, alpha, reconstruction

    @property
    def codec(self) -> Codec:
        sigma = self.spread.log_sigma.detach() if self.reconstruction == "l2" else None
        return Codec(self.autoencoder, log_sigma=sigma)

    def optimizers(self, settings: TrainingSettings) -> Mapping[str, Optimizer]:
        spread = {"params": list(self.spread.parameters()), "lr": SPREAD_RATE * settings.learning_rate}
        return {"codec": settings.optimizer_of([{"params": list(self.autoencoder.parameters())}, spread])}

    def compile(self) -> None:
        self.autoencoder.compile()

    def step(self, batch: Batch, loop: Loop) -> Outcome:
        return loop.descend(self.losses, batch, "codec")

    def encoded(self, x: Float[Tensor, "n c h w"]) -> tuple[Tensor, Tensor]:
        """Means and log variances of q(z | x), in float32."""
        mean, log_variance = self.autoencoder.encode(x).float().chunk(2, dim=1)  # type: ignore[operator]
        return mean, log_variance

    def decoded(self, z: Tensor) -> Float[Tensor, "n c h w"]:
        """x̂ of these latents, in float32."""
        return self.autoencoder.decode(z).float()  # type: ignore[operator]

    def losses(self, batch: Batch) -> Outcome:
        x = batch.images
        mean, log_variance = self.encoded(x)
        z = mean + torch.exp(0.5 * log_variance) * batch.draw().normal(mean)
        made = self.decoded(z)
        terms = {
            "distortion": distortion(x, made, self.spread.log_sigma, self.reconstruction),
            "rate": standard_kl(mean, log_variance) / x[0].numel(),
        }
        weights = {"distortion": 1.0, "rate": self.beta}
        if self.alpha is not None:
            again, _ = self.encoded(made)
            terms["consistency"] = 0.5 * (z.detach() - again).square().flatten(1).sum(1) / x[0].numel()
            weights |= {"distortion": self.alpha, "consistency": 1.0}
        each = sum((weights[name] * term for name, term in terms.items()), torch.zeros_like(terms["rate"]))
        return Outcome(each.mean(), each.detach(), parts={name: term.detach() for name, term in terms.items()})

    @torch.no_grad()
    def validate(self, batch: Batch) -> dict[str, Float[Tensor, "n"]]:
        """The loss, of latents from fixed noise, its parts, and the root of the mean squared error of what the mean
        latents decode to, in grey levels of 255."""
        outcome = self.losses(batch)
        low, high = self.low_high
        made = self.decoded(self.encoded(batch.images)[0]).clamp(low, high)
        rmse = (made - batch.images).square().flatten(1).mean(1).sqrt() * (255 / (high - low))
        parts = {f"validation_{name}": part for name, part in outcome.parts.items()}
        return {"validation_loss": outcome.each, **parts, "validation_rmse": rmse}


@register("learner", "autoencoder")
@dataclass(frozen=True, kw_only=True)
class AutoencoderSettings(LearnerSettings):
    """Train an autoencoder, see `AutoencoderLearner`: the network is one, such as `autoencoder`."""

    beta: Annotated[float, Gt(0)] = 1.0e-6
    alpha: Annotated[float, Gt(0)] | None = None
    reconstruction: Reconstruction = "l2"

    def network(self, given: Given) -> nn.Module:
        channels, *size = given.shape
        network = given.network(in_channels=channels, size=tuple(size))
        missing = [name for name in ("encode", "decode", "latent_channels") if not hasattr(network, name)]
        if missing:
            raise InputError(
                f"network {type(network).__name__}: an autoencoder has encode, decode and latent_channels, and it has "
                f"no {missing[0]}; expected such as autoencoder"
            )
        return nn.ModuleDict({"codec": network, "spread": Spread()})

    def learner(self, network: nn.Module, given: Given) -> AutoencoderLearner:
        spread = network.get_submodule("spread")
        assert isinstance(spread, Spread)
        settings: dict[str, Any] = {"beta": self.beta, "alpha": self.alpha, "reconstruction": self.reconstruction}
        return AutoencoderLearner(network.get_submodule("codec"), spread, given.range, **settings)
