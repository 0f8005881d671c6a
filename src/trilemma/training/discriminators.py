"""Discriminators as the learners that train against one have them: how they are made, called and scored."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, Literal

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import relu, softplus

from trilemma.errors import InputError
from trilemma.parts import make
from trilemma.training.learners import Given

AdversarialLoss = Literal["hinge", "non_saturating"]
OfLogits = Callable[[Tensor], Tensor]
LOSSES: dict[AdversarialLoss, tuple[OfLogits, OfLogits, OfLogits]] = {
    "hinge": (lambda d: relu(1 - d), lambda d: relu(1 + d), lambda d: -d),
    "non_saturating": (lambda d: softplus(-d), softplus, lambda d: softplus(-d)),
}
"""The discriminator's loss of a logit on a real image and on a fake one, and the generator's."""


def discriminator_of(part: Any, given: Given, shown: Sequence[str], conditional: bool = False) -> nn.Module:
    """The network `part` as a discriminator of the data's images, and of their classes if `conditional`, called with
    what is `shown`. Raises InputError for one that is not made, or not called, so."""
    channels, *size = given.shape
    made: nn.Module = make(
        "network", part, "discriminator",
        in_channels=channels, size=tuple(size), classes=len(given.classes) if conditional else 0,
    )  # fmt: skip
    label = {"label": None} if conditional else {}
    try:
        inspect.signature(made.forward).bind(*shown, **label)
    except TypeError as error:
        raise InputError(
            f"discriminator {type(made).__name__}: expected forward({', '.join([*shown, *label])}), and it has {error}"
        ) from error
    return made


def judged(discriminator: nn.Module, *shown: Tensor, **label: Tensor | None) -> Float[Tensor, "n"]:
    """A discriminator's logits. Raises InputError for one that gives anything else."""
    logits, count = discriminator(*shown, **label), len(shown[0])
    if tuple(logits.shape) != (count,):
        raise InputError(
            f"discriminator {type(discriminator).__name__} gave {list(logits.shape)}, expected a logit for each of "
            f"{count} images"
        )
    return logits.float()
