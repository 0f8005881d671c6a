from __future__ import annotations

from typing import cast

import pytest
import torch
from torch import Tensor

from tests.exact import ExactNetwork, Fixed, Given, Mixture, linear_alpha_bar, tabulated_levels
from trilemma.objectives import Simple
from trilemma.process import Condition, Denoiser, Draw, Linear, Times

TABLE = torch.from_numpy(linear_alpha_bar(100, end=0.1))
SCHEDULE = Linear(steps=100, beta_end=0.1)
T = torch.tensor([1.0, 30.0, 100.0], dtype=torch.float64)
TIMES = Times(T, torch.tensor([1.0, 5.0, 0.2], dtype=torch.float64))
ALPHA = TABLE[T.long()].sqrt()[:, None, None, None]
SIGMA = (1 - TABLE[T.long()]).sqrt()[:, None, None, None]


def images(seed: int) -> Tensor:
    return torch.randn(3, 2, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def draw(noise: Tensor) -> Draw:
    return cast(Draw, Given(noise))


def targets(x0: Tensor, eps: Tensor) -> dict[str, Tensor]:
    return {"epsilon": eps, "x0": x0, "v": ALPHA * eps - SIGMA * x0}


@pytest.mark.parametrize("name", ["epsilon", "x0", "v"])
class TestEachParameterization:
    def test_loss_by_hand(self, name: str) -> None:
        """A known F: the mean over an image's pixels of its squared distance to the target, one an image."""
        x0, eps, output = images(0), images(1), images(2)
        losses = Simple()(Denoiser(Fixed(output), SCHEDULE, name), x0, Condition(), TIMES, draw(eps))
        expected = [((targets(x0, eps)[name][i] - output[i]) ** 2).sum() / 40 for i in range(3)]
        torch.testing.assert_close(losses.total, torch.stack(expected))

    def test_the_right_output_costs_nothing(self, name: str) -> None:
        x0, eps = images(0), images(1)
        right = Denoiser(Fixed(targets(x0, eps)[name]), SCHEDULE, name)
        losses = Simple()(right, x0, Condition(), TIMES, draw(eps))
        torch.testing.assert_close(losses.total, torch.zeros(3, dtype=torch.float64), rtol=0, atol=1e-20)

    def test_x0_error_times_the_parameterizations_weight(self, name: str) -> None:
        """All three are E‖x_0 − x̂_0‖² weighted: by SNR for ε, by 1 for x_0, by 1 + SNR for v."""
        data = Mixture.random(2, (2, 4, 5))
        denoiser = Denoiser(ExactNetwork(data, tabulated_levels(TABLE.numpy()), name), SCHEDULE, name)
        x0, eps = data.sample(3), images(1)
        losses = Simple()(denoiser, x0, Condition(), TIMES, draw(eps))
        error = (x0 - data.denoised(ALPHA * x0 + SIGMA * eps, ALPHA, SIGMA)).square().flatten(1).mean(1)
        snr = ((ALPHA / SIGMA) ** 2).flatten()
        weights = {"epsilon": snr, "x0": torch.ones_like(snr), "v": 1.0 + snr}
        torch.testing.assert_close(losses.total, weights[name] * error)


def test_epsilon_is_ho_et_als_loss() -> None:
    """L_simple (eq. 14) written out: ‖ε − ε_θ(√ᾱ x_0 + √(1 − ᾱ) ε, t)‖², with the network seeing the noised image."""

    class Shrink(torch.nn.Module):
        def forward(self, x: Tensor, time: Tensor) -> Tensor:
            return 0.1 * x + 0.01 * time[:, None, None, None]

    x0, eps = images(0), images(1)
    x_t = ALPHA * x0 + SIGMA * eps
    expected = (eps - (0.1 * x_t + 0.01 * (T - 1)[:, None, None, None])).square().mean((1, 2, 3))
    losses = Simple()(Denoiser(Shrink(), SCHEDULE), x0, Condition(), TIMES, draw(eps))
    torch.testing.assert_close(losses.total, expected, rtol=1e-6, atol=0)


def test_condition_reaches_the_network_and_gradients_its_parameters() -> None:
    class Labelled(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.values = torch.nn.Parameter(torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64))

        def forward(self, x: Tensor, time: Tensor, label: Tensor) -> Tensor:
            return self.values[label][:, None, None, None].expand_as(x)

    network, eps = Labelled(), images(1)
    label = torch.tensor([2, 0, 2])
    losses = Simple()(Denoiser(network, SCHEDULE), images(0), Condition(label), TIMES, draw(eps))
    losses.total.sum().backward()
    value = torch.tensor([2.0, 0.0, 2.0], dtype=torch.float64)
    residual = 2 * (value - eps.mean((1, 2, 3)))
    expected = torch.stack([residual[1], torch.zeros(()).double(), residual[0] + residual[2]])
    torch.testing.assert_close(network.values.grad, expected)
