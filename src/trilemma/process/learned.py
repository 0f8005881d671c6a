"""The noise schedule that is learned (Kingma et al. 2021, section 3.1): γ rises whatever its weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt, Le
from jaxtyping import Float, Float64
from torch import Tensor, nn
from torch.nn.functional import softplus

from trilemma.errors import InputError
from trilemma.process.schedules import Schedule
from trilemma.registry import register

STEEPNESS = 20.0
"""How steep the transitions begin, at most: each rises over about a fifth of the time."""

HALVINGS = 56
"""Of the interval in which a time is looked for: to float64's last digit but a few."""


@register("schedule", "vdm")
class VDM(Schedule, nn.Module):
    """γ(t) = γ_0 + (γ_1 − γ_0) n(t), learned with the network (Kingma et al. 2021, section 3.1 and appendix H; C's
    V(t), 1 − α² = sigmoid(V)). n rises from 0 to 1: `inside` linear, n(t) = t; learned, n(t) = (ñ(t) − ñ(0))/(ñ(1) −
    ñ(0)), ñ(t) = t + Σ_j b_j sigmoid(w_j t + c_j) over `hidden` transitions with b, w > 0, so that no weights make it
    fall. `ends` learned: γ_0 and γ_1 begin at `gamma_min` and `gamma_max`; fixed, they stay there. `rate`: the learning
    rate of both over the network's.

    t = 0 is clean data, γ = −∞; just above it γ is γ_0, and so little noise that images are read off x_t there. The
    network is told γ: 1000 (γ − `gamma_min`)/(`gamma_max` − `gamma_min`), the ends as they began.

    Its parameters are float64, and may lie on any device; what the methods give is on the CPU, and has gradients within
    `learning` only."""

    T, steps, t_min = 1.0, None, 1e-9

    def __init__(
        self,
        *,
        inside: Literal["learned", "linear"] = "learned",
        ends: Literal["learned", "fixed"] = "learned",
        gamma_min: Annotated[float, Ge(-40), Le(40)] = -13.3,
        gamma_max: Annotated[float, Ge(-40), Le(40)] = 5.0,
        hidden: Annotated[int, Ge(1), Le(100_000)] = 1024,
        rate: Annotated[float, Gt(0), Le(1e6)] = 1.0,
    ):
        super().__init__()
        if gamma_max <= gamma_min:
            raise InputError(f"schedule.gamma_max {gamma_max:g} should be more than gamma_min {gamma_min:g}")
        self.first, self.last, self.rate = gamma_min, gamma_max, rate
        self.at_ends, self.within = nn.ParameterDict(), nn.ParameterDict()
        if ends == "learned":
            self.at_ends["gamma_0"] = nn.Parameter(torch.tensor(gamma_min, dtype=torch.float64))
            self.at_ends["raw_span"] = nn.Parameter(_raw(torch.tensor(gamma_max - gamma_min, dtype=torch.float64)))
        if inside == "learned":
            # Transitions as wide as a few of their distances, over [0, 1]: together nearly a straight line.
            place = (torch.arange(hidden, dtype=torch.float64) + 0.5) / hidden
            steep = torch.full_like(place, min(STEEPNESS, 4.0 * hidden))
            self.within["raw_b"] = nn.Parameter(_raw(torch.ones_like(place)))
            self.within["raw_w"] = nn.Parameter(_raw(steep))
            self.within["c"] = nn.Parameter(-steep * place)
        self._inside: _Inside | None = None

    def groups(self) -> list[list[nn.Parameter]]:
        return [list(part.parameters()) for part in (self.at_ends, self.within) if len(part)]

    @contextmanager
    def learning(self) -> Iterator[_Inside]:
        """What is computed inside the `with` has gradients. Those of what is inside are of the mean of squares of the
        losses [n], one an image at its own time, that what it gives is told before the backward pass: the estimator's
        variance but for a constant, from the one backward pass (Kingma et al. 2021, appendix I.2). Those of the ends
        are of the loss itself."""
        self._inside = inside = _Inside(self._held(learning=True))
        try:
            yield inside
        finally:
            self._inside = None

    def ends(self) -> tuple[Float64[Tensor, ""], Float64[Tensor, ""]]:
        if not len(self.at_ends):
            first, last = torch.tensor([self.first, self.last], dtype=torch.float64)
            return first, last
        ends = self._held()
        return ends["gamma_0"], ends["gamma_0"] + softplus(ends["raw_span"])

    def gamma(self, t: Float64[Tensor, "*n"]) -> Float64[Tensor, "*n"]:
        self.check(t)
        first, last = self.ends()
        return torch.where(t == 0, -math.inf, first + (last - first) * self._rise(t)[0])

    def slope(self, t: Float64[Tensor, "*n"]) -> Float64[Tensor, "*n"]:
        self.check(t)
        first, last = self.ends()
        return (last - first) * self._rise(t)[1]

    @torch.no_grad()
    def time_of(self, gamma: Float64[Tensor, "*n"]) -> Float64[Tensor, "*n"]:
        low, high = torch.full_like(gamma, self.t_min), torch.full_like(gamma, self.T)
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            below = self.gamma(middle) < gamma
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return low

    def network_time(self, t: Float64[Tensor, "*n"]) -> Float64[Tensor, "*n"]:
        return 1000.0 * (self.gamma(t) - self.first) / (self.last - self.first)

    def _rise(self, t: Float64[Tensor, "*n"]) -> tuple[Float64[Tensor, "*n"], Float64[Tensor, "*n"]]:
        """n(t) and its derivative n'(t)."""
        if not len(self.within):
            return t, torch.ones_like(t)
        if self._inside is not None and torch.is_grad_enabled():
            return self._inside.at(t, lambda: self._risen(t))
        return self._risen(t)

    def _risen(self, t: Float64[Tensor, "*n"]) -> tuple[Float64[Tensor, "*n"], Float64[Tensor, "*n"]]:
        held = self._held()
        b, w, c = softplus(held["raw_b"]) / len(held["raw_b"]), softplus(held["raw_w"]), held["c"]
        risen = torch.sigmoid(w * t[..., None] + c)
        first, last = (b * torch.sigmoid(c)).sum(), 1.0 + (b * torch.sigmoid(w + c)).sum()
        n = (t + (b * risen).sum(-1) - first) / (last - first)
        return n, (1.0 + (b * w * risen * (1.0 - risen)).sum(-1)) / (last - first)

    def _held(self, learning: bool = False) -> dict[str, Float64[Tensor, "..."]]:
        """The parameters where times are; while learning with gradients, and the same ones throughout: a device is
        waited for once."""
        if self._inside is not None:
            return self._inside.held
        given = {**self.at_ends, **self.within}
        return {key: (v if learning else v.detach()).to("cpu", torch.float64) for key, v in given.items()}


class _Inside:
    """What is computed while a schedule learns, once a tensor of times, from the parameters `held`, and the losses that
    its inside is to make steady."""

    def __init__(self, held: dict[str, Tensor]) -> None:
        self.held = held
        self._known: list[tuple[Tensor, tuple[Tensor, Tensor]]] = []
        self._losses: Tensor | None = None

    def __call__(self, losses: Float[Tensor, "n"]) -> None:
        """Be told the losses whose squares' mean the inside descends on, as they enter the mean that the rest does."""
        self._losses = losses.detach()

    def at(self, t: Tensor, rise: Callable[[], tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        """n and n' at these times. Where each image has its own, what flows back through them is of its loss alone:
        d L²/dn = 2 L dL/dn, so it is scaled there."""
        for known, values in self._known:
            if known is t:
                return values
        values = rise()
        self._known.append((t, values))
        for value in values if t.dim() else ():
            if value.requires_grad:
                value.register_hook(self._squared)
        return values

    def _squared(self, gradient: Tensor) -> Tensor:
        assert self._losses is not None, "the schedule learns, and is not told of what"
        return 2.0 * self._losses.to(gradient.device, gradient.dtype) * gradient


def _raw(value: Float64[Tensor, "*n"]) -> Float64[Tensor, "*n"]:
    """The inverse of softplus."""
    return value + torch.log(-torch.expm1(-value))
