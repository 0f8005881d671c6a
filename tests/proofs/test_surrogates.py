"""Surrogate Diffusion on a mixture whose denoiser is known (A 3.2, algorithm 4)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from tests.exact import Mixture
from tests.proofs.models import Exact, cdf, line, number, regained
from trilemma.process import Linear, to_uint8
from trilemma.recipes import parse_sampling
from trilemma.samplers import SAMPLERS, Finished, Sampler, Surrogate

SCHEDULE = Linear(steps=100, beta_start=1e-3, beta_end=0.2)
DATA = line([0.3, 0.7], [-0.5, 0.45], [0.01, 0.015])
KEPT = Mixture(DATA.weights[1:] / DATA.weights[1:].sum(), DATA.means[1:], DATA.variances[1:])
"""The mode that a surrogate knows, where it misses the other."""
BETWEEN = -0.05
COUNT = 1000
ENOUGH: dict[str, dict[str, Any]] = {
    "ancestral": {"steps": 100},
    "ddim": {"steps": 100},
    "probability_flow": {"times": SCHEDULE.time_of(torch.linspace(10.8, -6.9, 250).double()).tolist()},
}
"""Steps; the others need few."""

WAYS = [*sorted(SAMPLERS), {"sampler": "ddim", "eta": 1.0}, {"sampler": "dpmpp", "stochastic": True}]


def surrogate(images: Mixture, t_mid: float, seed: int = 1) -> Surrogate:
    held = to_uint8(images.sample(COUNT, seed).float())
    return Surrogate(Finished(lambda seeds, _: held[list(seeds)], (1, 1, 1), "held"), t_mid, {"name": "held"})


def sampled(way: Any, begun: Surrogate | None, schedule: Linear = SCHEDULE) -> np.ndarray:
    """The ends of the walks of so many seeds, before they are rounded."""
    given = {"sampler": way} if isinstance(way, str) else way
    enough = ENOUGH.get(given["sampler"], {"steps": 40, "spacing": "log_snr"})
    settings = parse_sampling({"clip": "none", **enough, **given})
    *_, step = settings.build(Exact(DATA, schedule), (1, 1, 1), begun).walk(range(COUNT))
    return step.x.double().flatten().numpy()


def levels(t: float) -> tuple[float, float]:
    return float(SCHEDULE.alpha(number(t))), float(SCHEDULE.sigma(number(t)))


def clean(x: Any) -> np.ndarray:
    """P(x_0 ≤ x) of the data."""
    return cdf(DATA, torch.as_tensor(np.asarray(x, dtype=np.float64)), 1.0, 0.0)


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_a_surrogate_that_is_right_stays_right(way: Any) -> None:
    """Of every time and sampler, the data's distribution: Kolmogorov-Smirnov at the level of 1 in 1 000. With the
    stream of the walk's noise shared it would fail for the samplers that draw."""
    for t_mid in (10.0, 45.5, 100.0):
        ends = sampled(way, surrogate(DATA, t_mid))
        distance = stats.kstest(ends, clean).statistic
        assert distance < 1.95 / COUNT**0.5, (t_mid, distance)


@pytest.mark.parametrize("way", ["ancestral", "dpmpp"])
def test_a_mode_that_it_misses_comes_back_only_as_t_mid_grows(way: str) -> None:
    """By the share that the exact process or flow gives from there: none at first, the data's own at T."""
    times = [1.0, 15.0, 30.0, 50.0, 100.0]
    exact = [regained(DATA, 1, *levels(t), flow=way != "ancestral") for t in times]
    found = [float((sampled(way, surrogate(KEPT, t)) < BETWEEN).mean()) for t in times]
    for t, share, expected in zip(times, found, exact, strict=True):
        assert abs(share - expected) < 4 * (expected * (1 - expected) / COUNT) ** 0.5 + 0.005, (t, share, expected)
    assert all(np.diff(exact) > 0) and all(np.diff(found[:4]) > 0)
    assert found[0] == 0.0 and exact[0] < 1e-4
    assert exact[-1] == pytest.approx(0.3, abs=0.002)


def test_how_much_comes_back_is_known_by_a_second_route() -> None:
    """The quadrature against draws: x_t of the mode that is known, and the other's posterior there."""
    alpha, sigma = levels(40.0)
    rng = np.random.default_rng(0)
    x = alpha * KEPT.sample(200_000).numpy().ravel() + sigma * rng.standard_normal(200_000)
    m, v = DATA.means.flatten().numpy(), DATA.variances.flatten().numpy()
    joint = DATA.weights.numpy() * stats.norm.pdf(x[:, None], alpha * m, np.sqrt(alpha**2 * v + sigma**2))
    share = joint[:, 0] / joint.sum(1)
    error = share.std() / len(x) ** 0.5
    assert regained(DATA, 1, alpha, sigma) == pytest.approx(share.mean(), abs=4 * error)
    cut = np.quantile(alpha * DATA.sample(400_000, 3).numpy().ravel() + sigma * rng.standard_normal(400_000), 0.3)
    assert regained(DATA, 1, alpha, sigma, flow=True) == pytest.approx((x < cut).mean(), abs=0.005)


@pytest.mark.parametrize("way", ["ancestral", "ddim"])
def test_at_the_noisiest_time_it_is_plain_sampling_up_to_what_the_prior_leaves(way: str) -> None:
    """What x_T remembers of x̃_0 is in the share of the missing mode, as exactly known; where it remembers nothing, the
    two samples are of one distribution."""
    exact = []
    for end in (0.02, 0.2):
        schedule = Linear(steps=100, beta_start=1e-3, beta_end=end)
        alpha, sigma = (float(level(number(schedule.T))) for level in (schedule.alpha, schedule.sigma))
        exact.append(regained(DATA, 1, alpha, sigma, flow=way == "ddim"))
        ends = sampled(way, surrogate(KEPT, schedule.T), schedule)
        assert float((ends < BETWEEN).mean()) == pytest.approx(exact[-1], abs=4 * (0.21 / COUNT) ** 0.5)
    assert exact[0] + 0.02 < exact[1] == pytest.approx(0.3, abs=0.002)
    assert stats.ks_2samp(ends, sampled(way, None)).statistic < 1.95 * (2 / COUNT) ** 0.5


def test_the_walk_knows_nothing_of_the_noise_that_its_surrogate_is_made_of() -> None:
    """A run that begins from itself: the start's noise beside the noise that the surrogate started from."""
    whole = parse_sampling({"sampler": "ancestral", "clip": "none", "steps": 100})
    first = whole.build(Exact(DATA, SCHEDULE), (1, 1, 1))
    both = whole.build(Exact(DATA, SCHEDULE), (1, 1, 1), Surrogate(first, 50.0, {"name": "itself"}))
    seeds = range(COUNT)
    noise = next(first.walk(seeds)).x.flatten().numpy()
    *_, ended = first.walk(seeds)
    alpha, sigma = levels(50.0)
    own = (next(both.walk(seeds)).x.flatten().numpy() - alpha * ended.x.flatten().numpy()) / sigma
    assert abs(np.corrcoef(noise, own)[0, 1]) < 4 / COUNT**0.5
    assert own.std() == pytest.approx(1, abs=4 / (2 * COUNT) ** 0.5)
    *_, last = both.walk(seeds)
    distance = stats.kstest(last.x.flatten().numpy(), clean).statistic
    assert distance < 1.95 / COUNT**0.5


def test_a_sampler_is_named_by_what_it_begins_from() -> None:
    begun = Sampler(Exact(DATA, SCHEDULE), SAMPLERS["ddim"](), shape=(1, 1, 1), surrogate=surrogate(DATA, 45.5))
    assert begun.label == "DDIM, 46 steps, surrogate held at 45.5"
