"""The exponential moving average of the weights, in fp32, with warm-up."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class EMA:
    """Shadow of a module's parameters, θ̄ ← θ̄ + (1 − d)(θ − θ̄) in fp32 or, of finer weights, in theirs; buffers are
    copied.

    The decay warms up as d = min(decay, (1 + n)/(10 + n)) over the updates n, so that the average forgets its random
    beginning: a short run's average is not its initialisation.
    """

    def __init__(self, module: nn.Module, decay: float):
        self.module, self.decay, self.updates = module, decay, 0
        self.shadow: dict[str, Tensor] = {
            name: value.detach().clone().to(_kept(value.dtype)) for name, value in module.state_dict().items()
        }
        self.parameters = [name for name, _ in module.named_parameters()]
        kept = sorted({_kept(parameter.dtype) for parameter in module.parameters()}, key=str)
        self._alike = [[name for name in self.parameters if self.shadow[name].dtype == each] for each in kept]

    @torch.no_grad()
    def update(self) -> None:
        """Take the module's present weights into the average."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        present = self.module.state_dict()
        for names in self._alike:
            shadows = [self.shadow[name] for name in names]
            weights = [present[name].to(self.shadow[name].dtype) for name in names]
            torch._foreach_lerp_(shadows, weights, 1.0 - decay)
        for name in present.keys() - set(self.parameters):
            self.shadow[name].copy_(present[name])

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The module holds the averaged weights inside the `with`, its own again after it."""
        own = {name: value.detach().clone() for name, value in self.module.state_dict().items()}
        self.module.load_state_dict(self.shadow)
        try:
            yield
        finally:
            self.module.load_state_dict(own)


def _kept(dtype: torch.dtype) -> torch.dtype:
    """The type that an average of this type is kept in."""
    return torch.promote_types(dtype, torch.float32) if dtype.is_floating_point else dtype
