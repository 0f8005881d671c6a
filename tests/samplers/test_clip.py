from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
import torch

from tests.exact import Fixed, NoDraw, linear_alpha_bar
from trilemma.process import Condition, Denoiser, Draw, Linear, pair
from trilemma.samplers import DDIM, Ancestral, clipped


@pytest.mark.parametrize("kind", [Ancestral, DDIM])
def test_the_range_is_the_datas(kind: Any) -> None:
    """Data kept in [0, 1]: the last step's x̂_0 is held there, whatever the network says."""
    network = Fixed(torch.tensor([[[-0.5, 0.5, 1.5]]]))
    bound = Denoiser(network, Linear(steps=10), "x0", data_range=(0.0, 1.0)).bind(Condition())
    time = torch.tensor([10, 0], dtype=torch.float64)
    found, _ = kind().step(bound, torch.zeros(1, 1, 1, 3), time[0], time[1], None, cast(Draw, NoDraw()))
    assert found.flatten().tolist() == pytest.approx([0.0, 0.5, 1.0], abs=1e-6)


def test_dynamic_threshold_by_hand() -> None:
    """The quantile q of |x̂_0|, at least 1: x̂_0 is cut at it and divided by it, each image by its own."""
    generator = torch.Generator().manual_seed(0)
    x0 = torch.randn(3, 2, 5, 5, generator=generator) * torch.tensor([0.1, 1.5, 6.0]).reshape(3, 1, 1, 1)
    found = clipped(x0, quantile=0.9)
    for image, held in zip(x0.numpy(), found.numpy(), strict=True):
        limit = max(1.0, float(np.quantile(np.abs(image), 0.9)))
        np.testing.assert_allclose(held, np.clip(image, -limit, limit) / limit, rtol=1e-5, atol=1e-6)
    assert torch.equal(found[0], x0[0])
    # The same of a range that is not centred on zero.
    torch.testing.assert_close(clipped((x0 + 1) / 2, (0.0, 1.0), 0.9), (found + 1) / 2, rtol=1e-5, atol=1e-5)


def test_the_denoisers_fixed_variances_are_beta_and_beta_tilde() -> None:
    schedule, table = Linear(steps=100, beta_end=0.1), linear_alpha_bar(100, end=0.1)
    t, s = torch.tensor([80, 30], dtype=torch.float64)
    beta = 1 - table[80] / table[30]
    x_t = torch.zeros(2, 1, 2, 2, dtype=torch.float64)
    for name, value in (("fixed_large", beta), ("fixed_small", beta * (1 - table[30]) / (1 - table[80]))):
        denoiser = Denoiser(Fixed(torch.zeros(1, 2, 2)), schedule, variance=name)
        log_variance = denoiser.log_variance(denoiser(x_t, t), pair(schedule, t, s))
        assert log_variance.exp().item() == pytest.approx(value, rel=1e-10)
