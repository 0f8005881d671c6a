"""A learner of two networks: a generator of ramps and a discriminator, an optimiser each, two updates to one, a penalty
now and then, the average of the generator alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import softplus
from torch.nn.utils.parametrizations import spectral_norm
from torch.optim import Optimizer

from tests.training.conftest import Pixels, to_floats
from trilemma.machine.devices import accelerator
from trilemma.networks.norms import BatchNorm2d
from trilemma.process import Draw
from trilemma.training import Batch, Batches, Learner, Loop, Outcome, Trainer, TrainingSettings


class Adversaries(Learner):
    """Non-saturating losses; the discriminator every step, with R1 (lazily) every third; the generator every second."""

    def __init__(self) -> None:
        generator = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 1, 1))
        discriminator = nn.Sequential(spectral_norm(nn.Conv2d(1, 4, 3)), nn.SiLU(), nn.Flatten(), nn.LazyLinear(1))
        discriminator(torch.zeros(1, 1, 8, 8))
        super().__init__(nn.ModuleDict({"generator": generator, "discriminator": discriminator}))
        self.generator, self.discriminator, self.seen = generator, discriminator, 0

    @property
    def averaged(self) -> nn.Module:
        return self.generator

    def optimizers(self, settings: TrainingSettings) -> Mapping[str, Optimizer]:
        first, *rest = self.generator.children()
        others = [p for module in rest for p in module.parameters()]
        groups = [{"params": list(first.parameters()), "lr": settings.learning_rate / 10}, {"params": others}]
        return {
            "generator": settings.optimizer_of(groups),
            "discriminator": torch.optim.SGD(self.discriminator.parameters(), lr=0.05, momentum=0.5),
        }

    def step(self, batch: Batch, loop: Loop) -> Outcome:
        self.seen += 1
        self.regularised = loop.step % 3 == 0
        found = loop.descend(self.judged, batch, "discriminator")
        if loop.step % 2:
            return found
        made = loop.descend(self.deceived, batch, "generator")
        return replace(found, parts={**found.parts, "generator": made.each})

    def made(self, batch: Batch) -> Float[Tensor, "n c h w"]:
        return self.generator(Draw((*key, "latent") for key in batch.keys).normal(batch.images))

    def judged(self, batch: Batch) -> Outcome:
        assert not next(self.generator.parameters()).requires_grad
        real = batch.images.requires_grad_(self.regularised)
        score = self.discriminator(real)[:, 0]
        each = softplus(-score) + softplus(self.discriminator(self.made(batch))[:, 0])
        if self.regularised:
            (slope,) = torch.autograd.grad(score.sum(), real, create_graph=True)
            each = each + slope.flatten(1).square().sum(1)
        return Outcome(each.mean(), each.detach())

    def deceived(self, batch: Batch) -> Outcome:
        assert not next(self.discriminator.parameters()).requires_grad
        each = softplus(-self.discriminator(self.made(batch))[:, 0])
        return Outcome(each.mean(), each.detach())

    def validate(self, batch: Batch) -> dict[str, Float[Tensor, "n"]]:
        return {"deception": self.deceived(batch).each}

    def state_dict(self) -> dict[str, int]:
        return {"seen": self.seen}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.seen = state["seen"]


def adversaries(folder: Path, learner: Learner | None = None, **settings: object) -> tuple[Trainer, Batches]:
    torch.manual_seed(0)
    given = {"steps": 8, "batch": 6, "learning_rate": 1e-2, "ema": 0.9, "warmup": 2, "checkpoint_every": 4}
    chosen = TrainingSettings(**{**given, **settings})
    trainer = Trainer(learner or Adversaries(), chosen, accelerator("fp32"), folder)
    return trainer, Batches(Pixels(), to_floats, batch=6, seed=0)
