"""Learners: what is trained, by which optimisers, and what a step is. The loop drives them and knows no diffusion."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, cast

import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn
from torch.optim import Optimizer

from trilemma.process import GOLDEN, ClassPosterior, Codec, Denoiser, Draw, Schedule, Times, TimeSampler, spread
from trilemma.training.batches import Batch
from trilemma.training.settings import TrainingSettings


@dataclass(frozen=True)
class Outcome:
    """What a batch gave: the scalar to descend on, the loss of each image [n] (detached, unweighted), the training
    times [n] as fractions of T if there are any, and what else is to be logged: figures of each image by name, and
    `figures` that are of none."""

    loss: Float[Tensor, ""]
    each: Float[Tensor, "n"]
    times: Float64[Tensor, "n"] | None = None
    parts: Mapping[str, Float[Tensor, "n"]] = field(default_factory=dict)
    figures: Mapping[str, float] = field(default_factory=dict)


Losses = Callable[[Batch], Outcome]


class Loop(Protocol):
    """What the loop does for a learner's step. `step`: the number of this one, 0 the first."""

    step: int

    def descend(self, losses: Losses, batch: Batch, optimizer: str = "optimizer") -> Outcome:
        """One update by the optimiser of this name: the gradients of these losses of the batch, over its micro-batches
        and all processes, in the settings' precision, clipped, each group of parameters by itself, at its
        rate. No other parameters take gradients meanwhile. Gives the losses of the whole global batch. A loss or
        gradient that is not finite ends the learner's step here: nothing of this update is kept, and the step counts as
        skipped."""

    def unseen(self, losses: Losses, count: int) -> Iterator[Outcome]:
        """The losses of so many more global batches, without gradients; those that are not finite are left out."""


class Grows(Protocol):
    """A module that is told of the training step, with `grow(step)`, and says whether idle weights come into use; and
    which of its levels are `running` at a step."""

    def grow(self, step: int) -> bool: ...

    def running(self, step: int) -> tuple[bool, ...]: ...


class Learner(ABC):
    """What is trained. `network` is the plain module that checkpoints hold; several networks are an `nn.ModuleDict`,
    of which the one that is sampled is the `generator`, the one that encodes and decodes the `codec`, if one does. The
    losses are computed through it: the loop wraps nothing in it.

    A learner that gives a `denoiser` is sampled and evaluated; one that gives a `classifier`, of clean images, measures
    images; one that gives a `posterior`, of noised ones, guides samplers; one that gives a `codec` is what others
    diffuse in, and its scale is 1: they measure it."""

    denoiser: Denoiser | None = None
    classifier: nn.Module | None = None
    posterior: ClassPosterior | None = None

    def __init__(self, network: nn.Module):
        self.network = network

    @property
    def codec(self) -> Codec | None:
        """The codec that is trained, of the weights of this moment."""
        return None

    @property
    def averaged(self) -> nn.Module:
        """The part of the network whose weights are averaged."""
        return sampled(self.network)

    def optimizers(self, settings: TrainingSettings) -> Mapping[str, Optimizer]:
        """The optimisers by name. A parameter belongs to one at most; the loop moves each group's rate along the
        settings' schedule."""
        return {"optimizer": settings.optimizer_of(self.network.parameters())}

    def ready(self) -> None:  # noqa: B027 — most need nothing else
        """Open what training needs that is no part of what is trained; called before anything is written. Raises
        InputError where it is not to be had."""

    def compile(self) -> None:
        """Have what is called compiled."""
        self.network.compile()

    @property
    def growing(self) -> list[Grows]:
        """The modules of the network that grow."""
        return [cast(Grows, module) for module in self.network.modules() if hasattr(module, "grow")]

    @property
    def partial(self) -> bool:
        """Whether an update may leave some of its optimiser's parameters without gradients."""
        return bool(self.growing)

    def kind(self, step: int) -> tuple[object, ...]:
        """What sort of step training step `step` (0…) is: those of a kind take as long as each other."""
        return tuple(module.running(step) for module in self.growing)

    def begin(self, step: int) -> bool:
        """Be told that training step `step` (0…) comes next. Says whether weights that were idle so far come into use:
        the average of the weights then begins anew, or it would be mostly their initialisation."""
        return any([module.grow(step) for module in self.growing])

    @abstractmethod
    def step(self, batch: Batch, loop: Loop) -> Outcome:
        """One training step, its updates made through the loop: what it gave over the global batch."""

    @abstractmethod
    def validate(self, batch: Batch) -> dict[str, Float[Tensor, "n"]]:
        """Figures of each image on held-out data, or of some of them, by name; the same every time for the same
        weights."""

    def state_dict(self) -> dict[str, Any]:
        """What has been learnt besides weights, as nested tensors and JSON values, of the same names, shapes and types
        at every step."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: B027 — most have learnt nothing else
        """Take up what `state_dict` gave."""


def sampled(network: nn.Module) -> nn.Module:
    """Of what a learner trains, the network that is sampled, or is the codec; where none is, all of it."""
    if not isinstance(network, nn.ModuleDict):
        return network
    return next((network[name] for name in ("generator", "codec") if name in network), network)


class OneLoss(Learner):
    """A learner of one loss: its step is one descent."""

    @abstractmethod
    def losses(self, batch: Batch) -> Outcome:
        """The losses of a batch, with gradients."""

    def step(self, batch: Batch, loop: Loop) -> Outcome:
        return loop.descend(self.losses, batch)


class TimedLearner(OneLoss):
    """A learner of one loss at times of a schedule, which a time sampler draws and is told the losses of. With a
    `codec` it is given the moments of latents for images (`Codec.joined`)."""

    def __init__(self, network: nn.Module, schedule: Schedule, times: TimeSampler, codec: Codec | None = None):
        super().__init__(network)
        self.schedule, self.times = schedule, times
        self.encoding = codec if codec is not None else Codec()

    def x0(self, batch: Batch) -> Float[Tensor, "n c h w"]:
        """What is noised of a batch: its images, or latents of them, drawn anew at each step."""
        return self.encoding.drawn(batch.images, lambda: Draw((*key, "latent") for key in batch.keys))

    def step(self, batch: Batch, loop: Loop) -> Outcome:
        outcome = super().step(batch, loop)
        self.observe(outcome)
        for other in loop.unseen(self.losses, self.times.extra):
            self.observe(other)
        return outcome

    def outcome(
        self, times: Times, each: Float[Tensor, "n"], parts: Mapping[str, Float[Tensor, "n"]] | None = None
    ) -> Outcome:
        """What a batch gave whose images had these losses at these times."""
        loss = (each * times.weight.to(each.dtype).to(each.device)).mean()
        return Outcome(loss, each.detach(), times.t / self.schedule.T, parts or {})

    def held_out(self, batch: Batch) -> Times:
        """The times at which a held-out batch is looked at: fixed, and spread evenly over the schedule."""
        # The position in the key, not in the batch, fixes the time: the same whatever the batch size.
        position = torch.tensor([int(key[-1]) for key in batch.keys], dtype=torch.float64)
        t = spread(self.schedule, position * GOLDEN % 1.0)
        return Times(t, torch.ones_like(t))

    def observe(self, outcome: Outcome) -> None:
        """Tell the time sampler the losses of a global batch."""
        assert outcome.times is not None
        self.times.observe(outcome.times * self.schedule.T, outcome.each)

    def state_dict(self) -> dict[str, Any]:
        return {"times": self.times.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.times.load_state_dict(state["times"])


@dataclass(frozen=True)
class Given:
    """What the rest of a recipe gives a learner: the (channels, height, width) of the images, or of their latents; the
    data's classes and range; the schedule, which is learned only for those who ask with `learned` true; the network, a
    function of its arguments; the classifier of images like these that a run has trained, a function of its path, to
    be called in training alone; and the codec, where latents are diffused."""

    shape: tuple[int, int, int]
    classes: Sequence[str]
    range: tuple[float, float]
    schedule: Callable[..., Schedule]
    network: Callable[..., nn.Module]
    classifier: Callable[[str], nn.Module]
    codec: Codec | None = None


class LearnerSettings(ABC):
    """The learner section of a recipe. Its registered class has the section's keys as keyword-only parameters, those
    that are parts themselves annotated with `Part`, and puts a learner together. With a key `conditional`, true
    conditions the model on the data's classes."""

    timed: ClassVar[bool] = False
    """Whether the recipe has to have a schedule."""

    encodes: ClassVar[bool] = False
    """Whether it can learn from latents, where a recipe has a codec."""

    labelled: ClassVar[bool] = False
    """Whether the data have to have labels; for a `conditional` learner they have to."""

    generates: ClassVar[bool] = True
    """Whether it learns to make images, so that a run of it can be sampled and measured."""

    @abstractmethod
    def network(self, given: Given) -> nn.Module:
        """The network, its weights as initialised."""

    @abstractmethod
    def learner(self, network: nn.Module, given: Given) -> Learner:
        """The learner that trains this network."""
