"""The bound on images by a codec and a model of its latents, where all of it is known: pixels of a few levels, a linear
codec, latents whose distribution is a mixture, and that mixture's exact denoiser."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from tests.exact import Mixture
from tests.proofs.models import Exact, column
from trilemma.metrics.latent_likelihood import of_latents
from trilemma.metrics.likelihood import variational_bound
from trilemma.process import UNCONDITIONAL, Codec, Cosine, Draw
from trilemma.samplers import grid

LEVELS = torch.tensor([-1.0, -0.5, 0.2, 0.9], dtype=torch.float64)
LEVELS = ((LEVELS + 1) * 127.5).round() / 127.5 - 1
P = torch.tensor([0.4, 0.1, 0.3, 0.2], dtype=torch.float64)
SPREAD, GAIN, SIGMA, SCALE = 0.05, 2.0, 0.02, 0.6
ENTROPY = float(-(P * P.log2()).sum())


class Linear(nn.Module):
    """z ~ N(GAIN x, SPREAD²), decoded to z/GAIN."""

    latent_channels = 1

    def encode(self, x: Tensor) -> Tensor:
        return torch.cat([GAIN * x, torch.full_like(x, 2 * math.log(SPREAD))], dim=1)

    def decode(self, z: Tensor) -> Tensor:
        return z / GAIN


def latents() -> Mixture:
    """What scaled latents are distributed as, over all the data."""
    variances = torch.full_like(LEVELS, (SCALE * SPREAD) ** 2)
    return Mixture(P, column(SCALE * GAIN * LEVELS), column(variances))


def log2_density(z: Tensor) -> Tensor:
    means, deviation = (SCALE * GAIN * LEVELS)[None], SCALE * SPREAD
    each = -0.5 * ((z.flatten()[:, None] - means) / deviation) ** 2 - math.log(deviation) - 0.5 * math.log(2 * math.pi)
    return (each + P.log()).logsumexp(1) / math.log(2)


@pytest.fixture(scope="module")
def drawn() -> tuple[Tensor, Draw]:
    n = 1500
    counts = (P * n).round().long()
    return column(LEVELS.repeat_interleave(counts)), Draw((i, "proof") for i in range(n))


def test_it_is_the_bound_of_the_parts_and_above_the_entropy(drawn: tuple[Tensor, Draw]) -> None:
    x, draw = drawn
    codec = Codec(Linear(), SCALE, torch.tensor(math.log(SIGMA), dtype=torch.float64))
    found = of_latents(codec, x, (-1.0, 1.0), draw)
    assert found.share == 1.0
    assert float(found.entropy[0]) == pytest.approx(math.log2(SCALE * SPREAD * math.sqrt(2 * math.pi * math.e)))
    exact = found.total(-log2_density(found.z))
    # With the true p(z), what is lost is KL(q(x | z) ‖ p(x | z)) alone: here next to nothing but the decoder's width.
    error = 4 * float(exact.std()) / math.sqrt(len(x))
    assert ENTROPY - error < float(exact.mean()) < ENTROPY + 5.0
    gaps = []
    for steps in (30, 120):
        denoiser = Exact(latents(), Cosine(steps=steps), "fixed_large")
        denoiser.codec = codec  # latents have no levels: the last term is a density
        bound = variational_bound(denoiser, found.z, UNCONDITIONAL, grid(denoiser.schedule), draw)
        gap = found.total(bound.total) - exact
        gaps.append(float(gap.mean()))
        assert gaps[-1] > -4 * float(gap.std()) / math.sqrt(len(x))
    assert gaps[1] < 0.5 < gaps[0]


def test_a_decoder_that_knows_the_image_costs_what_its_latent_does(drawn: tuple[Tensor, Draw]) -> None:
    """q(z | x) so narrow, and p(x | z) so sharp, that z tells x: the bound is the entropy."""
    x, draw = drawn
    codec = Codec(Linear(), SCALE, torch.tensor(math.log(1e-3), dtype=torch.float64))
    network: nn.Module = codec.network  # type: ignore[assignment]
    network.encode = lambda x: torch.cat([GAIN * x, torch.full_like(x, 2 * math.log(1e-3))], 1)  # type: ignore[assignment]
    found = of_latents(codec, x, (-1.0, 1.0), draw)
    means, deviation = (SCALE * GAIN * LEVELS)[None], SCALE * 1e-3
    each = -0.5 * ((found.z.flatten()[:, None] - means) / deviation) ** 2
    log_p = (each + P.log()).logsumexp(1) - math.log(deviation) - 0.5 * math.log(2 * math.pi)
    total = found.total(-log_p / math.log(2))
    assert float(total.mean()) == pytest.approx(ENTROPY, abs=0.05)
