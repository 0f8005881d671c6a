"""The learner of denoisers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from trilemma.errors import InputError
from trilemma.objectives import Losses, Objective
from trilemma.parts import Part, construct, constructor, named
from trilemma.process import FIXED, VARIANCES, Condition, Denoiser, Draw, Times, TimeSampler, Variance
from trilemma.registry import register
from trilemma.training.batches import Batch
from trilemma.training.learners import Given, LearnerSettings, Outcome, TimedLearner


class DenoisingLearner(TimedLearner):
    """Trains a denoiser by an objective at times drawn by a time sampler; on the images' labels too, if it is
    `conditional`."""

    denoiser: Denoiser

    def __init__(self, denoiser: Denoiser, objective: Objective, times: TimeSampler, conditional: bool = True):
        super().__init__(denoiser.network, denoiser.schedule, times)
        self.denoiser, self.objective, self.conditional = denoiser, objective, conditional

    def losses(self, batch: Batch) -> Outcome:
        draw = batch.draw()
        times = self.times.sample(draw)
        found = self.losses_at(batch, times, draw)
        parts = {f"loss_{name}": part.detach() for name, part in found.parts.items()} if len(found.parts) > 1 else {}
        return self.outcome(times, found.total, parts)

    def losses_at(self, batch: Batch, times: Times, draw: Draw) -> Losses:
        """The objective's losses of a batch at these times, with the noise of these streams."""
        condition = Condition(batch.labels if self.conditional else None)
        return self.objective(self.denoiser, batch.images, condition, times, draw)

    def validate(self, batch: Batch) -> dict[str, Float[Tensor, "n"]]:
        """The objective at fixed times, spread evenly over the schedule, and fixed noise."""
        return {"validation_loss": self.losses_at(batch, self.held_out(batch), batch.draw()).total}


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
