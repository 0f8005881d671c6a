"""Solvers step by step against diffusers' schedulers: the same network, the same noise, grids at the same noise levels.

Their float32 tables are replaced by the same levels in float64, so that what is compared is the step."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from tests.exact import Given
from trilemma.process import EDM, PARAMETERIZATIONS, Condition, Cosine, Denoiser, Linear, Schedule, perturb
from trilemma.samplers import DDIM, DPMSolver, Heun, Kernel, UniPC, clipped, grid, walk

diffusers = pytest.importorskip("diffusers")

# Their own conversions between libraries.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:diffusers")

STEPS = 60
PROCESSES: dict[str, tuple[Schedule, str]] = {
    "linear": (Linear(steps=STEPS, beta_end=0.2), "linear"),
    "cosine": (Cosine(steps=STEPS), "squaredcos_cap_v2"),
}
# Even, uneven and off the table; two levels, where a multistep solver has little history.
GRIDS = {
    "even": [50.0, 40.0, 30.0, 20.0, 10.0, 1.0],
    "uneven": [55.0, 50.0, 31.0, 29.0, 28.0, 5.0, 4.0, 1.0],
    "between": [48.25, 33.5, 20.75, 7.125, 2.5],
    "short": [50.0, 12.0, 2.0],
}
PREDICTED = {"epsilon": "epsilon", "x0": "sample", "v": "v_prediction"}


class Answering(nn.Module):
    """A network that answers to x and to the time."""

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        return torch.tanh(x + 0.5 * x.roll(1, -1)) * (0.5 + time[:, None, None, None] / 200)


def images(seed: int) -> Tensor:
    return torch.randn(3, 2, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def levels(schedule: Schedule, times: Tensor) -> Tensor:
    """σ̄ = σ/α, which their schedulers step in; 0 at clean data."""
    return schedule.sigma(times) / schedule.alpha(times)


def scheduler(kind: str, process: str, times: Tensor, **options: Any) -> Any:
    """Theirs, at these levels."""
    schedule, name = PROCESSES[process]
    made = getattr(diffusers, kind)(num_train_timesteps=STEPS, beta_schedule=name, beta_end=0.2, **options)
    made.set_timesteps(len(times) - 1)
    # What they call timesteps only counts the steps here.
    made.timesteps, made.sigmas = torch.arange(len(times) - 1), levels(schedule, times)
    return made


def whole(process: str, times: list[float], kernel: Kernel, name: str, noises: list[Tensor]) -> list[Tensor]:
    """Every state of our walk."""
    denoiser = Denoiser(Answering(), PROCESSES[process][0], name).bind(Condition())
    at = torch.tensor(times, dtype=torch.float64)
    return [step.x for step in walk(kernel, denoiser, at, images(0), cast(Any, Given(*noises)))]


def agree(found: list[Tensor], expected: list[Tensor]) -> None:
    assert len(found) == len(expected)
    for k, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5, msg=f"state {k} differs")


def multistep(kind: str, process: str, times: list[float], name: str, noises: list[Tensor], **options: Any) -> Any:
    """Every state of theirs, the network asked as ours is."""
    at = torch.tensor(times, dtype=torch.float64)
    theirs = scheduler(kind, process, at, prediction_type=PREDICTED[name], **options)
    network, x = Answering(), images(0)
    states = [x]
    for k, t in enumerate(at[:-1]):
        output = network(x, (t - 1).float().expand(3))
        noise = {"variance_noise": noises[k]} if noises else {}
        x = theirs.step(output, k, x, **noise).prev_sample
        states.append(x)
    return states


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("name", sorted(PREDICTED))
@pytest.mark.parametrize("times", sorted(GRIDS))
@pytest.mark.parametrize("process", sorted(PROCESSES))
class TestDPMSolver:
    def test_multistep(self, process: str, times: str, name: str, order: int) -> None:
        """DPM-Solver++(2M), theirs with the midpoint rule."""
        expected = multistep(
            "DPMSolverMultistepScheduler",
            process,
            GRIDS[times],
            name,
            [],
            algorithm_type="dpmsolver++",
            solver_order=order,
            lower_order_final=False,
            final_sigmas_type="sigma_min",
        )
        agree(whole(process, GRIDS[times], DPMSolver(order=order, clip="none"), name, []), expected)

    def test_its_sde_form(self, process: str, times: str, name: str, order: int) -> None:
        noises = [images(10 + k) for k in range(len(GRIDS[times]) - 1)]
        expected = multistep(
            "DPMSolverMultistepScheduler",
            process,
            GRIDS[times],
            name,
            noises,
            algorithm_type="sde-dpmsolver++",
            solver_order=order,
            lower_order_final=False,
            final_sigmas_type="sigma_min",
        )
        agree(
            whole(process, GRIDS[times], DPMSolver(order=order, stochastic=True, clip="none"), name, noises), expected
        )

    def test_to_clean_data(self, process: str, times: str, name: str, order: int) -> None:
        """The last step, whose λ is infinite, is their first-order step to σ = 0."""
        expected = multistep(
            "DPMSolverMultistepScheduler",
            process,
            [*GRIDS[times], 0.0],
            name,
            [],
            algorithm_type="dpmsolver++",
            solver_order=order,
            lower_order_final=False,
            final_sigmas_type="zero",
        )
        agree(whole(process, [*GRIDS[times], 0.0], DPMSolver(order=order, clip="none"), name, []), expected)


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("name", sorted(PREDICTED))
@pytest.mark.parametrize("times", sorted(GRIDS))
@pytest.mark.parametrize("process", sorted(PROCESSES))
def test_unipc(process: str, times: str, name: str, order: int) -> None:
    """B_2, predictor and corrector. Their predictor at full order to the last (`lower_order_final` off), as ours is."""
    expected = multistep(
        "UniPCMultistepScheduler",
        process,
        GRIDS[times],
        name,
        [],
        solver_order=order,
        solver_type="bh2",
        lower_order_final=False,
    )
    agree(whole(process, GRIDS[times], UniPC(order=order, clip="none"), name, []), expected)


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("process", sorted(PROCESSES))
def test_unipc_to_clean_data(process: str, order: int) -> None:
    """The step to σ = 0 is first order in theirs as well (`lower_order_final`), which holds order 3 to 2 one step
    earlier: up to order 2 the walks are the same."""
    times = [*GRIDS["even"], 0.0]
    expected = multistep(
        "UniPCMultistepScheduler",
        process,
        times,
        "epsilon",
        [],
        solver_order=order,
        solver_type="bh2",
        lower_order_final=True,
        final_sigmas_type="zero",
    )
    found = whole(process, times, UniPC(order=order, clip="none"), "epsilon", [])
    same = len(times) if order < 3 else len(times) - 2
    agree(found[:same], expected[:same])


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("name", ["epsilon", "v"])
@pytest.mark.parametrize("times", sorted(GRIDS))
@pytest.mark.parametrize("process", sorted(PROCESSES))
def test_heun(process: str, times: str, name: str, clip: bool) -> None:
    """Theirs steps in x̄ = x/α, two calls an interval, the network shown x̄/√(1 + σ̄²) = x; to clean data one call."""
    schedule = PROCESSES[process][0]
    at = torch.tensor([*GRIDS[times], 0.0], dtype=torch.float64)
    theirs = scheduler("HeunDiscreteScheduler", process, at, prediction_type=PREDICTED[name], clip_sample=clip)
    sigmas = levels(schedule, at)
    asked = torch.cat([at[:1], at[1:-1].repeat_interleave(2)])
    theirs.sigmas = torch.cat([sigmas[:1], sigmas[1:-1].repeat_interleave(2), sigmas[-1:]])
    theirs.timesteps = torch.arange(len(asked))
    network, x_bar, expected = Answering(), images(0) / schedule.alpha(at[0]), [images(0)]
    for k, t in enumerate(asked):
        output = network(x_bar / (1 + levels(schedule, t) ** 2).sqrt(), (t - 1).float().expand(3))
        x_bar = theirs.step(output, k, x_bar).prev_sample
        if theirs.state_in_first_order:
            expected.append(x_bar * schedule.alpha(at[len(expected)]))
    expected.append(x_bar)
    kernel = Heun(clip="static" if clip else "none")
    assert torch.equal(kernel.asks(schedule, at).sort().values, asked.sort().values)
    agree(whole(process, [*GRIDS[times], 0.0], kernel, name, []), expected)


@pytest.mark.parametrize("data", [0.5, 1.0])
@pytest.mark.parametrize("count", [2, 5, 12])
class TestEDM:
    """A whole walk of their EDM schedulers: σ of Karras et al.'s grid, their preconditioning, from σ_max to clean."""

    def walked(self, kernel: Kernel, data: float, count: int, start: Tensor) -> Tensor:
        schedule = EDM()
        parameterization = PARAMETERIZATIONS["edm"](sigma_data=data)
        denoiser = Denoiser(Answering(), schedule, parameterization).bind(Condition())
        *_, last = walk(kernel, denoiser, grid(schedule, count, "karras"), start, cast(Any, Given()))
        return last.x

    def theirs(self, kind: str, data: float, count: int, x: Tensor, **options: Any) -> Tensor:
        made = getattr(diffusers, kind)(sigma_data=data, **options)
        made.set_timesteps(count)
        times = grid(EDM(), count, "karras")
        torch.testing.assert_close(made.sigmas.double(), times, rtol=1e-6, atol=0)
        made.sigmas = times
        network = Answering()
        for k, t in enumerate(made.timesteps):
            made.is_scale_input_called = True
            shown = made.precondition_inputs(x, times[k])
            x = made.step(network(shown, made.precondition_noise(times[k]).float().expand(3)), t, x).prev_sample
        return x

    def test_euler_is_ddim(self, count: int, data: float) -> None:
        start = 80 * images(0)
        expected = self.theirs("EDMEulerScheduler", data, count, start)
        # They hold x in float32, at σ = 80.
        torch.testing.assert_close(self.walked(DDIM(clip="none"), data, count, start), expected, rtol=1e-5, atol=2e-5)

    def test_2m_is_dpm_solver(self, count: int, data: float) -> None:
        start = 80 * images(0)
        expected = self.theirs("EDMDPMSolverMultistepScheduler", data, count, start, lower_order_final=False)
        torch.testing.assert_close(
            self.walked(DPMSolver(clip="none"), data, count, start), expected, rtol=1e-5, atol=2e-5
        )


@pytest.mark.parametrize("ratio", [0.8, 0.995])
def test_dynamic_thresholding(ratio: float) -> None:
    made = diffusers.DDPMScheduler(thresholding=True, dynamic_thresholding_ratio=ratio, sample_max_value=1e9)
    x0 = images(0).float() * torch.tensor([0.1, 1.5, 6.0]).reshape(3, 1, 1, 1)
    torch.testing.assert_close(clipped(x0, quantile=ratio), made._threshold_sample(x0), rtol=1e-6, atol=1e-6)


def test_zero_terminal_snr_is_their_rescaling() -> None:
    theirs = diffusers.DDIMScheduler(rescale_betas_zero_snr=True)
    ours = Linear(terminal_snr=0.0).alpha_bar[1:]
    # At T theirs is 2^-24 in place of 0.
    torch.testing.assert_close(theirs.alphas_cumprod.double()[:-1], ours[:-1], rtol=1e-3, atol=1e-6)
    assert ours[-1] == 0


def test_noising_is_theirs() -> None:
    t = torch.tensor([1, 300, 1000])
    expected = diffusers.DDPMScheduler().add_noise(images(0), images(1), t - 1)
    torch.testing.assert_close(perturb(Linear(), images(0), t.double(), images(1)), expected, rtol=1e-5, atol=1e-5)
