"""The low images of an upsampler, noised: conditioning augmentation."""

from __future__ import annotations

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from trilemma.process.denoiser import Condition
from trilemma.process.gaussian import perturb
from trilemma.process.noise import Draw
from trilemma.process.schedules import Schedule


def low_condition(
    schedule: Schedule,
    low: Float[Tensor, "n c h w"],
    s: Float64[Tensor, "n"],
    draw: Draw,
    label: Int64[Tensor, "n"] | None = None,
) -> Condition:
    """The condition of an upsampler that starts from these finished low images: z_s ~ q(z_s | z) and s itself, as the
    network is told times (Ho et al. 2022, section 4.2, non-truncated: the walk below is finished, then noised). At
    s = 0 it is the images themselves."""
    noised = perturb(schedule, low, s, draw.normal(low)) if bool((s > 0).any()) else low
    return Condition(label, noised, schedule.network_time(s).to(low.device, torch.float32))
