"""The learners of classifiers: of clean images, which measure others, and of noised ones, which guide samplers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from annotated_types import Ge, Le, Lt
from jaxtyping import Float, Float64
from torch import Tensor, nn
from torch.nn import functional

from trilemma.errors import InputError
from trilemma.parts import Part, construct
from trilemma.process import ClassPosterior, Codec, Draw, TimeSampler, perturb, quarters
from trilemma.registry import register
from trilemma.training.batches import Batch
from trilemma.training.learners import Given, Learner, LearnerSettings, OneLoss, Outcome, TimedLearner


@dataclass(frozen=True)
class Affine:
    """Random affine distortion of small images: rotation in degrees, shift and scale as fractions, each uniform in
    ± its bound and each image's own draw. `crop`: before it, a random crop of the image padded by so many pixels, which
    is a shift by whole pixels, rows and columns each uniform in ± crop: no pixel is a mean of others, so that little
    noise stays little. What comes in from outside repeats the edge."""

    rotate: float = 0.0
    shift: float = 0.0
    scale: float = 0.0
    crop: int = 0

    def __call__(self, images: Float[Tensor, "n c h w"], draw: Draw) -> Float[Tensor, "n c h w"]:
        if self.crop:
            images = self._cropped(images, draw)
        return self._distorted(images, draw) if self.rotate or self.shift or self.scale else images

    def _cropped(self, images: Float[Tensor, "n c h w"], draw: Draw) -> Float[Tensor, "n c h w"]:
        (n, _, h, w), count = images.shape, 2 * self.crop + 1
        top, left = ((draw.uniform() * count).long().to(images.device) for _ in range(2))
        rows, columns = (
            start[:, None] + torch.arange(side, device=images.device) for start, side in ((top, h), (left, w))
        )
        padded = functional.pad(images, [self.crop] * 4, mode="replicate").permute(0, 2, 3, 1)
        each = torch.arange(n, device=images.device)[:, None, None]
        return padded[each, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()

    def _distorted(self, images: Float[Tensor, "n c h w"], draw: Draw) -> Float[Tensor, "n c h w"]:
        angle, zoom, right, down = ((2 * draw.uniform() - 1).to(images.device, images.dtype) for _ in range(4))
        angle, zoom = angle * self.rotate * torch.pi / 180, 1 + self.scale * zoom
        cos, sin = angle.cos() * zoom, angle.sin() * zoom
        rows = [torch.stack([cos, -sin, 2 * self.shift * right], 1), torch.stack([sin, cos, 2 * self.shift * down], 1)]
        where = functional.affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
        return functional.grid_sample(images, where, align_corners=False, padding_mode="border")


def _losses(logits: Float[Tensor, "n k"], batch: Batch, label_smoothing: float = 0.0) -> Float[Tensor, "n"]:
    """The cross-entropy of each image, in nats."""
    assert batch.labels is not None
    return functional.cross_entropy(logits.float(), batch.labels, reduction="none", label_smoothing=label_smoothing)


def _right(logits: Float[Tensor, "n k"], batch: Batch) -> Float[Tensor, "n"]:
    """1 where the likeliest class is the image's, 0 elsewhere."""
    assert batch.labels is not None
    return (logits.detach().argmax(1) == batch.labels).float()


class ClassifierLearner(OneLoss):
    """Trains a classifier of clean images by cross-entropy, on images that `augment` has distorted."""

    def __init__(self, network: nn.Module, augment: Affine, label_smoothing: float = 0.0):
        super().__init__(network)
        self.classifier, self.augment, self.label_smoothing = network, augment, label_smoothing

    def losses(self, batch: Batch) -> Outcome:
        each = _losses(self.network(self.augment(batch.images, batch.draw())), batch, self.label_smoothing)
        return Outcome(each.mean(), each.detach())

    def validate(self, batch: Batch) -> dict[str, Float[Tensor, "n"]]:
        logits = self.network(batch.images)
        return {"validation_loss": _losses(logits, batch), "validation_accuracy": _right(logits, batch)}


class NoisyClassifierLearner(TimedLearner):
    """Trains p(y | x_t) by cross-entropy, on images that `augment` has distorted, noised to times that a time sampler
    draws (Dhariwal & Nichol 2021, section 4). Its accuracy is told with the loss, by quarter of t."""

    posterior: ClassPosterior

    def __init__(
        self,
        posterior: ClassPosterior,
        times: TimeSampler,
        augment: Affine,
        label_smoothing: float = 0.0,
        codec: Codec | None = None,
    ):
        super().__init__(posterior.network, posterior.schedule, times, codec)
        self.posterior, self.augment, self.label_smoothing = posterior, augment, label_smoothing

    def losses(self, batch: Batch) -> Outcome:
        draw = batch.draw()
        times = self.times.sample(draw)
        logits = self.logits(self.augment(self.x0(batch), draw), times.t, draw)
        each = _losses(logits, batch, self.label_smoothing)
        return self.outcome(times, each, {"accuracy": _right(logits, batch)})

    def logits(self, x0: Float[Tensor, "n c h w"], t: Float64[Tensor, "n"], draw: Draw) -> Float[Tensor, "n k"]:
        """Those of these images at these times, with the noise of these streams."""
        return self.posterior(perturb(self.schedule, x0, t, draw.normal(x0)), t)

    def validate(self, batch: Batch) -> dict[str, Float[Tensor, "n"]]:
        """The images as they are, at fixed times, spread evenly over the schedule, and fixed noise."""
        times = self.held_out(batch)
        logits = self.logits(self.x0(batch), times.t, batch.draw())
        right, quarter = _right(logits, batch), quarters(times.t / self.schedule.T).to(logits.device)
        return {
            "validation_loss": _losses(logits, batch),
            "validation_accuracy": right,
            **{f"validation_accuracy_t{q + 1}": right[quarter == q] for q in quarter.unique().tolist()},
        }


@register("learner", "classifier")
@dataclass(frozen=True, kw_only=True)
class ClassifierSettings(LearnerSettings):
    """Train a classifier of clean images. `rotate`: degrees; `shift`, `scale`: fractions; `crop`: pixels; all ± and
    random an image."""

    labelled: ClassVar = True
    generates: ClassVar = False

    rotate: Annotated[float, Ge(0), Le(180)] = 0.0
    shift: Annotated[float, Ge(0), Lt(1)] = 0.0
    scale: Annotated[float, Ge(0), Lt(1)] = 0.0
    crop: Annotated[int, Ge(0)] = 0
    label_smoothing: Annotated[float, Ge(0), Lt(1)] = 0.0

    def network(self, given: Given) -> nn.Module:
        return given.network(given.shape[0], classes=len(given.classes))

    def learner(self, network: nn.Module, given: Given) -> Learner:
        return ClassifierLearner(network, self.augment(given), self.label_smoothing)

    def augment(self, given: Given) -> Affine:
        """What is done to the images. Raises InputError for a crop that may miss them."""
        side = min(given.shape[1:])
        if self.crop >= side:
            raise InputError(f"learner.crop {self.crop}: expected 0 to {side - 1} pixels, of images of side {side}")
        return Affine(self.rotate, self.shift, self.scale, self.crop)


@register("learner", "noisy_classifier")
@dataclass(frozen=True, kw_only=True)
class NoisyClassifierSettings(ClassifierSettings):
    """Train a classifier of noised images, at all times of the schedule. `times`: what draws them; the rest as the
    classifier of clean images has it."""

    timed: ClassVar = True
    encodes: ClassVar = True

    times: Annotated[Any, Part("times")] = "uniform"

    def network(self, given: Given) -> nn.Module:
        channels, *size = given.shape
        return given.network(channels, classes=len(given.classes), size=tuple(size))

    def learner(self, network: nn.Module, given: Given) -> NoisyClassifierLearner:
        posterior = ClassPosterior(network, given.schedule())
        times = construct("times", self.times, posterior.schedule)
        distorts = [key for key in ("rotate", "shift", "scale", "crop") if getattr(self, key)]
        if distorts and given.codec is not None and not given.codec.identity:
            raise InputError(f"learner.{distorts[0]}: it distorts images, and latents are classified; expected 0")
        return NoisyClassifierLearner(posterior, times, self.augment(given), self.label_smoothing, given.codec)
