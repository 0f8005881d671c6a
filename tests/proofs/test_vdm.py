"""The bound of variational diffusion models on data of known entropy, with the exact denoiser: what it is, that the
schedule between its ends does not matter to it, and that its estimator is steadier under a learned one.

Expectations over x_0 and ε are quadratures (`Nodes`), over t Gauss-Legendre's in panels even in γ. With the exact
denoiser the diffusion term between two times is the information I(x_0; x_s) − I(x_0; x_t) (Guo et al. 2005)."""

from __future__ import annotations

import math
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.proofs.models import Exact, Levels, Nodes, Noise, normal, number
from trilemma.metrics.likelihood import continuous_bound, variational_bound
from trilemma.objectives import Losses, VariationalDiffusion, prior_term
from trilemma.process import EDM, UNCONDITIONAL, VDM, ContinuousVP, Schedule, Times
from trilemma.samplers import grid

DATA = Levels.few()
NODES = DATA.nodes(count=57)
HALF = math.log(2)


def stirred(seed: int, **arguments: Any) -> VDM:
    """A learned schedule far from a straight line."""
    schedule, generator = VDM(hidden=12, **arguments), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in schedule.within.parameters():
            parameter += 2.0 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return schedule


def losses(denoiser: Exact, t: Tensor, steps: int | None = None, nodes: Nodes = NODES) -> Losses:
    """At every node and each of these times, which are those of `VariationalDiffusion.diffusion`: [times, nodes]."""
    many, count = len(nodes.x0), len(t)
    x0, eps = nodes.x0.repeat(count, 1, 1, 1), nodes.eps.repeat(count, 1, 1, 1)
    at = t.repeat_interleave(many)
    found = VariationalDiffusion(steps=steps)(
        denoiser, x0, UNCONDITIONAL, Times(at, torch.ones_like(at)), cast(Any, Nodes(x0, eps, nodes.weight))
    )
    return Losses(
        found.total.detach().reshape(count, many),
        {name: part.detach().reshape(count, many) for name, part in found.parts.items()},
    )


def diffusion(schedule: Schedule, panels: int = 24, order: int = 8) -> float:
    """The diffusion term in bits, in continuous time, by quadrature."""
    first, last = (float(end) for end in schedule.ends())
    edges = schedule.time_of(torch.linspace(first, last, panels + 1, dtype=torch.float64))
    edges[0], edges[-1] = schedule.t_min, schedule.T
    z, w = (torch.from_numpy(each) for each in np.polynomial.legendre.leggauss(order))
    widths = edges.diff()
    t = (edges[:-1, None] + widths[:, None] * (z + 1) / 2).flatten()
    weight = (widths[:, None] * w / 2).flatten() / (schedule.T - schedule.t_min)
    drawn = (t - schedule.t_min) / (schedule.T - schedule.t_min) * schedule.T
    return float(weight @ (losses(Exact(DATA, schedule), drawn).parts["diffusion"] @ NODES.weight))


def information(gamma: float) -> float:
    """I(x_0; x_t) in bits at this γ, from the entropy of the mixture of Gaussians that x_t/α is."""
    sigma = math.exp(gamma / 2)
    x = np.linspace(-1 - 12 * sigma, 1 + 12 * sigma, max(20_001, int(8 * (2 + 24 * sigma) / sigma)))
    p = sum(float(w) * normal(x, float(v), sigma**2) for w, v in zip(DATA.weight, DATA.values, strict=True))
    entropy = -float(np.sum(p * np.log(np.maximum(p, 1e-300))) * (x[1] - x[0]))
    return (entropy - 0.5 * math.log(2 * math.pi * math.e * sigma**2)) / HALF


@pytest.mark.parametrize(
    "schedule",
    [
        VDM(inside="linear", ends="fixed"),
        stirred(1),
        stirred(2, gamma_min=-11.0, gamma_max=1.0),
        ContinuousVP(),
        EDM(sigma_min=0.004, sigma_max=20.0),
    ],
    ids=["linear", "learned", "learned, other ends", "vp", "edm"],
)
def test_the_schedule_between_the_ends_does_not_matter(schedule: Schedule) -> None:
    """The continuous-time term is what x_t says of x_0 less at the one end than at the other, by whatever way between
    (Kingma et al. 2021, section 5.1); also where variance is not preserved."""
    first, last = (float(end) for end in schedule.ends())
    assert diffusion(schedule) == pytest.approx(information(first) - information(last), abs=2e-4)


def test_the_bound_holds_and_is_close_to_the_entropy() -> None:
    schedule = stirred(3)
    found = losses(Exact(DATA, schedule), torch.ones(1, dtype=torch.float64)).parts
    prior, reconstruction = (float(NODES.mean(found[key][0])) for key in ("prior", "reconstruction"))
    total = prior + diffusion(schedule) + reconstruction
    print(f"entropy {DATA.bits():.4f} bits, bound {total:.4f}: prior {prior:.4f}, reconstruction {reconstruction:.4f}")
    assert DATA.bits() < total < DATA.bits() + 0.02


def test_wrong_denoisers_have_more() -> None:
    schedule = VDM(inside="linear", ends="fixed")
    t = torch.linspace(0.05, 1.0, 30, dtype=torch.float64)
    least, *more = (
        float((losses(Exact(DATA, schedule, error=error), t).total @ NODES.weight).mean()) for error in (0.0, -0.1, 0.1)
    )
    assert least < min(more)


def test_the_bound_of_k_steps_falls_to_that_in_continuous_time() -> None:
    """Every step is exact here, none drawn; the excess is of first order."""
    schedule, nodes = stirred(4), DATA.nodes(count=31)
    there, excess = diffusion(schedule), []
    for steps in (20, 80, 320):
        t = (torch.arange(steps, dtype=torch.float64) + 0.5) / steps
        parts = losses(Exact(DATA, schedule), t, steps, nodes).parts["diffusion"]
        excess.append(float((parts @ nodes.weight).mean()) - there)
    print(f"continuous time {there:.4f} bits, excess of 20, 80, 320 steps {[round(each, 4) for each in excess]}")
    assert excess == sorted(excess, reverse=True) and excess[-1] > 0
    assert excess[-2] / excess[-1] == pytest.approx(4.0, rel=0.1)


def test_the_bound_of_k_steps_is_ddpm_s() -> None:
    """Term by term that of the even grid, whose last step is decoded, and ½ (SNR(s) − SNR(t)) E‖x_0 − x̂_0‖²."""
    schedule, steps = stirred(5), 25
    denoiser = Exact(DATA, schedule)
    walked = grid(schedule, steps + 1)
    bound = variational_bound(denoiser, NODES.x0, UNCONDITIONAL, walked, cast(Any, NODES))
    t = (torch.arange(steps, dtype=torch.float64) + 0.5) / steps
    found = losses(denoiser, t, steps)
    torch.testing.assert_close(found.parts["diffusion"].flip(0) / steps, bound.terms[:, :-1].T, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(found.parts["prior"][0], bound.prior, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(found.parts["reconstruction"][0], bound.terms[:, -1], rtol=1e-4, atol=1e-6)
    snr = torch.exp(-schedule.gamma(walked[:-1]))
    for k in range(steps):
        at = walked[k]
        a, s = schedule.alpha(at), schedule.sigma(at)
        error = (DATA.denoised(a * NODES.x0 + s * NODES.eps, a, s) - NODES.x0).square().flatten()
        expected = 0.5 * float(snr[k + 1] - snr[k]) * float(NODES.mean(error)) / HALF
        assert float(NODES.mean(bound.terms[:, k])) == pytest.approx(expected, rel=1e-8, abs=1e-12)


@pytest.mark.parametrize(
    "schedule", [VDM(inside="linear", ends="fixed"), stirred(6), EDM()], ids=["vdm", "learned", "edm"]
)
def test_measured_in_continuous_time_it_is_the_same(schedule: Schedule) -> None:
    """`continuous_bound`, by stratified draws of the time: within three standard errors, and no draw unused. EDM's
    times run to 80, nearly all of them where nothing is left to learn."""

    class Drawn(Noise):
        def uniform(self) -> Tensor:
            return torch.rand(count, generator=self.generator, dtype=torch.float64)

    count = 3000
    which = torch.multinomial(DATA.weight, count, replacement=True, generator=torch.Generator().manual_seed(0))
    x0 = DATA.values[which].reshape(-1, 1, 1, 1)
    bound = continuous_bound(Exact(DATA, schedule), x0, UNCONDITIONAL, 40, cast(Any, Drawn(1)))
    assert bound.terms.shape == (count, 41) and len(bound.times) == 41
    assert bool((bound.times.diff() < 0).all())
    found = bound.terms[:, :-1].sum(1)
    error = float(found.std()) / math.sqrt(count)
    right = diffusion(schedule)
    assert abs(float(found.mean()) - right) < 3 * error
    assert error < 0.03 * right
    parts = losses(Exact(DATA, schedule), torch.ones(1, dtype=torch.float64)).parts
    decoded = float(NODES.mean(parts["reconstruction"][0]))
    assert float(bound.terms[:, -1].mean()) == pytest.approx(decoded, abs=3 * float(bound.terms[:, -1].std()) / 54)


@pytest.mark.parametrize("schedule", [VDM(), ContinuousVP(beta_max=8.0), EDM(sigma_max=3.0)], ids=["vdm", "vp", "edm"])
def test_the_prior_is_the_divergence(schedule: Schedule) -> None:
    """KL(q(x_T | x_0) ‖ N(0, p²)), by quadrature of the two densities."""
    T = number(schedule.T)
    alpha, sigma, p = float(schedule.alpha(T)), float(schedule.sigma(T)), schedule.prior_std(schedule.T)
    x = np.linspace(-15 * p, 15 * p, 20_001)
    for x0 in (-1.0, 0.3):
        q, prior = normal(x, alpha * x0, sigma**2), normal(x, 0.0, p**2)
        inside = q > 1e-300
        expected = float(np.sum(q[inside] * np.log(q[inside] / prior[inside])) * (x[1] - x[0])) / HALF
        found = prior_term(schedule, torch.full((1, 1, 1, 1), x0, dtype=torch.float64), T)
        assert float(found) == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_a_learned_schedule_is_steadier() -> None:
    """Learned by the objective itself on an exact model: the loss, an image at one time, varies less than under the
    straight line between the same ends. What remains is mostly the images' own noise."""
    schedule, straight = VDM(ends="fixed", hidden=64), VDM(inside="linear", ends="fixed")

    def images(count: int, generator: torch.Generator) -> Tensor:
        which = torch.multinomial(DATA.weight, 36 * count, replacement=True, generator=generator)
        return DATA.values[which].reshape(count, 1, 6, 6)

    def one_time_each(which: VDM, count: int, generator: torch.Generator) -> Losses:
        t = 1.0 - torch.rand(count, generator=generator, dtype=torch.float64)
        noise = cast(Any, Noise(int(torch.randint(2**31, (1,), generator=generator))))
        return VariationalDiffusion()(
            Exact(DATA, which), images(count, generator), UNCONDITIONAL, Times(t, torch.ones_like(t)), noise
        )

    optimizer, generator = torch.optim.Adam(schedule.parameters(), lr=0.1), torch.Generator().manual_seed(0)
    for _ in range(150):
        optimizer.zero_grad()
        one_time_each(schedule, 48, generator).total.mean().backward()
        optimizer.step()
    found = [
        one_time_each(each, 4000, torch.Generator().manual_seed(1)).total.detach() for each in (schedule, straight)
    ]
    (mean, variance), (mean_straight, variance_straight) = ((float(x.mean()), float(x.var())) for x in found)
    print(f"variance of the loss, learned over straight: {variance / variance_straight:.3f}")
    assert abs(mean - mean_straight) < 3 * math.sqrt((variance + variance_straight) / 4000)
    assert variance < 0.7 * variance_straight
