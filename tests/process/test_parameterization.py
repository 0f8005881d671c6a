from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.exact import Fixed, linear_alpha_bar
from trilemma.errors import InputError
from trilemma.process import (
    PARAMETERIZATIONS,
    Condition,
    Cosine,
    Denoiser,
    Linear,
    Schedule,
    perturb,
)

NAMES = ["epsilon", "x0", "v"]
SCHEDULES = [Linear(steps=1000), Cosine(steps=50)]


def images(seed: int, count: int = 4) -> Tensor:
    return torch.randn(count, 2, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


class Echo(torch.nn.Module):
    """F that depends on what the network is shown, and keeps it."""

    def forward(self, x: Tensor, time: Tensor, **condition: Tensor) -> Tensor:
        self.x, self.time, self.condition = x, time, condition
        return 0.3 * x + (0.01 * time)[:, None, None, None].to(x.dtype)


def test_the_three_are_there() -> None:
    assert set(NAMES) <= set(PARAMETERIZATIONS)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("name", NAMES)
class TestEach:
    def test_prediction_explains_x_t(self, name: str, schedule: Schedule) -> None:
        """Whatever F is, α x̂_0 + σ ε̂ = x_t."""
        x_t = images(0)
        for t in (0.25, 1.0, 0.4 * schedule.T, schedule.T):
            time = torch.tensor(t, dtype=torch.float64)
            found = Denoiser(Fixed(images(1)), schedule, name)(x_t, time)
            again = schedule.alpha(time) * found.x0 + schedule.sigma(time) * found.eps
            torch.testing.assert_close(again, x_t, rtol=1e-8, atol=1e-8)

    def test_target_is_the_output_that_gives_the_truth(self, name: str, schedule: Schedule) -> None:
        x0, eps = images(2), images(3)
        t = torch.tensor([1.0, 2.0, 0.5 * schedule.T, 0.9 * schedule.T], dtype=torch.float64)
        target = Denoiser(Fixed(x0), schedule, name).target(x0, eps, t)
        found = Denoiser(Fixed(target), schedule, name)(perturb(schedule, x0, t, eps), t)
        torch.testing.assert_close(found.x0, x0, rtol=1e-8, atol=1e-8)
        torch.testing.assert_close(found.eps, eps, rtol=1e-8, atol=1e-8)
        assert torch.equal(found.output, target)

    def test_a_time_an_image_is_the_time_of_each(self, name: str, schedule: Schedule) -> None:
        x_t, x0, eps = images(4), images(5), images(6)
        t = torch.tensor([1.0, 3.5, 0.5 * schedule.T, schedule.T], dtype=torch.float64)
        denoiser = Denoiser(Echo(), schedule, name)
        together, targets = denoiser(x_t, t), denoiser.target(x0, eps, t)
        for i in range(4):
            one = slice(i, i + 1)
            alone = denoiser(x_t[one], t[i])
            torch.testing.assert_close(together.x0[one], alone.x0, rtol=1e-12, atol=1e-12)
            torch.testing.assert_close(together.eps[one], alone.eps, rtol=1e-12, atol=1e-12)
            torch.testing.assert_close(targets[one], denoiser.target(x0[one], eps[one], t[i]), rtol=1e-12, atol=0)

    def test_images_keep_their_type(self, name: str, schedule: Schedule) -> None:
        time = torch.tensor(3.0, dtype=torch.float64)
        for dtype in (torch.float32, torch.bfloat16):
            found = Denoiser(Echo(), schedule, name)(images(0).to(dtype), time)
            assert (found.x0.dtype, found.eps.dtype, found.output.dtype) == (dtype,) * 3


def test_targets_by_hand() -> None:
    x0, eps = images(7), images(8)
    table = torch.from_numpy(linear_alpha_bar(1000))[300]
    alpha, sigma, t = table.sqrt(), (1 - table).sqrt(), torch.tensor(300.0, dtype=torch.float64)
    expected = {"epsilon": eps, "x0": x0, "v": alpha * eps - sigma * x0}
    for name, target in expected.items():
        torch.testing.assert_close(Denoiser(Fixed(x0), Linear(), name).target(x0, eps, t), target)


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
