"""Guides: what each adds to a denoiser's prediction, by a scale that is 0 for nothing, at the times where it acts."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from trilemma.errors import InputError
from trilemma.process import ClassPosterior, Condition, Denoiser, Prediction, Schedule

Interval = tuple[float, float]
"""The times t, from and to, both included."""


@dataclass(frozen=True)
class Asked:
    """What was asked of the denoiser: x_t at time t under a condition; what it said, and, where a guide wants that,
    what it says when it is told no class."""

    x_t: Float[Tensor, "n c h w"]
    t: Float64[Tensor, ""]
    condition: Condition
    plain: Prediction
    without_class: Prediction | None = None


@dataclass(frozen=True, eq=False)
class Guide(ABC):
    """Steers a denoiser by `scale` ≥ 0, where 0 is nothing, at the times of `interval` (Kynkäänniemi et al. 2024), or
    at all. Raises InputError for a scale or an interval that is none.

    Several guides are added up: each sees the plain prediction, and none what another has made of it."""

    scale: float
    _: KW_ONLY
    interval: Interval | None = None

    needs_label: ClassVar[bool] = False
    """Whether it guides towards a class, and each image has to have a label."""

    wants_without_class: ClassVar[bool] = False
    """Whether it needs the prediction without a class; that is made in the same batch as the plain one."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.scale) and self.scale >= 0):
            raise InputError(f"guidance {self.scale:g}: expected a scale of 0 (none) or more")
        if self.interval is not None:
            check_interval(self.interval)

    def acts(self, t: float) -> bool:
        """Whether it does anything at this time."""
        return self.scale > 0 and (self.interval is None or self.interval[0] <= t <= self.interval[1])

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        """Networks of its own."""
        return ()

    @property
    def evaluations(self) -> int:
        """Network evaluations beside the plain prediction's, where it acts. A classifier's, with the way back to its
        gradient, is one."""
        return len(self.networks) + self.wants_without_class

    @property
    def how(self) -> str:
        """What guides, in words after the scale; "" for the model itself."""
        return ""

    @property
    def words(self) -> str:
        """The guide in words; "" where it does nothing."""
        if not self.scale:
            return ""
        within = "" if self.interval is None else f"t {self.interval[0]:g} to {self.interval[1]:g}"
        return " ".join(part for part in (f"guidance {self.scale:g}", self.how, within) if part)

    @abstractmethod
    def check(self, denoiser: Denoiser) -> None:
        """Raise InputError where it cannot guide this denoiser."""

    @abstractmethod
    def steer(self, guided: Prediction, asked: Asked) -> Prediction:
        """The prediction with what this guide adds."""

    def _away(self, guided: Prediction, plain: Prediction, weak: Prediction) -> Prediction:
        """guided + scale · (plain − weak), in x̂_0 and in ε̂: their weights sum to 1, so both still belong to x_t."""
        x0 = guided.x0 + self.scale * (plain.x0 - weak.x0)
        eps = guided.eps + self.scale * (plain.eps - weak.eps)
        return replace(guided, x0=x0, eps=eps, output=None)


@dataclass(frozen=True, eq=False)
class ClassifierFree(Guide):
    """Classifier-free guidance: ε_c + w (ε_c − ε_∅), w the scale, ε_∅ what the same network says without a class (Ho &
    Salimans 2022, eq. 6). For a model trained with label dropout."""

    needs_label: ClassVar[bool] = True
    wants_without_class: ClassVar[bool] = True

    def check(self, denoiser: Denoiser) -> None:
        if denoiser.no_class is None:
            raise InputError(
                f"guidance {self.scale:g}: this model was trained without label dropout (learner.label_dropout), which "
                "classifier-free guidance needs; guide by a classifier or by a weaker run"
            )

    def steer(self, guided: Prediction, asked: Asked) -> Prediction:
        assert asked.without_class is not None
        return self._away(guided, asked.plain, asked.without_class)


@dataclass(frozen=True, eq=False)
class Autoguidance(Guide):
    """Autoguidance: ε + w (ε − ε_weak), w the scale, ε_weak what a weaker model of the same images says under the same
    condition, such as an earlier checkpoint or a smaller network (Karras et al. 2024, eq. 4, whose w is 1 + this
    one)."""

    weaker: Denoiser
    _: KW_ONLY
    name: str = "a weaker model"

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        return (self.weaker.network,)

    @property
    def how(self) -> str:
        return f"away from {self.name}"

    def check(self, denoiser: Denoiser) -> None:
        _check_schedule(self, self.weaker.schedule, denoiser.schedule)
        if self.weaker.data_range != denoiser.data_range:
            raise InputError(
                f"guide {self.name}: its images lie in {list(self.weaker.data_range)}, the model's in "
                f"{list(denoiser.data_range)}"
            )

    def steer(self, guided: Prediction, asked: Asked) -> Prediction:
        return self._away(guided, asked.plain, self.weaker(asked.x_t, asked.t, asked.condition))


@dataclass(frozen=True, eq=False)
class ClassifierGuidance(Guide):
    """Classifier guidance: s ∇ log p(y | x_t), s the scale, of a classifier of noised images, left in the prediction's
    `gradient` for the kernel to apply (Dhariwal & Nichol 2021, algorithms 1 and 2). The log-probabilities are summed in
    fp32 at least, whatever the precision of the network."""

    needs_label: ClassVar[bool] = True

    posterior: ClassPosterior
    _: KW_ONLY
    name: str = "a classifier"

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        return (self.posterior.network,)

    @property
    def how(self) -> str:
        return f"by {self.name}"

    def check(self, denoiser: Denoiser) -> None:
        _check_schedule(self, self.posterior.schedule, denoiser.schedule)

    def acts(self, t: float) -> bool:
        """Where there is no signal (SNR 0) x_t says nothing of any class."""
        return super().acts(t) and float(self.posterior.schedule.alpha(torch.tensor(t, dtype=torch.float64))) > 0

    def steer(self, guided: Prediction, asked: Asked) -> Prediction:
        gradient = self.scale * self.gradient(asked.x_t, asked.t, asked.condition)
        return replace(guided, gradient=gradient if guided.gradient is None else guided.gradient + gradient)

    def gradient(
        self, x_t: Float[Tensor, "n c h w"], t: Float64[Tensor, ""], condition: Condition
    ) -> Float[Tensor, "n c h w"]:
        """∇ log p(y | x_t) of each image, y its label."""
        assert condition.label is not None
        with torch.inference_mode(False), torch.enable_grad():
            # Cloned here: what inference mode made cannot be differentiated through.
            x, label = x_t.detach().clone().requires_grad_(), condition.label.clone()
            # A view: what counts the operations of modules hooks their inputs, and a leaf takes no such hook.
            log_probs = self.posterior(x.view_as(x), t).log_softmax(1)
            if int(label.max()) >= log_probs.shape[1]:
                raise InputError(
                    f"guide {self.name}: class {int(label.max())} is asked for, and it knows {log_probs.shape[1]}"
                )
            return torch.autograd.grad(log_probs.gather(1, label[:, None]).sum(), x)[0]


def check_interval(interval: Sequence[float]) -> Interval:
    """The interval, if it is one. Raises InputError."""
    if len(interval) != 2 or not 0 <= interval[0] <= interval[1] < math.inf:
        found = ",".join(f"{value:g}" for value in interval)
        raise InputError(f"guidance_interval {found}: expected two times, the smaller first, such as 10,80")
    return (interval[0], interval[1])


def _check_schedule(guide: Autoguidance | ClassifierGuidance, its: Schedule, models: Schedule) -> None:
    """The same time has to be the same noise."""
    if its.T == models.T:
        t = torch.linspace(0, 1, 65, dtype=torch.float64)[1:] * its.T
        if torch.allclose(its.gamma(t), models.gamma(t), rtol=1e-6, atol=1e-6, equal_nan=True):
            return
    learned = " (learned, and not to the same γ(t))" if repr(its) == repr(models) else ""
    raise InputError(f"guide {guide.name}: its schedule is {its!r}, the model's {models!r}{learned}: expected the same")
