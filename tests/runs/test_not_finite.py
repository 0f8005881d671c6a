"""An image that is not finite is never shown as a picture."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from trilemma.errors import InputError
from trilemma.process import Denoiser, Linear
from trilemma.recipes import parse_sampling
from trilemma.samplers import Sampler


class Broken(nn.Module):
    """Right for all images but the second, where it says NaN."""

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        out = torch.zeros_like(x)
        out[1] = math.nan
        return out


def sampler(name: str, schedule: Linear) -> Sampler:
    settings = parse_sampling({"sampler": name, "steps": 4})
    return settings.build(Denoiser(Broken(), schedule, "v"), (1, 4, 4))


def test_it_is_refused_and_its_seed_named() -> None:
    with pytest.raises(InputError, match="seed 8: the image is not finite"):
        sampler("ddim", Linear(steps=10)).generate([5, 8, 9], None)


@pytest.mark.parametrize("name", ["heun", "probability_flow", "dpmpp", "unipc"])
def test_a_solver_that_needs_signal_is_refused_where_there_is_none(name: str) -> None:
    with pytest.raises(InputError, match="is undefined where the schedule's SNR is 0"):
        sampler(name, Linear(steps=10, terminal_snr=0.0))
    assert sampler("ancestral", Linear(steps=10, terminal_snr=0.0)).evaluations == 4
