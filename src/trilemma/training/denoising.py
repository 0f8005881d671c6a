"""The learner of denoisers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from trilemma.errors import InputError
from trilemma.objectives import Losses, Objective
from trilemma.parts import Part, construct, constructor, named
from trilemma.process import FIXED, GOLDEN, VARIANCES, Condition, Denoiser, Draw, Times, TimeSampler, Variance, spread
from trilemma.registry import register
from trilemma.training.batches import Batch
from trilemma.training.learners import Given, LearnerSettings, Loop, OneLoss, Outcome


class DenoisingLearner(OneLoss):
    """Trains a denoiser by an objective at times drawn by a time sampler; on the images' labels too, if it is
    `conditional`."""

    denoiser: Denoiser

    def __init__(self, denoiser: Denoiser, objective: Objective, times: TimeSampler, conditional: bool = True):
        super().__init__(denoiser.network)
        self.denoiser, self.objective, self.times, self.conditional = denoiser, objective, times, conditional

    def step(self, batch: Batch, loop: Loop) -> Outcome:
        outcome = super().step(batch, loop)
        self.observe(outcome)
        for other in loop.unseen(self.losses, self.times.extra):
            self.observe(other)
        return outcome

    def losses(self, batch: Batch) -> Outcome:
        draw = batch.draw()
        times = self.times.sample(draw)
        found = self.losses_at(batch, times, draw)
        each = found.total
        loss = (each * times.weight.to(each.dtype).to(each.device)).mean()
        parts = {f"loss_{name}": part.detach() for name, part in found.parts.items()} if len(found.parts) > 1 else {}
        return Outcome(loss, each.detach(), times.t / self.denoiser.schedule.T, parts)

    def losses_at(self, batch: Batch, times: Times, draw: Draw) -> Losses:
        """The objective's losses of a batch at these times, with the noise of these streams."""
        condition = Condition(batch.labels if self.conditional else None)
        return self.objective(self.denoiser, batch.images, condition, times, draw)

    def validate(self, batch: Batch) -> dict[str, Float[Tensor, "n"]]:
        """The objective at fixed times, spread evenly over the schedule, and fixed noise."""
        # The position in the key, not in the batch, fixes the time: the same whatever the batch size.
        position = torch.tensor([int(key[-1]) for key in batch.keys], dtype=torch.float64)
        t = spread(self.denoiser.schedule, position * GOLDEN % 1.0)
        times = Times(t, torch.ones_like(t))
        return {"validation_loss": self.losses_at(batch, times, batch.draw()).total}

    def observe(self, outcome: Outcome) -> None:
        """Tell the time sampler the losses of a global batch."""
        assert outcome.times is not None
        self.times.observe(outcome.times * self.denoiser.schedule.T, outcome.each)

    def state_dict(self) -> dict[str, Any]:
        return {"times": self.times.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.times.load_state_dict(state["times"])


@register("learner", "denoising")
@dataclass(frozen=True, kw_only=True)
class DenoisingSettings(LearnerSettings):
    """Train a denoiser. `conditional`: on the data's classes."""

    timed: ClassVar = True

    objective: Annotated[Any, Part("objective")] = "simple"
    times: Annotated[Any, Part("times")] = "uniform"
    parameterization: Annotated[Any, Part("parameterization")] = "epsilon"
    variance: Variance = "fixed_large"
    conditional: bool = False

    def __post_init__(self) -> None:
        """A learned variance needs an objective that trains it, and L_hybrid's bound trains nothing else."""
        objective = constructor("objective", self.objective)
        goes_with = VARIANCES if objective is None else getattr(objective, "variances", FIXED)
        if self.variance not in goes_with:
            raise InputError(
                f"learner.variance {self.variance!r}: objective {named(self.objective)!r} goes with "
                f"{' and '.join(goes_with)}"
            )

    def network(self, given: Given) -> nn.Module:
        channels, *size = given.shape
        outputs = channels * (2 if self.variance == "learned_range" else 1)
        network = given.network(channels, outputs, tuple(size), len(given.classes) if self.conditional else 0)
        if getattr(network, "upsampler", False):
            raise InputError(
                "network.upsampler: nothing trains or samples one yet; in Python, `networks.UNet` takes it"
            )
        return network

    def learner(self, network: nn.Module, given: Given) -> DenoisingLearner:
        parameterization = construct("parameterization", self.parameterization)
        denoiser = Denoiser(network, given.schedule(), parameterization, self.variance, given.range)
        times = construct("times", self.times, denoiser.schedule)
        return DenoisingLearner(denoiser, construct("objective", self.objective), times, self.conditional)
