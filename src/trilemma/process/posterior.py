"""p(y | x_t): a classifier of noised images seen through a schedule, as a denoiser is."""

from __future__ import annotations

import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from trilemma.errors import InputError
from trilemma.process.calling import Call
from trilemma.process.gaussian import over_image
from trilemma.process.schedules import Schedule


class ClassPosterior(nn.Module):
    """The logits of p(y | x_t), [n, k] in float32 or finer, of x_t = α x_0 + σ ε at any time t of a schedule
    (Dhariwal & Nichol 2021, section 4).

    The network is any module that is given x_t/√(α² + σ²), which is x_t itself where variance is preserved, and the
    time that the schedule tells it, [n] in float32, and returns logits [n, k] (see `Call`). It is told no class.
    Raises InputError for a network that takes no time, and for one whose output is no logits."""

    def __init__(self, network: nn.Module, schedule: Schedule):
        super().__init__()
        self.network, self.schedule, self.call = network, schedule, Call.of(network)

    def forward(self, x_t: Float[Tensor, "n c h w"], t: Float64[Tensor, "*n"]) -> Float[Tensor, "n k"]:
        """The logits of x_t, all of it at one time t or each image at its own (float64, on the CPU). Their gradient by
        x_t is there to be taken."""
        level = torch.hypot(self.schedule.alpha(t), self.schedule.sigma(t))
        time = self.schedule.network_time(t).to(torch.float32).to(x_t.device).expand(len(x_t))
        logits = self.call(self.network, over_image(1 / level, x_t) * x_t, time, {})
        found = tuple(getattr(logits, "shape", ()))
        if len(found) != 2 or found[0] != len(x_t):
            gave = f"gave {list(found)}" if found else f"gave a {type(logits).__name__}"
            raise InputError(f"network {type(self.network).__name__} {gave}, expected logits [{len(x_t)}, classes]")
        return logits if logits.dtype == torch.float64 else logits.float()
