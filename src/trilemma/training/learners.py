"""Learners: what is trained, and the losses that a batch gives. The loop drives them and knows no diffusion."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn
from torch.nn import functional

from trilemma.networks import Growing
from trilemma.objectives import Losses, Objective
from trilemma.process import GOLDEN, Condition, Denoiser, Draw, Times, TimeSampler, spread
from trilemma.training.batches import Batch


@dataclass(frozen=True)
class Outcome:
    """What a batch gave: the scalar to descend on, the loss of each image [n] (detached, unweighted), the training
    times [n] as fractions of T if there are any, and further means to log."""

    loss: Float[Tensor, ""]
    each: Float[Tensor, "n"]
    times: Float64[Tensor, "n"] | None = None


class Learner(ABC):
    """One network being trained. `network` is the plain module that checkpoints hold; `prepare` may put a wrapped one
    (data parallel, compiled) in the place where losses are computed."""

    extra: int = 0
    """Batches a step it wants to `observe` besides the one it is trained on."""

    partial: bool = False
    """Whether a step may leave parameters without gradients."""

    def __init__(self, network: nn.Module):
        self.network = network

    @abstractmethod
    def prepare(self, wrap: Callable[[nn.Module], nn.Module]) -> None:
        """Compute losses through `wrap(network)` from now on."""

    def begin(self, step: int) -> bool:
        """Be told that training step `step` (0…) comes next. Says whether weights that were idle so far come into use:
        the average of the weights then begins anew, or it would be mostly their initialisation."""
        return False

    @abstractmethod
    def losses(self, batch: Batch) -> Outcome:
        """The losses of a batch, with gradients."""

    @abstractmethod
    def validate(self, batch: Batch) -> dict[str, Float[Tensor, "n"]]:
        """Figures of each image on held-out data, by name; the same every time for the same weights."""

    def observe(self, outcome: Outcome) -> None:  # noqa: B027 — learning from losses is optional
        """Be told the losses of the whole global batch after a step."""

    def state_dict(self) -> dict[str, Any]:
        """What has been learnt besides weights."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: B027
        """Take up what `state_dict` gave."""


class DenoisingLearner(Learner):
    """Trains a denoiser by an objective at times drawn by a time sampler."""

    def __init__(self, denoiser: Denoiser, objective: Objective, times: TimeSampler):
        super().__init__(denoiser.network)
        self.denoiser, self.objective, self.times = denoiser, objective, times
        self.extra = times.extra
        self.partial = isinstance(self.network, Growing)

    def prepare(self, wrap: Callable[[nn.Module], nn.Module]) -> None:
        self.denoiser.network = wrap(self.network)

    def plain(self) -> Denoiser:
        """The denoiser over the plain network, which follows the weights but not the wrapping: for sampling."""
        return self.denoiser.over(self.network)

    def begin(self, step: int) -> bool:
        return isinstance(self.network, Growing) and self.network.grow(step)

    def losses(self, batch: Batch) -> Outcome:
        draw = batch.draw()
        times = self.times.sample(draw)
        each = self.losses_at(batch, times, draw).total
        loss = (each * times.weight.to(each.dtype).to(each.device)).mean()
        return Outcome(loss, each.detach(), times.t / self.denoiser.schedule.T)

    def losses_at(self, batch: Batch, times: Times, draw: Draw) -> Losses:
        """The objective's losses of a batch at these times, with the noise of these streams."""
        return self.objective(self.denoiser, batch.images, Condition(batch.labels), times, draw)

    def validate(self, batch: Batch) -> dict[str, Float[Tensor, "n"]]:
        """The objective at fixed times, spread evenly over the schedule, and fixed noise."""
        # The position in the key, not in the batch, fixes the time: the same whatever the batch size.
        position = torch.tensor([int(key[-1]) for key in batch.keys], dtype=torch.float64)
        t = spread(self.denoiser.schedule, position * GOLDEN % 1.0)
        times = Times(t, torch.ones_like(t))
        return {"validation_loss": self.losses_at(batch, times, batch.draw()).total}

    def observe(self, outcome: Outcome) -> None:
        assert outcome.times is not None
        self.times.observe(outcome.times * self.denoiser.schedule.T, outcome.each)

    def state_dict(self) -> dict[str, Any]:
        return {"times": self.times.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.times.load_state_dict(state["times"])


@dataclass(frozen=True)
class Affine:
    """Random affine distortion of small images: rotation in degrees, shift and scale as fractions, each uniform in
    ± its bound and each image's own draw."""

    rotate: float
    shift: float
    scale: float

    def __call__(self, images: Float[Tensor, "n c h w"], draw: Draw) -> Float[Tensor, "n c h w"]:
        angle, zoom, right, down = ((2 * draw.uniform() - 1).to(images.device, images.dtype) for _ in range(4))
        angle, zoom = angle * self.rotate * torch.pi / 180, 1 + self.scale * zoom
        cos, sin = angle.cos() * zoom, angle.sin() * zoom
        rows = [torch.stack([cos, -sin, 2 * self.shift * right], 1), torch.stack([sin, cos, 2 * self.shift * down], 1)]
        where = functional.affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
        return functional.grid_sample(images, where, align_corners=False, padding_mode="border")


class ClassifierLearner(Learner):
    """Trains a classifier of clean images by cross-entropy, on images that `augment` has distorted."""

    def __init__(self, network: nn.Module, augment: Affine, label_smoothing: float = 0.0):
        super().__init__(network)
        self.model, self.augment, self.label_smoothing = network, augment, label_smoothing

    def prepare(self, wrap: Callable[[nn.Module], nn.Module]) -> None:
        self.model = wrap(self.network)

    def losses(self, batch: Batch) -> Outcome:
        assert batch.labels is not None
        logits = self.model(self.augment(batch.images, batch.draw()))
        each = functional.cross_entropy(
            logits.float(), batch.labels, reduction="none", label_smoothing=self.label_smoothing
        )
        return Outcome(each.mean(), each.detach())

    def validate(self, batch: Batch) -> dict[str, Float[Tensor, "n"]]:
        assert batch.labels is not None
        logits = self.model(batch.images).float()
        right = (logits.argmax(1) == batch.labels).float()
        return {
            "validation_loss": functional.cross_entropy(logits, batch.labels, reduction="none"),
            "validation_accuracy": right,
        }
