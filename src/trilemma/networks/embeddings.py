"""How a time or a class becomes a vector."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from trilemma.networks.norms import xavier


class Sinusoidal(nn.Module):
    """Transformer position embedding of the time [n] -> [n, dim]: cosines, then sines, of t · 10000^(−i/half)
    (Vaswani et al. 2017), in the order and spacing of Ho et al.'s successors (improved-diffusion). `endpoint`: spaced
    so that the slowest is t / 10000, as in Ho et al.'s own code."""

    def __init__(self, dim: int, endpoint: bool = False):
        super().__init__()
        half = dim // 2
        self.dim = dim
        # Multiplied before it is divided, as those libraries do: an angle of a thousand keeps four digits of a
        # fraction, and weights learnt on their roundings ask for the same.
        exponents = -math.log(10000.0) * torch.arange(half) / max(1, half - endpoint)
        self.frequencies: Tensor
        self.register_buffer("frequencies", torch.exp(exponents), persistent=False)

    def forward(self, time: Float[Tensor, "n"]) -> Float[Tensor, "n dim"]:
        angles = time[:, None] * self.frequencies[None]
        embedding = torch.cat([angles.cos(), angles.sin()], dim=1)
        return nn.functional.pad(embedding, (0, self.dim - embedding.shape[1]))


class TimeAndClass(nn.Module):
    """Sinusoidal time embedding through two linear layers with a swish between (A 4.1); a class, where there are any,
    is a learned vector added to it (Nichol & Dhariwal 2021, section 3.3). Given after one more swish, with which every
    block's own linear layer begins. `base` None: `dim` sinusoids as they are, without those two layers (D 2.1).
    `low_time`: the time that an upsampler's low image is noised to is embedded and added as well, through linear layers
    of its own (Ho et al. 2022, section 4.2)."""

    def __init__(self, base: int | None, dim: int, classes: int, endpoint: bool = False, low_time: bool = False):
        super().__init__()
        self.dim = dim
        self.time = self._embedding(base, dim, endpoint)
        self.label = nn.Embedding(classes, dim) if classes else None
        self.low_time = self._embedding(base or dim, dim, endpoint) if low_time else None

    def _embedding(self, base: int | None, dim: int, endpoint: bool) -> nn.Module:
        if base is None:
            return Sinusoidal(dim, endpoint)
        return nn.Sequential(Sinusoidal(base, endpoint), nn.Linear(base, dim), nn.SiLU(), nn.Linear(dim, dim))

    def forward(
        self, time: Float[Tensor, "n"], label: Int64[Tensor, "n"] | None, low_time: Float[Tensor, "n"] | None = None
    ) -> Float[Tensor, "n dim"]:
        embedding = self.time(time)
        if self.low_time is not None and low_time is not None:
            embedding = embedding + self.low_time(low_time)
        if self.label is not None and label is not None:
            embedding = embedding + self.label(label)
        return nn.functional.silu(embedding)


class LatentMapping(nn.Module):
    """The mapping network of a latent vector z [n, latent] -> [n, width] (Karras et al. 2019; Xiao et al. 2022,
    appendix C): z over the root of its mean square, then linear layers, a swish after each."""

    def __init__(self, latent: int, width: int, layers: int):
        super().__init__()
        sizes = pairwise([latent] + [width] * layers)
        self.layers = nn.Sequential(*(part for a, b in sizes for part in (xavier(nn.Linear(a, b)), nn.SiLU())))

    def forward(self, z: Float[Tensor, "n latent"]) -> Float[Tensor, "n width"]:
        return self.layers(pixel_norm(z))


def pixel_norm(z: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """Each row over the root of its mean square (Karras et al. 2018, section 4.2)."""
    return z * torch.rsqrt(z.square().mean(1, keepdim=True) + 1e-8)


class BottomMaps(nn.Module):
    """E's embeddings (E 3.3–3.5): the time, and the one-hot class where there are classes, each pass a net of one
    hidden layer whose long output vector is rearranged into feature maps [n, channels, h, w] for the bottom block."""

    def __init__(self, channels: int, size: tuple[int, int], classes: int, time_range: float):
        super().__init__()
        area = size[0] * size[1]

        def net(inputs: int) -> nn.Module:
            hidden = [nn.Linear(inputs, channels), nn.ReLU(), nn.Linear(channels, channels * area)]
            return nn.Sequential(*hidden, nn.Unflatten(1, (channels, *size)))

        self.time_range = time_range
        self.classes = classes
        self.time = net(1)
        self.label = net(classes) if classes else None
        self.channels = channels * (2 if classes else 1)

    def forward(self, time: Float[Tensor, "n"], label: Int64[Tensor, "n"] | None) -> Float[Tensor, "n c h w"]:
        maps = [self.time(time[:, None] / self.time_range)]
        if self.label is not None:
            assert label is not None
            maps.append(self.label(nn.functional.one_hot(label, self.classes).to(time.dtype)))
        return torch.cat(maps, dim=1)


def with_fourier(x: Float[Tensor, "n c h w"], exponents: Sequence[int]) -> Float[Tensor, "n d h w"]:
    """x, and after it sin(2^n π x) and cos(2^n π x) for each exponent n, which tell values apart that lie less than a
    level from each other (Kingma et al. 2021, section 3.3 and appendix C). In float32 or finer, whatever x's type: of
    bfloat16's three digits they are noise."""
    if not exponents:
        return x
    fine = x.to(torch.promote_types(x.dtype, torch.float32))
    angles = [2.0**exponent * math.pi * fine for exponent in exponents]
    return torch.cat([fine, *(wave for angle in angles for wave in (angle.sin(), angle.cos()))], dim=1)


def check_label(classes: int, label: Tensor | None) -> None:
    """Raises ValueError for labels that a network of classes is not given."""
    if classes and label is None:
        raise ValueError("this network is class-conditional: it needs a label for each image")
