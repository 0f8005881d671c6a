"""The bound of variational diffusion models: its parts, and the gradients that a schedule learns by."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trilemma.errors import InputError
from trilemma.objectives import Losses, VariationalDiffusion
from trilemma.process import EDM, VDM, Condition, ContinuousVP, Cosine, Denoiser, Draw, Schedule, Times
from trilemma.process.times import LogNormal, LowDiscrepancy
from trilemma.training import DenoisingLearner

N = 5
KEYS: list[tuple[int | str, ...]] = [(0, 3, index) for index in range(N)]
T = torch.tensor([0.03, 0.2, 0.55, 0.8, 1.0], dtype=torch.float64)


class Net(nn.Module):
    """Smooth in what it is told of the time."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.conv = nn.Conv2d(1, 1, 3, padding=1).double()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        return torch.tanh(self.conv(x)) * torch.cos(time / 300)[:, None, None, None].double()


def images() -> Tensor:
    levels = torch.randint(0, 256, (N, 1, 3, 3), generator=torch.Generator().manual_seed(1))
    return levels.double() / 127.5 - 1


def learning(**arguments: Any) -> VDM:
    schedule = VDM(hidden=6, **arguments)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in schedule.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return schedule


def losses(schedule: Schedule, steps: int | None, some: slice = slice(None), weight: Tensor | None = None) -> Losses:
    denoiser = Denoiser(Net(), schedule, "epsilon", "fixed_small")
    weights = torch.ones(N, dtype=torch.float64) if weight is None else weight
    times = Times(T[some] * schedule.T, weights[some])
    return VariationalDiffusion(steps=steps)(denoiser, images()[some], Condition(), times, Draw(KEYS[some]))


@pytest.mark.parametrize("steps", [None, 4])
@pytest.mark.parametrize("split", [(slice(None),), (slice(0, 2), slice(2, N))], ids=["whole", "micro-batches"])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_inside_descends_on_the_squares_and_the_ends_on_the_bound(
    monkeypatch: pytest.MonkeyPatch, steps: int | None, split: tuple[slice, ...], weighted: bool
) -> None:
    """From one backward pass what autograd gives from two, of the mean of L² and of the mean of L."""
    schedule = learning()
    weight = torch.tensor([0.5, 2.0, 1.0, 0.25, 3.0], dtype=torch.float64) if weighted else None
    w = torch.ones(N, dtype=torch.float64) if weight is None else weight
    for part in split:
        found = losses(schedule, steps, part, weight)
        count = len(found.total)
        ((found.total * w[part]).mean() * (count / N)).backward()
    got = {name: parameter.grad for name, parameter in schedule.named_parameters()}

    monkeypatch.setattr(torch.Tensor, "register_hook", lambda *_: None)
    found = losses(schedule, steps, weight=weight)
    plain = (found.total * w).mean()
    squares = (found.parts["diffusion"] * w).square().mean()
    for name, parameter in schedule.named_parameters():
        target = squares if name.startswith("within") else plain
        (expected,) = torch.autograd.grad(target, parameter, retain_graph=True)
        torch.testing.assert_close(got[name], expected, rtol=1e-6, atol=1e-10)  # the network's time is float32
        assert got[name] is not None and float(got[name].abs().max()) > 0


@pytest.mark.parametrize("steps", [None, 1, 7])
@pytest.mark.parametrize("schedule", [learning(), VDM(inside="linear", ends="fixed"), ContinuousVP(), EDM()], ids=str)
def test_parts_add_up_under_every_continuous_schedule(schedule: Schedule, steps: int | None) -> None:
    found = losses(schedule, steps)
    assert list(found.parts) == ["prior", "diffusion", "reconstruction"]
    assert all(part.shape == (N,) and bool((part >= 0).all()) for part in found.parts.values())
    torch.testing.assert_close(torch.stack(list(found.parts.values())).sum(0), found.total)
    assert torch.isfinite(found.total).all()


def test_a_table_is_refused() -> None:
    with pytest.raises(InputError, match="expected a continuous one"):
        losses(Cosine(steps=10), None)


def test_many_steps_are_continuous_time() -> None:
    """K KLs of pairs 1/K apart are ½ γ' ‖ε − ε̂‖², as K grows: at the same times and noise."""
    schedule = learning()
    there = losses(schedule, None).parts["diffusion"]
    near = losses(schedule, 20_000).parts["diffusion"]
    torch.testing.assert_close(near, there, rtol=2e-3, atol=0)


def test_the_diffusion_term_is_the_formula(  # Kingma et al. 2021, eq. 14 and 17, by hand
) -> None:
    schedule = VDM(inside="linear", ends="fixed", gamma_min=-8.0, gamma_max=3.0)
    x0, eps = images(), Draw(KEYS).normal(images())
    for steps in (None, 3):
        t = T if steps is None else (T * steps).ceil() / steps
        first = 1e-9
        at = first + (1 - first) * t
        gamma = (-8.0 + 11.0 * at)[:, None, None, None]
        x_t = torch.sigmoid(-gamma).sqrt() * x0 + torch.sigmoid(gamma).sqrt() * eps
        error = (eps - Net()(x_t, (1000 * (gamma.flatten() + 8) / 11).float())).square().flatten(1).mean(1)
        factor = 11.0 * (1 - first) if steps is None else steps * math.expm1(11.0 * (1 - first) / steps)
        expected = 0.5 * factor * error / math.log(2)
        torch.testing.assert_close(losses(schedule, steps).parts["diffusion"], expected, rtol=1e-6, atol=1e-9)


def test_times_that_are_drawn_unevenly_are_refused() -> None:
    """Their mean is no bound; importance sampling's weights make it one again."""
    denoiser = Denoiser(Net(), ContinuousVP(), "epsilon", "fixed_small")
    with pytest.raises(InputError, match="times 'lognormal': drawn unevenly"):
        DenoisingLearner(denoiser, VariationalDiffusion(), LogNormal(denoiser.schedule))
    DenoisingLearner(denoiser, VariationalDiffusion(), LowDiscrepancy(denoiser.schedule))
