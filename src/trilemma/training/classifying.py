"""The learner of classifiers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Le, Lt
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from trilemma.process import Draw
from trilemma.registry import register
from trilemma.training.batches import Batch
from trilemma.training.learners import Given, LearnerSettings, OneLoss, Outcome


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


class ClassifierLearner(OneLoss):
    """Trains a classifier of clean images by cross-entropy, on images that `augment` has distorted."""

    def __init__(self, network: nn.Module, augment: Affine, label_smoothing: float = 0.0):
        super().__init__(network)
        self.classifier, self.augment, self.label_smoothing = network, augment, label_smoothing

    def losses(self, batch: Batch) -> Outcome:
        assert batch.labels is not None
        logits = self.network(self.augment(batch.images, batch.draw()))
        each = functional.cross_entropy(
            logits.float(), batch.labels, reduction="none", label_smoothing=self.label_smoothing
        )
        return Outcome(each.mean(), each.detach())

    def validate(self, batch: Batch) -> dict[str, Float[Tensor, "n"]]:
        assert batch.labels is not None
        logits = self.network(batch.images).float()
        right = (logits.argmax(1) == batch.labels).float()
        return {
            "validation_loss": functional.cross_entropy(logits, batch.labels, reduction="none"),
            "validation_accuracy": right,
        }


@register("learner", "classifier")
@dataclass(frozen=True, kw_only=True)
class ClassifierSettings(LearnerSettings):
    """Train a classifier of clean images. `rotate`: degrees; `shift`, `scale`: fractions; all ± and random an image."""

    labelled: ClassVar = True

    rotate: Annotated[float, Ge(0), Le(180)] = 0.0
    shift: Annotated[float, Ge(0), Lt(1)] = 0.0
    scale: Annotated[float, Ge(0), Lt(1)] = 0.0
    label_smoothing: Annotated[float, Ge(0), Lt(1)] = 0.0

    def network(self, given: Given) -> nn.Module:
        return given.network(given.shape[0], len(given.classes))

    def learner(self, network: nn.Module, given: Given) -> ClassifierLearner:
        return ClassifierLearner(network, Affine(self.rotate, self.shift, self.scale), self.label_smoothing)
