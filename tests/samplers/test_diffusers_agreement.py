"""Step by step against diffusers' schedulers: the same model output, the same noise. Their timestep i is t = i + 1."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.exact import Fixed, Given, cosine_alpha_bar, linear_alpha_bar
from trilemma.process import Condition, Cosine, Denoiser, Linear, Schedule
from trilemma.samplers import DDIM, Ancestral, grid

diffusers = pytest.importorskip("diffusers")

STEPS = 40
PROCESSES: dict[str, tuple[Schedule, np.ndarray]] = {
    "linear": (Linear(steps=STEPS, beta_end=0.3), linear_alpha_bar(STEPS, end=0.3)),
    "squaredcos_cap_v2": (Cosine(steps=STEPS), cosine_alpha_bar(STEPS)),
}
# Their names of what the network predicts.
PREDICTED = {"epsilon": "epsilon", "x0": "sample", "v": "v_prediction"}


def scheduler(kind: str, process: str, **options: Any) -> Any:
    """Theirs, its float32 table of ᾱ replaced by the formula in float64: at the noisy end of the cosine schedule theirs
    keeps four digits of ᾱ, of which 1/√ᾱ would make the difference."""
    made = getattr(diffusers, kind)(num_train_timesteps=STEPS, beta_schedule=process, beta_end=0.3, **options)
    formula = torch.from_numpy(PROCESSES[process][1][1:])
    torch.testing.assert_close(made.alphas_cumprod.double(), formula, rtol=1e-3, atol=1e-5)
    made.alphas_cumprod = formula
    return made


def images(seed: int) -> Tensor:
    return torch.randn(3, 2, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def ours(kernel: Any, process: str, name: str, variance: str, x: Tensor, output: Tensor, t: int, s: int) -> Tensor:
    """One step of ours, its noise the first draw of seed 5."""
    denoiser = Denoiser(Fixed(output), PROCESSES[process][0], name, variance).bind(Condition())
    time = torch.tensor([t, s], dtype=torch.float64)
    return kernel.step(denoiser, x, time[0], time[1], None, cast(Any, Given(images(5))))[0]


@pytest.mark.parametrize("process", sorted(PROCESSES))
def test_schedules_agree(process: str) -> None:
    schedule, _ = PROCESSES[process]
    theirs = diffusers.DDPMScheduler(num_train_timesteps=STEPS, beta_schedule=process, beta_end=0.3).alphas_cumprod
    t = torch.arange(1, STEPS + 1, dtype=torch.float64)
    torch.testing.assert_close(schedule.alpha(t) ** 2, theirs.double(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
@pytest.mark.parametrize("name", sorted(PREDICTED))
@pytest.mark.parametrize("process", sorted(PROCESSES))
@pytest.mark.parametrize("count", [STEPS, 8])
def test_ancestral_steps_agree(count: int, process: str, name: str, variance: str, clip: bool) -> None:
    theirs = scheduler(
        "DDPMScheduler", process, variance_type=variance, clip_sample=clip, prediction_type=PREDICTED[name]
    )
    theirs.set_timesteps(count)
    times = grid(PROCESSES[process][0], count, "uniform").long().tolist()
    assert theirs.timesteps.tolist() == [t - 1 for t in times[:-1]]
    kernel = Ancestral() if clip else Ancestral(clip="none")
    for i, (t, s) in enumerate(pairwise(times)):
        x, output = images(100 + i), images(200 + i)
        expected = theirs.step(output, t - 1, x, generator=torch.Generator().manual_seed(5)).prev_sample
        found = ours(kernel, process, name, variance, x, output, t, s)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("name", sorted(PREDICTED))
@pytest.mark.parametrize("process", sorted(PROCESSES))
@pytest.mark.parametrize("count", [STEPS, 8])
def test_ddim_steps_agree(count: int, process: str, name: str, eta: float, clip: bool) -> None:
    """With their ε̂ derived again from the clipped x̂_0, which is an option there."""
    theirs = scheduler("DDIMScheduler", process, clip_sample=clip, prediction_type=PREDICTED[name])
    theirs.set_timesteps(count)
    times = grid(PROCESSES[process][0], count, "uniform").long().tolist()
    assert theirs.timesteps.tolist() == [t - 1 for t in times[:-1]]
    kernel = DDIM(eta=eta) if clip else DDIM(eta=eta, clip="none")
    for i, (t, s) in enumerate(pairwise(times)):
        x, output = images(100 + i), images(200 + i)
        expected = theirs.step(
            output, t - 1, x, eta=eta, use_clipped_model_output=clip, variance_noise=images(5)
        ).prev_sample
        found = ours(kernel, process, name, "fixed_small", x, output, t, s)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("eta", [None, 0.0, 1.0])
def test_whole_walks_agree_with_their_own_float32_tables(eta: float | None) -> None:
    """A network that answers to x_t, the linear schedule of 1 000 steps, 25 of them, clipped."""
    count, schedule = 25, Linear(steps=1000)

    class Answering(torch.nn.Module):
        def forward(self, x: Tensor, time: Tensor) -> Tensor:
            return torch.tanh(x + x.roll(1, -1)) * (0.5 + time[:, None, None, None] / 2000)

    network = Answering()
    kind = diffusers.DDPMScheduler if eta is None else diffusers.DDIMScheduler
    theirs = kind(num_train_timesteps=1000, beta_schedule="linear")
    theirs.set_timesteps(count)
    kernel: Any = Ancestral() if eta is None else DDIM(eta=eta)
    denoiser = Denoiser(network, schedule, "epsilon", "fixed_small").bind(Condition())
    times = grid(schedule, count, "uniform")
    found = expected = images(0).float()
    for i, (t, s) in enumerate(pairwise(times)):
        noise = torch.randn(found.shape, generator=torch.Generator().manual_seed(i))
        found, _ = kernel.step(denoiser, found, t, s, None, cast(Any, Given(noise)))
        output = network(expected, torch.full((3,), float(t) - 1))
        options: dict[str, Any] = {"generator": torch.Generator().manual_seed(i)}
        if eta is not None:
            options = {"eta": eta, "use_clipped_model_output": True, "variance_noise": noise}
        expected = theirs.step(output, int(t) - 1, expected, **options).prev_sample
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("count", [2, 4, 10, 25, 50, 250])
def test_even_grids_are_their_linspace_spacing(count: int) -> None:
    theirs = diffusers.DDPMScheduler(num_train_timesteps=1000, timestep_spacing="linspace")
    theirs.set_timesteps(count)
    assert grid(Linear(), count, "even")[:-1].tolist() == [t + 1 for t in theirs.timesteps.tolist()]
