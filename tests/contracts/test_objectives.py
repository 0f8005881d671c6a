"""What an objective promises: one loss an image that is the image's alone, of named parts, and that a network which
knows the data has the least of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from tests.contracts.made import make, names
from tests.exact import Mixture
from tests.proofs.models import Exact, Noise
from trilemma.objectives import Losses, Objective
from trilemma.process import VDM, Condition, Cosine, Denoiser, Draw, Schedule, Times

T = torch.tensor([1.0, 2.0, 9.0, 30.0], dtype=torch.float64)
KEYS: list[tuple[int | str, ...]] = [(0, 5, index) for index in range(4)]


def schedule_of(objective: Objective) -> Schedule:
    """A schedule that it goes with."""
    return VDM(hidden=4) if getattr(objective, "learns_schedule", False) else Cosine(steps=30)


class Small(nn.Module):
    """F of twice the channels, for objectives that take a learned variance; it sees time and class."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.conv, self.label = nn.Conv2d(2, 4, 3, padding=1), nn.Embedding(3, 4)

    def forward(self, x: Tensor, time: Tensor, label: Tensor) -> Tensor:
        return torch.tanh(self.conv(x) + self.label(label)[:, :, None, None] + 0.01 * time[:, None, None, None])


def losses(objective: Objective, images: slice = slice(None), keys: Any = None, weight: float = 1.0) -> Losses:
    """Of some of four images, with the noise of these keys."""
    schedule = schedule_of(objective)
    denoiser = Denoiser(Small(), schedule, "v", "learned_range")
    x0 = torch.randn(4, 2, 5, 5, generator=torch.Generator().manual_seed(1)).clamp(-1, 1)
    times = Times(T[images] * schedule.T / 30, torch.full_like(T[images], weight))
    label = torch.tensor([0, 2, 1, 2])[images]
    return objective(denoiser, x0[images], Condition(label), times, Draw((keys or KEYS)[images]))


def one_loss_an_image(objective: Objective) -> None:
    """Finite, of parts that add up to it, the same for the same noise and another for other noise."""
    found = losses(objective)
    assert found.total.shape == (4,) and torch.isfinite(found.total).all()
    assert found.parts and all(part.shape == (4,) for part in found.parts.values())
    torch.testing.assert_close(torch.stack(list(found.parts.values())).sum(0), found.total)
    assert torch.equal(losses(objective).total, found.total)
    other = losses(objective, keys=[(0, 6, index) for index in range(4)])
    assert not torch.isclose(other.total, found.total).any()


def an_image_s_loss_is_its_own(objective: Objective) -> None:
    """Whatever the images beside it, the process's generator, and the weight of its time, which is the learner's."""
    together = losses(objective).total
    torch.manual_seed(3)
    for i in range(4):
        torch.testing.assert_close(losses(objective, slice(i, i + 1)).total[0], together[i], rtol=1e-4, atol=1e-5)
    assert torch.equal(losses(objective, weight=7.0).total, together)


def gradients_reach_every_weight(objective: Objective) -> None:
    schedule = schedule_of(objective)
    denoiser = Denoiser(Small(), schedule, "v", "learned_range")
    x0, label = torch.zeros(4, 2, 5, 5), torch.tensor([0, 2, 1, 2])
    times = Times(T * schedule.T / 30, torch.ones_like(T))
    objective(denoiser, x0, Condition(label), times, Draw(KEYS)).total.mean().backward()
    for name, weight in denoiser.network.named_parameters():
        assert weight.grad is not None and torch.isfinite(weight.grad).all() and weight.grad.abs().sum() > 0, name


def who_knows_the_data_has_the_least(objective: Objective) -> None:
    """The exact denoiser of a mixture, and ones that are wrong by a tenth either way, on the same images and noises."""
    data, schedule = Mixture.random(2, (1, 3, 3)), schedule_of(objective)
    x0, t = data.sample(512), torch.linspace(1, 30, 512, dtype=torch.float64).round() * schedule.T / 30
    found = []
    for error in (-0.1, 0.0, 0.1):
        denoiser = Exact(data, schedule, error=error)
        times = Times(t, torch.ones_like(t))
        found.append(objective(denoiser, x0, Condition(), times, cast(Draw, Noise(0))).total.mean().item())
    assert found[1] < min(found[0], found[2]), found


CONTRACT: list[Callable[[Objective], None]] = [
    one_loss_an_image,
    an_image_s_loss_is_its_own,
    gradients_reach_every_weight,
    who_knows_the_data_has_the_least,
]


@pytest.mark.parametrize("contract", CONTRACT, ids=lambda each: each.__name__)
@pytest.mark.parametrize("name", names("objective"))
def test_objective(name: str, contract: Callable[[Objective], None]) -> None:
    contract(make("objective", name))


@dataclass(frozen=True)
class Wrong:
    """An objective spoilt in one way."""

    how: str

    def __call__(self, denoiser: Denoiser, x0: Tensor, condition: Condition, times: Times, draw: Draw) -> Losses:
        found = make("objective", "hybrid")(denoiser, x0, condition, times, draw)
        total = {
            "mean over the batch": found.total.mean().expand(len(x0)),
            "weighted": found.total * times.weight.to(found.total.dtype),
            "global noise": found.total + torch.rand(len(x0)),
            "detached": found.total.detach() + 0 * sum(w.sum() for w in denoiser.network.parameters()),
            "negative": -found.total,
        }[self.how]
        return Losses(total, {"all": total})


@pytest.mark.parametrize(
    ("how", "contract"),
    [
        ("mean over the batch", an_image_s_loss_is_its_own),
        ("weighted", an_image_s_loss_is_its_own),
        ("global noise", one_loss_an_image),
        ("detached", gradients_reach_every_weight),
        ("negative", who_knows_the_data_has_the_least),
    ],
)
def test_a_broken_objective_is_noticed(how: str, contract: Callable[[Any], None]) -> None:
    with pytest.raises(AssertionError):
        contract(Wrong(how))
