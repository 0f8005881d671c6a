"""Latents of a data set: how large they are."""

from __future__ import annotations

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from trilemma.errors import InputError


class LatentMoments:
    """Mean and standard deviation of the latents seen so far, draws of q(z | x): by channel, and over all."""

    def __init__(self) -> None:
        self.count, self._first, self._second = 0, torch.zeros(0), torch.zeros(0)

    def update(self, mean: Float[Tensor, "n d h w"], deviation: Float[Tensor, "n d h w"] | None = None) -> None:
        """See the latents of more images: their means and, where they are draws, standard deviations."""
        first = mean.double()
        second = first.square() + (0 if deviation is None else deviation.double().square())
        sums = [part.sum((0, 2, 3)).cpu() for part in (first, second)]
        if not self.count:
            self._first, self._second = torch.zeros_like(sums[0]), torch.zeros_like(sums[1])
        self._first, self._second = self._first + sums[0], self._second + sums[1]
        self.count += mean[:, 0].numel()

    @property
    def means(self) -> Float64[Tensor, "d"]:
        """Of each channel."""
        return self._first / self.count

    @property
    def deviations(self) -> Float64[Tensor, "d"]:
        """The standard deviation of each channel."""
        return (self._second / self.count - self.means.square()).clamp(min=0).sqrt()

    @property
    def second_moment(self) -> float:
        """E[z²] over all numbers."""
        return float(self._second.mean() / self.count)

    @property
    def deviation(self) -> float:
        """The standard deviation over all numbers. Raises InputError where there is none to measure."""
        variance = float(self._second.mean() / self.count - self.means.mean().square())
        if not variance > 0:
            raise InputError(
                f"codec: the latents' variance is {variance:g}, expected a positive one: has it been trained?"
            )
        return variance**0.5
