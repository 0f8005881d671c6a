"""L_vlb and L_hybrid against terms computed in NumPy from the published formulas, and what gradients they give."""

from __future__ import annotations

import math
from typing import Any, cast

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch import Tensor, nn

from tests.exact import Given, cosine_alpha_bar, linear_alpha_bar
from trilemma.errors import InputError
from trilemma.metrics.likelihood import variational_bound
from trilemma.objectives import OBJECTIVES, Hybrid, Simple, Variational, bound_term
from trilemma.process import EDM, Condition, ContinuousVP, Cosine, Denoiser, Linear, Schedule, Times, perturb
from trilemma.samplers import grid

CASES: dict[str, tuple[Schedule, np.ndarray]] = {
    "linear": (Linear(steps=40, beta_end=0.3), linear_alpha_bar(40, end=0.3)),
    "cosine": (Cosine(steps=25), cosine_alpha_bar(25)),
}
VARIANCES = ["fixed_small", "fixed_large", "learned_range"]
SHAPE = (2, 3, 3)


class Split(nn.Module):
    """A network of two parameters, one for the mean's channels and one for the variance's, which answers to x."""

    def __init__(self, learned: bool):
        super().__init__()
        self.mean, self.variance = (nn.Parameter(torch.tensor(w, dtype=torch.float64)) for w in (0.7, 0.3))
        self.learned = learned

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        mean = torch.tanh(self.mean * x)
        return torch.cat([mean, torch.tanh(self.variance * x)], 1) if self.learned else mean


def denoiser(name: str, variance: str, parameterization: str = "epsilon") -> Denoiser:
    return Denoiser(Split(variance == "learned_range"), CASES[name][0], parameterization, variance)


def pixels(count: int, seed: int = 0) -> Tensor:
    """Images of the 256 levels, both ends among them."""
    levels = np.random.default_rng(seed).integers(0, 256, (count, *SHAPE))
    levels[:, 0, 0, 0], levels[:, 0, 0, 1] = 0, 255
    return torch.from_numpy(levels / 127.5 - 1.0)


def noise(count: int, seed: int = 1) -> Tensor:
    return torch.randn(count, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def times(*t: float) -> Times:
    return Times(torch.tensor(t, dtype=torch.float64), torch.ones(len(t), dtype=torch.float64))


def term(table: np.ndarray, subset: list[int], index: int, x0: np.ndarray, eps: np.ndarray, variance: str) -> float:
    """One term of the bound in bits/dim, by the textbook: for the index-th of the subset's times (rising), the KL of
    two Gaussians, or for the first of them −log₂ of the mass of x_0's bin. The network is `Split` of weights 0.7, 0.3,
    predicting ε."""
    bar = table[[0, *subset]]
    at, before = bar[index + 1], bar[index]
    beta = 1 - at / before
    tilde = (1 - before) / (1 - at) * beta
    floor = tilde if index else (1 - at) / (1 - bar[2]) * (1 - bar[2] / at)
    x_t = math.sqrt(at) * x0 + math.sqrt(1 - at) * eps
    guess = (x_t - math.sqrt(1 - at) * np.tanh(0.7 * x_t)) / math.sqrt(at)
    to_x0, to_xt = math.sqrt(before) * beta / (1 - at), math.sqrt(1 - beta) * (1 - before) / (1 - at)
    mean, truth = to_x0 * guess + to_xt * x_t, to_x0 * x0 + to_xt * x_t
    v = (np.tanh(0.3 * x_t) + 1) / 2
    log_q = {
        "fixed_small": np.full_like(x_t, math.log(floor)),
        "fixed_large": np.full_like(x_t, math.log(beta if index else floor)),  # the decoder's is β̃_2, as in Ho's code
        "learned_range": v * math.log(beta) + (1 - v) * math.log(floor),
    }[variance]
    if index:
        kl = 0.5 * (log_q - math.log(tilde) - 1 + (tilde + (truth - mean) ** 2) / np.exp(log_q))
        return float(kl.mean() / math.log(2))
    scale = np.exp(0.5 * log_q)
    upper = np.where(x0 > 0.999, np.inf, (x0 + 1 / 255 - mean) / scale)
    lower = np.where(x0 < -0.999, -np.inf, (x0 - 1 / 255 - mean) / scale)
    # In the upper tail the survival function, so that the difference keeps its digits.
    mass = np.where(lower > 0, norm.sf(lower) - norm.sf(upper), norm.cdf(upper) - norm.cdf(lower))
    return float(-np.log2(mass).mean())


@pytest.mark.parametrize("variance", VARIANCES)
@pytest.mark.parametrize("name", sorted(CASES))
class TestTerms:
    def test_every_term_by_hand(self, name: str, variance: str) -> None:
        """T times the term of t, L_0 among them, for every t of the table at once."""
        table = CASES[name][1]
        steps = len(table) - 1
        x0, eps = pixels(steps), noise(steps)
        at = times(*range(1, steps + 1))
        losses = Variational()(denoiser(name, variance), x0, Condition(), at, cast(Any, Given(eps)))
        full = list(range(1, steps + 1))
        expected = [steps * term(table, full, i, x0[i].numpy(), eps[i].numpy(), variance) for i in range(steps)]
        np.testing.assert_allclose(losses.total.detach().numpy(), expected, rtol=1e-6, atol=1e-8)
        assert torch.equal(losses.parts["vlb"], losses.total)

    def test_respaced_terms_by_hand(self, name: str, variance: str) -> None:
        """Between the times of a subset, its own β, β̃ and floor."""
        schedule, table = CASES[name]
        subset = [2, 3, 9, 20, 25]
        model, count = denoiser(name, variance), len(subset)
        x0, eps = pixels(count), noise(count)
        t = torch.tensor(subset, dtype=torch.float64)
        s, noisier = torch.cat([t.new_zeros(1), t[:-1]]), torch.cat([t[1:], t[-1:]])
        prediction = model(perturb(schedule, x0, t, eps), t)
        found = bound_term(model, x0, eps, prediction, t, s, noisier)
        expected = [term(table, subset, i, x0[i].numpy(), eps[i].numpy(), variance) for i in range(count)]
        np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-6, atol=1e-8)

    def test_all_times_sum_to_the_bound(self, name: str, variance: str) -> None:
        """The mean of L_vlb over every t is ΣL_t + L_0 of the same image with the same noises."""
        schedule, table = CASES[name]
        steps, model = len(table) - 1, denoiser(name, variance)
        x0, eps = pixels(1), noise(steps)
        at = times(*range(steps, 0, -1))
        losses = Variational()(model, x0.expand(steps, *SHAPE), Condition(), at, cast(Any, Given(eps)))
        bound = variational_bound(model, x0, Condition(), grid(schedule), cast(Any, Given(*eps[:, None])))
        assert losses.total.mean().item() == pytest.approx(bound.terms.sum().item(), rel=1e-9)
        torch.testing.assert_close(losses.total.detach() / steps, bound.terms[0], rtol=1e-8, atol=1e-12)
        assert bound.times.tolist() == at.t.tolist()
        moment = float(x0.square().mean())
        assert bound.prior.item() == pytest.approx(schedule.prior_bits_per_dim(moment), rel=1e-6, abs=1e-12)
        assert bound.total.item() == pytest.approx(bound.prior.item() + bound.terms.sum().item(), rel=1e-12)


@pytest.mark.parametrize("variance", VARIANCES)
def test_a_right_mean_with_the_right_variance_costs_nothing(variance: str) -> None:
    """KL terms of a network that says ε are those of the variances alone: 0 for β̃."""
    schedule, table = CASES["linear"]
    eps = noise(1)
    right = nn.Module()
    right.forward = lambda x, t: torch.cat([eps, -torch.ones_like(eps)], 1) if variance == "learned_range" else eps
    model = Denoiser(right, schedule, "epsilon", variance)
    for t in (2, 20, 40):
        found = Variational()(model, pixels(1), Condition(), times(t), cast(Any, Given(eps))).total.item()
        beta = 1 - table[t] / table[t - 1]
        ratio = (1 - table[t - 1]) / (1 - table[t]) if variance == "fixed_large" else 1.0
        assert beta > 0
        expected = 0.5 * (ratio - 1 - math.log(ratio)) * 40 / math.log(2)
        assert found == pytest.approx(expected, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("weight", [0.0, 0.001, 0.3])
@pytest.mark.parametrize("name", sorted(CASES))
class TestHybrid:
    AT = (1, 2, 7, 25)

    def test_it_is_simple_plus_lambda_times_vlb(self, name: str, weight: float) -> None:
        table = CASES[name][1]
        model, x0, eps = denoiser(name, "learned_range"), pixels(4), noise(4)
        found = Hybrid(weight=weight)(model, x0, Condition(), times(*self.AT), cast(Any, Given(eps)))
        steps = len(table) - 1
        for i, t in enumerate(self.AT):
            x_t = math.sqrt(table[t]) * x0[i].numpy() + math.sqrt(1 - table[t]) * eps[i].numpy()
            simple = float(np.mean((eps[i].numpy() - np.tanh(0.7 * x_t)) ** 2))
            full = list(range(1, steps + 1))
            vlb = weight * steps * term(table, full, t - 1, x0[i].numpy(), eps[i].numpy(), "learned_range")
            assert found.parts["simple"][i].item() == pytest.approx(simple, rel=1e-9)
            assert found.parts["vlb"][i].item() == pytest.approx(vlb, rel=1e-6, abs=1e-12)
            assert found.total[i].item() == pytest.approx(simple + vlb, rel=1e-6)

    def test_the_mean_learns_from_simple_alone_and_the_variance_from_vlb_alone(self, name: str, weight: float) -> None:
        x0, eps, at = pixels(4), noise(4), times(*self.AT)

        def gradients(objective: Any, variance: str = "learned_range") -> list[Tensor]:
            model = denoiser(name, variance)
            objective(model, x0, Condition(), at, cast(Any, Given(eps))).total.mean().backward()
            return [p.grad if p.grad is not None else torch.zeros_like(p) for p in model.network.parameters()]

        mean, variance = gradients(Hybrid(weight=weight))
        assert torch.equal(mean, gradients(Simple())[0])
        full = gradients(Variational())
        torch.testing.assert_close(variance, weight * full[1], rtol=1e-9, atol=1e-15)
        assert full[0] != 0, "L_vlb by itself trains the mean"
        assert full[1] != 0


def test_lambda_is_a_thousandth_unless_told() -> None:
    assert Hybrid().weight == 0.001


def test_its_gradient_into_the_variance_is_the_slope() -> None:
    """By differences: nothing else of the bound depends on the variance's weight."""
    x0, eps, at = pixels(4), noise(4), times(1, 2, 20, 40)

    def loss(value: float) -> Tensor:
        model = denoiser("linear", "learned_range")
        cast(Any, model.network).variance.data.fill_(value)
        return Variational()(model, x0, Condition(), at, cast(Any, Given(eps))).total.mean()

    model = denoiser("linear", "learned_range")
    Variational()(model, x0, Condition(), at, cast(Any, Given(eps))).total.mean().backward()
    h = 1e-5
    slope = (loss(0.3 + h) - loss(0.3 - h)).item() / (2 * h)
    gradient = cast(Any, model.network).variance.grad.item()
    assert gradient == pytest.approx(slope, rel=1e-6)


@pytest.mark.parametrize("objective", [Variational(), Hybrid()])
@pytest.mark.parametrize("schedule", [Linear(), Cosine(steps=4000)])
def test_gradients_are_finite_in_float32_however_wrong_the_network_is(objective: Any, schedule: Schedule) -> None:
    """At every scale of error, at the levels' ends and at every kind of time: no 0 · ∞ from the branch not taken."""
    for scale in (0.0, 1.0, 100.0):
        raw = torch.randn(1, 4, 3, 3, generator=torch.Generator().manual_seed(2))
        raw[:, :2] *= scale
        raw.requires_grad_()
        network = nn.Module()
        network.forward = lambda x, t, raw=raw: raw.expand(len(x), -1, -1, -1)
        model = Denoiser(network, schedule, "epsilon", "learned_range")
        at = times(1, 2, 3, schedule.T // 2, schedule.T)
        losses = objective(model, pixels(5).float(), Condition(), at, cast(Any, Given(noise(5).float())))
        losses.total.sum().backward()
        assert torch.isfinite(losses.total).all()
        assert raw.grad is not None and torch.isfinite(raw.grad).all()


@pytest.mark.parametrize("name", ["vlb", "hybrid"])
@pytest.mark.parametrize("schedule", [ContinuousVP(), EDM()])
def test_a_table_is_needed(name: str, schedule: Schedule) -> None:
    model = Denoiser(Split(False), schedule, "epsilon")
    with pytest.raises(InputError, match=r"objective: the variational bound of T steps needs a tabulated schedule"):
        OBJECTIVES[name]()(model, pixels(1), Condition(), times(0.5), cast(Any, Given(noise(1))))


def test_a_bound_of_one_step_is_refused() -> None:
    model = denoiser("linear", "fixed_small")
    with pytest.raises(InputError, match=r"steps 1: the bound needs 2 or more"):
        variational_bound(model, pixels(1), Condition(), grid(model.schedule, 1), cast(Any, Given(noise(1))))
