"""The learner of denoisers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, cast

import torch
from annotated_types import Ge, Lt
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.optim import Optimizer

from trilemma.errors import InputError
from trilemma.objectives import Losses, Objective
from trilemma.parts import Part, construct, constructor, described, named
from trilemma.process import FIXED, VARIANCES, Condition, Denoiser, Draw, Times, TimeSampler, Variance
from trilemma.registry import register
from trilemma.training.batches import Batch
from trilemma.training.learners import Given, LearnerSettings, Outcome, TimedLearner
from trilemma.training.pairs import Pairs, check_pairs
from trilemma.training.settings import TrainingSettings


class DenoisingLearner(TimedLearner):
    """Trains a denoiser by an objective at times drawn by a time sampler; on the images' labels too, if it is
    `conditional`, of which that part is dropped that `label_dropout` says, each image's by its own draw; an upsampler
    on the low images that `pairs` makes. A learned schedule is trained with the network, in groups of its own: its ends
    and its inside, at its `rate` times the learning rate. Raises InputError for a denoiser that draws its x̂_0, for
    label dropout of one that has no label for no class, and for a schedule that the objective does not go with, such
    as a learned one under an objective that trains none."""

    denoiser: Denoiser

    def __init__(
        self,
        denoiser: Denoiser,
        objective: Objective,
        times: TimeSampler,
        conditional: bool = True,
        label_dropout: float = 0.0,
        pairs: Pairs | None = None,
    ):
        network, schedule = denoiser.network, denoiser.schedule
        if schedule.learned:
            network = nn.ModuleDict({"generator": network, "schedule": cast(nn.Module, schedule)})
        super().__init__(network, schedule, times, denoiser.codec)
        self.denoiser, self.objective, self.conditional = denoiser, objective, conditional
        self.label_dropout, self.pairs = label_dropout, pairs
        if denoiser.latent:
            raise InputError(
                f"network.latent {denoiser.latent}: a denoising learner trains the mean of x̂_0, which takes no latent; "
                "expected 0, or the learner ddgan"
            )
        if hasattr(objective, "check"):
            objective.check(schedule)
        if getattr(objective, "uniform_mean", False) and not times.uniform_mean:
            raise InputError(
                f"times {named(described('times', times))!r}: drawn unevenly and not weighted, so that objective "
                f"{named(described('objective', objective))!r} would be no bound; expected such as low_discrepancy"
            )
        if schedule.learned and not getattr(objective, "learns_schedule", False):
            name = named(described("objective", objective))
            raise InputError(
                f"schedule {schedule!r} is learned, and objective {name!r} trains none: expected objective 'vdm', or a "
                "fixed schedule"
            )
        if label_dropout and denoiser.no_class is None:
            raise InputError(
                f"label_dropout {label_dropout:g}: the denoiser has no label that stands for none; give it `no_class`"
            )

    @property
    def averaged(self) -> nn.Module:
        return self.network

    def optimizers(self, settings: TrainingSettings) -> Mapping[str, Optimizer]:
        own = {"lr": settings.learning_rate * self.schedule.rate, "weight_decay": 0.0}
        groups: list[dict[str, Any]] = [{"params": list(self.denoiser.network.parameters())}]
        return {"optimizer": settings.optimizer_of(groups + [{"params": g, **own} for g in self.schedule.groups()])}

    def compile(self) -> None:
        self.denoiser.network.compile()

    def losses(self, batch: Batch) -> Outcome:
        draw = batch.draw()
        times = self.times.sample(draw)
        # Before the network is at work: a device would be waited for.
        ends = zip(("gamma_0", "gamma_1"), self.schedule.ends(), strict=True) if self.schedule.learned else ()
        figures = {name: float(end) for name, end in ends}
        found = self.losses_at(replace(batch, labels=self._dropped(batch.labels, draw)), times, draw)
        parts = {f"loss_{name}": part.detach() for name, part in found.parts.items()} if len(found.parts) > 1 else {}
        return replace(self.outcome(times, found.total, parts), figures=figures)

    def _dropped(self, labels: Int64[Tensor, "n"] | None, draw: Draw) -> Int64[Tensor, "n"] | None:
        """The labels, a part of them no class (Ho & Salimans 2022, algorithm 1)."""
        if not self.label_dropout or labels is None:
            return labels
        assert self.denoiser.no_class is not None
        return torch.where(draw.uniform().to(labels.device) < self.label_dropout, self.denoiser.no_class, labels)

    def losses_at(self, batch: Batch, times: Times, draw: Draw) -> Losses:
        """The objective's losses of a batch at these times, with the noise of these streams."""
        label = batch.labels if self.conditional else None
        condition = Condition(label)
        if self.pairs is not None:
            low = Draw((*key, "low") for key in batch.keys)
            condition = self.pairs.condition(self.denoiser, batch.images, low, label)
        return self.objective(self.denoiser, self.x0(batch), condition, times, draw)

    def validate(self, batch: Batch) -> dict[str, Float[Tensor, "n"]]:
        """The objective at fixed times, spread evenly over the schedule, and fixed noise."""
        return {"validation_loss": self.losses_at(batch, self.held_out(batch), batch.draw()).total}


@register("learner", "denoising")
@dataclass(frozen=True, kw_only=True)
class DenoisingSettings(LearnerSettings):
    """Train a denoiser. `conditional`: on the data's classes; `label_dropout`: that part of the labels is dropped, for
    classifier-free guidance: the network then has a class more, the last, which stands for none. Of an upsampler
    (`network.upsampler`), `low`: the side, or [height, width], that each training image is reduced to, which it is to
    be made from again; `low_noise`: the time of the schedule up to which that is noised in training, which the network
    is told (`network.low_time`)."""

    timed: ClassVar = True
    encodes: ClassVar = True

    objective: Annotated[Any, Part("objective")] = "simple"
    times: Annotated[Any, Part("times")] = "uniform"
    parameterization: Annotated[Any, Part("parameterization")] = "epsilon"
    variance: Variance = "fixed_large"
    conditional: bool = False
    label_dropout: Annotated[float, Ge(0), Lt(1)] = 0.0
    low: Annotated[int, Ge(1)] | tuple[Annotated[int, Ge(1)], Annotated[int, Ge(1)]] | None = None
    low_noise: Annotated[float, Ge(0)] = 0.0

    def __post_init__(self) -> None:
        """A learned variance needs an objective that trains it, and L_hybrid's bound trains nothing else."""
        if self.label_dropout and not self.conditional:
            raise InputError(
                f"learner.label_dropout {self.label_dropout:g}: there are labels with conditional true only"
            )
        objective = constructor("objective", self.objective)
        goes_with = VARIANCES if objective is None else getattr(objective, "variances", FIXED)
        if self.variance not in goes_with:
            raise InputError(
                f"learner.variance {self.variance!r}: objective {named(self.objective)!r} goes with "
                f"{' and '.join(goes_with)}"
            )
        if self.low_noise and self.low is None:
            raise InputError(f"learner.low_noise {self.low_noise:g}: of an upsampler's low image; expected learner.low")

    def network(self, given: Given) -> nn.Module:
        channels, *size = given.shape
        outputs = channels * (2 if self.variance == "learned_range" else 1)
        classes = len(given.classes) + (self.label_dropout > 0) if self.conditional else 0
        return given.network(channels, outputs, tuple(size), classes)

    def learner(self, network: nn.Module, given: Given) -> DenoisingLearner:
        parameterization = construct("parameterization", self.parameterization)
        no_class = len(given.classes) if self.label_dropout else None
        schedule = given.schedule(learned=True)
        denoiser = Denoiser(network, schedule, parameterization, self.variance, given.range, no_class, given.codec)
        pairs = Pairs.of(self.low, self.low_noise)
        check_pairs(denoiser, pairs, given.shape[1:])
        times, objective = construct("times", self.times, denoiser.schedule), construct("objective", self.objective)
        return DenoisingLearner(denoiser, objective, times, self.conditional, self.label_dropout, pairs)
