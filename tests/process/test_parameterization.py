from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.exact import Fixed, linear_alpha_bar
from trilemma.errors import InputError
from trilemma.process import Condition, Cosine, Denoiser, Linear, perturb
from trilemma.process.parameterization import Epsilon

NAMES = ["epsilon", "x0", "v"]
SCHEDULES = [Linear(steps=1000), Cosine(steps=50)]


def images(seed: int, count: int = 4) -> Tensor:
    return torch.randn(count, 2, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


class Echo(torch.nn.Module):
    """F that depends on what the network is shown, and keeps it."""

    def forward(self, x: Tensor, time: Tensor, **condition: Tensor) -> Tensor:
        self.x, self.time, self.condition = x, time, condition
        return 0.3 * x + (0.01 * time)[:, None, None, None].to(x.dtype)


def test_targets_by_hand() -> None:
    x0, eps = images(7), images(8)
    table = torch.from_numpy(linear_alpha_bar(1000))[300]
    alpha, sigma, t = table.sqrt(), (1 - table).sqrt(), torch.tensor(300.0, dtype=torch.float64)
    expected = {"epsilon": eps, "x0": x0, "v": alpha * eps - sigma * x0}
    for name, target in expected.items():
        torch.testing.assert_close(Denoiser(Fixed(x0), Linear(), name).target(x0, eps, t), target)


def test_epsilon_with_a_skip_is_added_to_x_t() -> None:
    """ε̂ = x_t + F (Kingma et al. 2021, appendix B)."""
    x_t, t = images(9), torch.tensor(300.0, dtype=torch.float64)
    network = Echo()
    found = Denoiser(network, Linear(), Epsilon(skip=True))(x_t, t)
    torch.testing.assert_close(found.eps, x_t + network(x_t, network.time))
    assert torch.equal(network.x, x_t)
    x0, eps = images(7), images(8)
    denoiser = Denoiser(network, Linear(), Epsilon(skip=True))
    torch.testing.assert_close(denoiser.target(x0, eps, t), eps - perturb(Linear(), x0, t, eps))


class TestWhatTheNetworkIsTold:
    def test_one_time_for_all_or_one_an_image(self) -> None:
        network = Echo()
        denoiser = Denoiser(network, Linear(steps=100))
        denoiser(images(0), torch.tensor(7.0, dtype=torch.float64))
        assert network.time.tolist() == [6.0] * 4
        denoiser(images(0), torch.tensor([1.0, 2.0, 50.0, 100.0], dtype=torch.float64))
        assert network.time.tolist() == [0.0, 1.0, 49.0, 99.0]
        assert network.time.dtype == torch.float32

    def test_variance_preserving_parameterizations_show_it_x_t_itself(self) -> None:
        network = Echo()
        for name in NAMES:
            Denoiser(network, Linear(), name)(images(0), torch.tensor(9.0, dtype=torch.float64))
            assert torch.equal(network.x, images(0))

    def test_only_the_conditions_that_are_given(self) -> None:
        network, t = Echo(), torch.tensor(7.0, dtype=torch.float64)
        denoiser = Denoiser(network, Linear(steps=100))
        denoiser(images(0), t)
        assert network.condition == {}
        label = torch.tensor([3, 1, 4, 1])
        bound = denoiser.bind(Condition(label))
        prediction = bound(images(0), t)
        assert network.condition["label"] is label
        assert torch.equal(prediction.x0, denoiser(images(0), t, Condition(label)).x0)
        assert bound.schedule is denoiser.schedule


def test_conditions_are_cut_like_batches() -> None:
    condition = Condition(torch.tensor([3, 1, 4, 1, 5]))
    cases = (
        (condition[1:3], [1, 4]),
        (condition[torch.tensor([4, 0])], [5, 3]),
        (condition.to("cpu"), [3, 1, 4, 1, 5]),
    )
    for found, expected in cases:
        assert found.given()["label"].tolist() == expected
    assert Condition()[1:3].label is None


def test_unknown_names_are_refused_with_the_nearest() -> None:
    with pytest.raises(InputError, match=r"unknown parameterization 'epsilom': did you mean 'epsilon'\?"):
        Denoiser(Echo(), Linear(), "epsilom")
    with pytest.raises(InputError, match=r"unknown variance 'fixed_smal': did you mean 'fixed_small'\?"):
        Denoiser(Echo(), Linear(), variance="fixed_smal")
