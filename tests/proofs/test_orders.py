"""Deterministic samplers on an exact mixture: each converges to the probability-flow ODE at the order its paper claims,
on grids even in log SNR between two interior noise levels."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from tests.exact import Mixture, NoDraw
from tests.proofs.models import Exact, column, flow, line, number, transported
from trilemma.process import EDM, ContinuousVP, Cosine, Draw, Linear, Schedule
from trilemma.samplers import DDIM, DPMSolver, Heun, Kernel, ProbabilityFlow, UniPC, encode, grid, walk

LINE = line([0.3, 0.5, 0.2], [-0.6, 0.5, 0.1], [0.05, 0.1, 0.03])
PLANE = Mixture(
    torch.tensor([0.3, 0.5, 0.2], dtype=torch.float64),
    torch.tensor([[-0.6, 0.3], [0.5, -0.2], [0.1, 0.8]], dtype=torch.float64).reshape(3, 1, 1, 2),
    torch.tensor([[0.05, 0.02], [0.1, 0.2], [0.03, 0.08]], dtype=torch.float64).reshape(3, 1, 1, 2),
)
SCHEDULES = [
    pytest.param(ContinuousVP(), id="vp"),
    pytest.param(Cosine(steps=1000), id="cosine"),
    pytest.param(EDM(), id="edm"),
]
LEVELS = (math.log(3.0), math.log(0.15))
"""log σ/α where the walks start and end."""


def between(schedule: Schedule, count: int) -> Tensor:
    """A grid of so many intervals, even in log SNR, between the two levels; on a table mostly between its times."""
    return schedule.time_of(2 * torch.linspace(*LEVELS, count + 1, dtype=torch.float64))


def final(kernel: Kernel, denoiser: Exact, times: Tensor, start: Tensor) -> Tensor:
    *_, last = walk(kernel, denoiser.bound(), times, start, cast(Draw, NoDraw()))
    return last.x


def start_at(data: Mixture, schedule: Schedule, t: Tensor, count: int = 32) -> Tensor:
    noise = torch.randn(count, *data.means.shape[1:], dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return schedule.alpha(t) * data.sample(count) + schedule.sigma(t) * noise


def rms(difference: Tensor) -> float:
    return difference.square().mean().sqrt().item()


def orders(errors: list[float]) -> list[float]:
    return [math.log2(a / b) for a, b in pairwise(errors)]


KERNELS = [
    pytest.param(DDIM(clip="none"), 1.0, 0.25, id="ddim"),
    pytest.param(ProbabilityFlow(clip="none"), 1.0, 0.25, id="probability_flow"),
    pytest.param(Heun(clip="none"), 2.0, 0.25, id="heun"),
    pytest.param(DPMSolver(clip="none", order=1), 1.0, 0.25, id="dpmpp-1"),
    pytest.param(DPMSolver(clip="none"), 2.0, 0.25, id="dpmpp-2"),
    # A corrector may do better than the nominal order.
    pytest.param(UniPC(clip="none", order=1), 1.0, math.inf, id="unipc-1"),
    pytest.param(UniPC(clip="none", order=2), 2.0, math.inf, id="unipc-2"),
    pytest.param(UniPC(clip="none", order=3), 3.0, math.inf, id="unipc-3"),
]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_reference_solution_is_the_exact_one(schedule: Schedule) -> None:
    """In one dimension the flow keeps each point's quantile: no integrator is involved."""
    times = between(schedule, 1)
    x = start_at(LINE, schedule, times[0])
    levels = [(float(schedule.alpha(t)), float(schedule.sigma(t))) for t in times]
    exact = transported(LINE, x, levels[0], levels[1])
    torch.testing.assert_close(flow(LINE, schedule, x, times[0], times[1]), exact, rtol=0, atol=1e-11)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(("kernel", "nominal", "above"), KERNELS)
def test_order_of_convergence(schedule: Schedule, kernel: Kernel, nominal: float, above: float) -> None:
    denoiser, times = Exact(PLANE, schedule), between(schedule, 1)
    x = start_at(PLANE, schedule, times[0])
    exact = flow(PLANE, schedule, x, times[0], times[1], steps=500)
    errors = [rms(final(kernel, denoiser, between(schedule, count), x) - exact) for count in (40, 80, 160)]
    found = orders(errors)
    assert errors[0] < 0.05
    assert nominal - 0.25 < found[-1] < nominal + above, f"errors {errors}, orders {found}"


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_schedules_share_one_flow(schedule: Schedule) -> None:
    """In σ/α and x/α the ODE knows no schedule: the same grid of log SNR gives the same x/α, whatever is between."""
    other = ContinuousVP()
    x = start_at(PLANE, other, between(other, 1)[0])
    for kernel in (DDIM(clip="none"), Heun(clip="none"), DPMSolver(clip="none"), UniPC(clip="none", order=3)):
        results = []
        for each in (schedule, other):
            times = between(each, 20)
            start = x / other.alpha(between(other, 1)[0]) * each.alpha(times[0])
            results.append(final(kernel, Exact(PLANE, each), times, start) / each.alpha(times[-1]))
        torch.testing.assert_close(*results, rtol=0, atol=1e-9)


@pytest.mark.parametrize("kernel", [DPMSolver(clip="none", order=1), UniPC(clip="none", order=1)])
def test_first_order_data_prediction_is_ddim_or_better(kernel: Kernel) -> None:
    """DPM-Solver++ of order 1 is DDIM (Lu et al. 2022, section 4); UniPC's adds a corrector."""
    schedule = Cosine(steps=1000)
    times = between(schedule, 40)
    x = start_at(PLANE, schedule, times[0])
    denoiser = Exact(PLANE, schedule)
    ddim, found = final(DDIM(clip="none"), denoiser, times, x), final(kernel, denoiser, times, x)
    exact = flow(PLANE, schedule, x, times[0], times[-1], steps=500)
    if isinstance(kernel, DPMSolver):
        torch.testing.assert_close(found, ddim, rtol=0, atol=1e-11)
    else:
        assert rms(found - exact) < rms(ddim - exact) / 2


@pytest.mark.parametrize("schedule", SCHEDULES)
class TestInversion:
    def test_encoding_converges_at_first_order(self, schedule: Schedule) -> None:
        """To the ODE's own solution from the clean side to the noisy one."""
        times = between(schedule, 1)
        x = start_at(PLANE, schedule, times[1])
        exact = flow(PLANE, schedule, x, times[1], times[0], steps=500)
        denoiser = Exact(PLANE, schedule).bound()
        scale = float(schedule.sigma(times[0]))
        errors = [rms(encode(denoiser, x, between(schedule, count)) - exact) / scale for count in (40, 80, 160)]
        assert orders(errors)[-1] == pytest.approx(1.0, abs=0.25), errors

    def test_there_and_back_converges_at_first_order(self, schedule: Schedule) -> None:
        denoiser, errors = Exact(PLANE, schedule), []
        x = start_at(PLANE, schedule, between(schedule, 1)[1])
        for count in (40, 80, 160):
            times = between(schedule, count)
            noise = encode(denoiser.bound(), x, times)
            errors.append(rms(final(DDIM(clip="none"), denoiser, times, noise) - x))
        assert orders(errors)[-1] == pytest.approx(1.0, abs=0.25), errors


@pytest.mark.parametrize("schedule", [Linear(steps=1000), Cosine(steps=1000)])
def test_inversion_from_clean_data_improves_with_every_doubling(schedule: Schedule) -> None:
    """Image to noise and back on even grids from T to 0, up to the full chain."""
    denoiser, x, errors = Exact(PLANE, schedule), PLANE.sample(64, seed=2), []
    for count in (10, 20, 40, 80, 160, 320, 640, 1000):
        times = grid(schedule, count)
        noise = encode(denoiser.bound(), x, times)
        errors.append(rms(final(DDIM(clip="none"), denoiser, times, noise) - x))
    assert errors == sorted(errors, reverse=True), errors
    assert errors[-1] < 0.01 < errors[0]


def test_the_last_step_to_clean_data_is_the_denoisers_mean() -> None:
    """Heun, DDIM and the data-prediction solvers end in x̂_0 of the last noisy time; Song's Euler step in σ² does not:
    its σ̄²/2 leaves half of the last noise."""
    schedule = Cosine(steps=1000)
    t, denoiser = number(5.0), Exact(LINE, schedule)
    x = column([-0.5, 0.1, 0.8])
    guess = denoiser(x, t)
    for kernel in (DDIM(clip="none"), Heun(clip="none"), DPMSolver(clip="none"), UniPC(clip="none")):
        found, _ = kernel.step(denoiser.bound(), x, t, number(0.0), None, cast(Any, NoDraw()))
        torch.testing.assert_close(found, guess.x0, rtol=1e-12, atol=1e-12)
    found, _ = ProbabilityFlow(clip="none").step(denoiser.bound(), x, t, number(0.0), None, cast(Any, NoDraw()))
    left = 0.5 * schedule.sigma(t) / schedule.alpha(t) * guess.eps
    torch.testing.assert_close(found, guess.x0 + left, rtol=1e-12, atol=1e-12)
