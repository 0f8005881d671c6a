"""The VAE's bound, on a model whose likelihood is known: a linear decoder, of which the exact posterior is diagonal."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from trilemma.errors import InputError
from trilemma.process import Denoiser, Prior
from trilemma.training import Batch, VAELearner
from trilemma.training.bounds import Spread

SIGMA, SCALES = 0.4, torch.tensor([1.5, 0.7])
AXES = torch.from_numpy(np.linalg.qr(np.random.default_rng(0).normal(size=(6, 2)))[0]).float()
OFFSET = torch.linspace(-0.5, 0.5, 6)


class Linear(nn.Module):
    """x̂ = W z + b, the columns of W at right angles."""

    def __init__(self) -> None:
        super().__init__()
        self.latent, self.weight = 2, nn.Parameter(AXES * SCALES)

    def forward(self, latent: Tensor, label: Tensor | None = None) -> Tensor:
        shift = 0.0 if label is None else label.float()[:, None]
        return (latent @ self.weight.T + OFFSET + shift).view(-1, 1, 2, 3)


class Posterior(nn.Module):
    """Mean and log variance of p(z | x), times `off` what they should be."""

    def __init__(self, off: float = 1.0) -> None:
        super().__init__()
        self.off = nn.Parameter(torch.tensor(off))

    def forward(self, x: Tensor) -> Tensor:
        precision = SCALES**2 / SIGMA**2 + 1
        mean = ((x.flatten(1) - OFFSET) @ (AXES * SCALES)) / SIGMA**2 / precision
        return torch.cat([self.off * mean, -precision.log().expand_as(mean)], 1)


def learner(encoder: nn.Module | None = None, beta: float = 1.0, conditional: bool = False) -> VAELearner:
    spread = Spread()
    nn.init.constant_(spread.log_sigma, math.log(SIGMA))
    denoiser = Denoiser(Linear(), Prior(), "x0", "fixed_small")
    return VAELearner(denoiser, encoder or Posterior(), spread, beta, conditional)


def batch(count: int, repeats: int = 1, **given: Any) -> Batch:
    images = torch.from_numpy(np.random.default_rng(1).normal(0, 0.8, (count, 1, 2, 3))).float()
    keys = [(0, "train", 0, i) for i in range(count * repeats)]
    return Batch(images.repeat(repeats, 1, 1, 1), given.get("labels"), keys)


def log_likelihood(x: Tensor) -> Tensor:
    """log N(x; b, W Wᵀ + σ² I), in nats."""
    covariance = (AXES * SCALES) @ (AXES * SCALES).T + SIGMA**2 * torch.eye(6)
    return torch.distributions.MultivariateNormal(OFFSET, covariance).log_prob(x.flatten(1))


def test_with_the_exact_posterior_the_bound_is_the_likelihood() -> None:
    """In nats a dimension; with any other it is less, by what the two posteriors differ."""
    whole = batch(3, repeats=8000)
    expected = -log_likelihood(whole.images[:3]) / 6
    with torch.no_grad():
        found = learner().losses(whole)
        worse = learner(Posterior(0.5)).losses(whole)
    each = found.each.view(8000, 3)
    errors = each.std(0) / 8000**0.5
    assert ((each.mean(0) - expected).abs() < 4 * errors).all() and errors.max() < 5e-3
    # KL(N(m/2, s) ‖ N(m, s)) = ½ (m/2)²/s
    mean, log_variance = Posterior()(whole.images[:3]).chunk(2, 1)
    gap = (0.5 * (mean / 2) ** 2 / log_variance.exp()).sum(1) / 6
    assert torch.allclose(worse.each.view(8000, 3).mean(0) - expected, gap, atol=0.02)


def test_beta_weighs_the_rate() -> None:
    plain, heavy = learner().losses(batch(5)), learner(beta=3.0).losses(batch(5))
    assert torch.allclose(plain.each, plain.parts["distortion"] + plain.parts["rate"])
    assert torch.allclose(heavy.each - plain.each, 2 * plain.parts["rate"], atol=1e-6)


def test_sigma_is_learnt_to_be_the_error_s() -> None:
    made = learner()
    with torch.no_grad():
        z_squares = (
            2 * SIGMA**2 * (made.losses(batch(5)).parts["distortion"] - math.log(SIGMA * math.sqrt(2 * math.pi)))
        )
        made.spread.log_sigma.copy_(0.5 * z_squares.mean().log())
    made.losses(batch(5)).loss.backward()
    assert made.spread.log_sigma.grad.abs() < 1e-5, "σ² is the mean squared error where its gradient is zero"
    assert made.denoiser.network.weight.grad.abs().sum() > 0 and made.encoder.off.grad.abs() > 0


def test_classes_reach_the_decoder_if_it_is_conditional() -> None:
    labels = torch.tensor([0, 1, 2, 0, 1])
    told, untold = (learner(conditional=yes).losses(batch(5, labels=labels)).each for yes in (True, False))
    assert torch.equal((told != untold), labels > 0)


def test_validation_is_the_bound_again_and_the_same() -> None:
    made = learner()
    assert torch.equal(made.validate(batch(4))["validation_loss"], made.validate(batch(4))["validation_loss"])
    assert torch.equal(made.validate(batch(4))["validation_loss"], made.losses(batch(4)).each)


def test_an_encoder_of_another_size_is_refused() -> None:
    with pytest.raises(InputError, match=r"Sequential gave \[5, 3\], expected \[5, 4\], a mean and a log variance"):
        learner(nn.Sequential(nn.Flatten(), nn.Linear(6, 3))).losses(batch(5))
