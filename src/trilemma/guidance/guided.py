"""A denoiser with guides round it, as samplers take it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from trilemma.errors import InputError
from trilemma.guidance.guides import Asked, Guide
from trilemma.process import BoundDenoiser, Condition, Denoiser, Draw, Prediction


@dataclass(frozen=True)
class GuidedDenoiser(BoundDenoiser):
    """A denoiser, its condition, and what guides it. At times where no guide acts it is the denoiser itself."""

    guides: tuple[Guide, ...] = ()

    def __call__(self, x_t: Float[Tensor, "n c h w"], t: Float64[Tensor, "*n"]) -> Prediction:
        acting = [guide for guide in self.guides if guide.acts(float(t))]
        if not acting:
            return super().__call__(x_t, t)
        if any(guide.wants_without_class for guide in acting):
            plain, without_class = self._with_and_without(x_t, t)
        else:
            plain, without_class = super().__call__(x_t, t), None
        asked = Asked(x_t, t, self.condition, plain, without_class)
        guided = plain
        for guide in acting:
            guided = guide.steer(guided, asked)
        return guided

    def _with_and_without(self, x_t: Tensor, t: Tensor) -> tuple[Prediction, Prediction]:
        """The predictions with the class and without, of one batch of twice as many."""
        assert self.denoiser.no_class is not None and self.condition.label is not None
        label = self.condition.label
        none = torch.full_like(label, self.denoiser.no_class)
        twice = {name: torch.cat([value, value]) for name, value in self.condition.given().items()}
        both = self.denoiser(torch.cat([x_t, x_t]), t, Condition(**twice | {"label": torch.cat([label, none])}))
        parts = {field.name: getattr(both, field.name) for field in fields(both)}
        present = {name: value.chunk(2) for name, value in parts.items() if value is not None}
        with_class, without = ({name: halves[i] for name, halves in present.items()} for i in (0, 1))
        return Prediction(**with_class), Prediction(**without)


def bind(denoiser: Denoiser, condition: Condition, guides: Sequence[Guide], draw: Draw | None = None) -> BoundDenoiser:
    """The denoiser with its condition, what it draws latents from, and those guides that do anything. Raises InputError
    where one cannot guide it, or guides towards a class and none is given."""
    acting = tuple(guide for guide in guides if guide.scale > 0)
    for guide in acting:
        guide.check(denoiser)
        if guide.needs_label and condition.label is None:
            raise InputError(f"guidance {guide.scale:g}: towards which class? It needs a label for each image")
    return GuidedDenoiser(denoiser, condition, draw, acting) if acting else denoiser.bind(condition, draw)
