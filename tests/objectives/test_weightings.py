"""The weightings of L_simple: min-SNR and EDM's, in closed form for every parameterization."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from torch import Tensor

from tests.exact import Fixed, Given, linear_alpha_bar
from trilemma.errors import InputError
from trilemma.objectives import Simple
from trilemma.process import EDM, PARAMETERIZATIONS, Condition, ContinuousVP, Cosine, Denoiser, Linear, Schedule, Times
from trilemma.recipes import component

TABLE = linear_alpha_bar(1000)
AT = (1, 50, 300, 1000)
SNR = torch.from_numpy(TABLE[list(AT)] / (1 - TABLE[list(AT)]))


def images(seed: int) -> Tensor:
    return torch.randn(4, 1, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def weights(objective: Simple, schedule: Schedule, parameterization: Any, t: Tensor) -> Tensor:
    """What the weighting multiplies each image's loss by."""
    found = []
    for each in (objective, Simple()):
        denoiser = Denoiser(Fixed(images(2)), schedule, parameterization)
        times = Times(t, torch.ones_like(t))
        found.append(each(denoiser, images(0), Condition(), times, cast(Any, Given(images(1)))).total)
    return found[0] / found[1]


def test_the_snr_runs_from_above_5_to_below() -> None:
    assert SNR[0] > 5 > SNR[2] > SNR[3]


@pytest.mark.parametrize("limit", [5.0, 1.0])
@pytest.mark.parametrize("name", ["epsilon", "x0", "v"])
def test_min_snr_in_closed_form(name: str, limit: float) -> None:
    """min(SNR, 5) on ‖x_0 − x̂_0‖²: over SNR for ε, by itself for x_0, over SNR + 1 for v (Hang et al. 2023, section
    3.4)."""
    capped = SNR.clamp(max=limit)
    expected = {"epsilon": capped / SNR, "x0": capped, "v": capped / (SNR + 1)}[name]
    t = torch.tensor(AT, dtype=torch.float64)
    found = weights(Simple(weighting="min_snr", snr_limit=limit), Linear(), name, t)
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=0)


def test_the_limit_is_5_unless_told() -> None:
    assert Simple().snr_limit == 5.0


def test_the_limit_is_any_number_above_0() -> None:
    assert component("objective", {"name": "simple", "snr_limit": 0.01}, "objective")["snr_limit"] == 0.01
    with pytest.raises(InputError, match=r"snr_limit.*greater than 0"):
        component("objective", {"name": "simple", "snr_limit": 0}, "objective")


@pytest.mark.parametrize("data", [0.5, 1.2])
@pytest.mark.parametrize("schedule", [EDM(), Linear(), Cosine(steps=50), ContinuousVP()])
class TestEDM:
    def times(self, schedule: Schedule) -> Tensor:
        if schedule.steps is not None:
            return torch.tensor([1.0, 0.2 * schedule.T, 0.5 * schedule.T, 0.9 * schedule.T], dtype=torch.float64)
        return torch.tensor([schedule.t_min, 0.2 * schedule.T, 0.5 * schedule.T, schedule.T], dtype=torch.float64)

    def test_on_its_own_parameterization_it_is_1(self, schedule: Schedule, data: float) -> None:
        """λ(σ) c_out(σ)² = 1: what makes the effective weight of every noise level the same (their table 1)."""
        found = weights(
            Simple(weighting="edm", sigma_data=data),
            schedule,
            PARAMETERIZATIONS["edm"](sigma_data=data),
            self.times(schedule),
        )
        torch.testing.assert_close(found, torch.ones(4, dtype=torch.float64), rtol=1e-8, atol=0)

    @pytest.mark.parametrize("name", ["epsilon", "x0", "v"])
    def test_on_others_in_closed_form(self, schedule: Schedule, data: float, name: str) -> None:
        """(σ̄² + σ_data²)/(σ̄ σ_data)² on ‖x_0 − x̂_0‖², σ̄ = σ/α, times what that is of the output's error."""
        t = self.times(schedule)
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        noise = sigma / alpha
        on_x0 = (noise**2 + data**2) / (noise * data) ** 2
        of_output = {"epsilon": noise**2, "x0": torch.ones_like(t), "v": (sigma / (alpha**2 + sigma**2)) ** 2}[name]
        found = weights(Simple(weighting="edm", sigma_data=data), schedule, name, t)
        torch.testing.assert_close(found, on_x0 * of_output, rtol=1e-7, atol=0)


def test_parts_still_add_up_and_gradients_are_weighted() -> None:
    output = images(2).requires_grad_()
    t = torch.tensor(AT, dtype=torch.float64)
    objective = Simple(weighting="min_snr")
    denoiser = Denoiser(Fixed(output), Linear(), "x0")
    losses = objective(denoiser, images(0), Condition(), Times(t, torch.ones(4)), cast(Any, Given(images(1))))
    assert torch.equal(losses.parts["simple"], losses.total)
    losses.total.sum().backward()
    expected = SNR.clamp(max=5.0)[:, None, None, None] * 2 * (output.detach() - images(0)) / 9
    torch.testing.assert_close(output.grad, expected)


@pytest.mark.parametrize("data", [0.5, 1.2])
def test_at_snr_0_edms_weight_is_its_limit(data: float) -> None:
    """(σ² + σ_data²)/(σ σ_data)² goes to 1/σ_data² as the noise grows; c_out of v is −σ, which is 1 there."""
    t = torch.full((4,), 50.0, dtype=torch.float64)
    found = weights(Simple(weighting="edm", sigma_data=data), Cosine(steps=50, terminal_snr=0.0), "v", t)
    torch.testing.assert_close(found, torch.full_like(found, data**-2), rtol=1e-12, atol=0)
