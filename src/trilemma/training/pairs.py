"""What an upsampler is trained on: images and their low-resolution selves, made on the fly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from trilemma.errors import InputError
from trilemma.process import Condition, Denoiser, Draw, low_condition, reduced


@dataclass(frozen=True)
class Pairs:
    """The low image of each training image: it, `reduced` to `size` (h, w), as guided-diffusion's training has it;
    noised to a time drawn for each image, uniformly from 0 to `noise` on the run's schedule (whole numbers in a table),
    so that the upsampler forgives what a base model does not get right (Ho et al. 2022, section 4.2)."""

    size: tuple[int, int]
    noise: float = 0.0

    @classmethod
    def of(cls, low: int | Sequence[int] | None, noise: float = 0.0) -> Pairs | None:
        """As a recipe has them: `low` a side or [height, width], None where there are none."""
        if low is None:
            return None
        height, width = (low, low) if isinstance(low, int) else low
        return cls((height, width), noise)

    def condition(
        self, denoiser: Denoiser, images: Float[Tensor, "n c h w"], draw: Draw, label: Int64[Tensor, "n"] | None
    ) -> Condition:
        """What the upsampler is told of these images; `draw`: of this use alone."""
        low = reduced(images, self.size, denoiser.data_range)
        s = torch.zeros(len(images), dtype=torch.float64)
        if self.noise:
            tabulated = denoiser.schedule.steps is not None
            s = (draw.uniform() * (int(self.noise) + 1)).floor() if tabulated else draw.uniform() * self.noise
        return low_condition(denoiser.schedule, low, s, draw, label)


def check_pairs(denoiser: Denoiser, pairs: Pairs | None, size: tuple[int, ...]) -> None:
    """Raises InputError where images of this size (h, w) have no such pairs, or the denoiser no place for them."""
    network = denoiser.network
    if pairs is None:
        if getattr(network, "upsampler", False):
            raise InputError("network.upsampler true: learner.low is missing, the side of its low images")
        return
    low = f"learner.low {list(pairs.size)}"
    if not (pairs.size[0] <= size[0] and pairs.size[1] <= size[1] and pairs.size != size):
        raise InputError(f"{low}: expected less than the images' {list(size)} (height, width)")
    if "low" not in denoiser.call.others:
        raise InputError(f"{low}: the network takes no low image, expected network.upsampler true")
    if pairs.noise > denoiser.schedule.T:
        raise InputError(
            f"learner.low_noise {pairs.noise:g}: expected a time of the schedule, 0 to {denoiser.schedule.T:g}"
        )
    if pairs.noise and "low_time" not in denoiser.call.others:
        raise InputError(
            f"learner.low_noise {pairs.noise:g}: the network is told of it, expected network.low_time true"
        )
