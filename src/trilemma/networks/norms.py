"""Normalisation, and what the blocks of one network share: it, the activation, and how time and class enter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
import torch.distributed.nn.functional as distributed
from jaxtyping import Float
from torch import Tensor, nn

Norm = Literal["group", "layer", "batch"]
Activation = Literal["silu", "relu", "gelu"]
Entry = Literal["added", "adagn", "after", "bottom"]

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"silu": nn.SiLU, "relu": nn.ReLU, "gelu": nn.GELU}


class GroupNorm(nn.GroupNorm):
    """Group normalisation (Wu & He 2018) that is fast in either memory format."""

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        n, c, h, w = x.shape
        # PyTorch's CPU kernel for bf16 in channels_last strides through memory at maps under 1 024 positions: five to
        # twenty times slower than for contiguous maps. There the norm is taken as what it is, an affine map.
        fast = x.is_contiguous() or h * w >= 1024 or x.dtype is not torch.bfloat16
        if fast or x.device.type != "cpu":
            return super().forward(x)
        groups = (n, self.num_groups, -1)
        means = x.mean((2, 3), dtype=torch.float32)  # of each channel, then of each group
        mean = means.view(groups).mean(-1, keepdim=True)
        # About the channels' own means: E[x²] − E[x]² would lose its digits where the mean is large.
        centred = x - means[:, :, None, None].to(x.dtype)
        squares = centred.square().sum((2, 3), dtype=torch.float32).view(groups) / (h * w)
        variance = (squares + (means.view(groups) - mean).square()).mean(-1, keepdim=True)
        scale = torch.rsqrt(variance + self.eps) * self.weight.view(self.num_groups, -1)
        shift = self.bias.view(self.num_groups, -1) + (means.to(x.dtype).view(groups) - mean) * scale
        shift, scale = (part.reshape(n, c, 1, 1).to(x.dtype) for part in (shift, scale))
        return torch.addcmul(shift, centred, scale)


def group_norm(channels: int, groups: int | None = None, eps: float = 1e-6) -> GroupNorm:
    """Group normalisation with 32 groups (ε = 1e-6, as DDPM), fewer where that would leave less than four channels in
    one: a group of one channel takes away what the time embedding adds to it. `groups`: so many whatever is left."""
    if groups is None:
        groups = next(g for g in range(max(1, min(32, channels // 4)), 0, -1) if channels % g == 0)
    elif channels % groups:
        raise ValueError(f"network.groups {groups} does not divide {channels} channels")
    return GroupNorm(groups, channels, eps=eps)


class BatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation over the batch of all processes, on any device (PyTorch's SyncBatchNorm needs a GPU)."""

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        alone = not (torch.distributed.is_available() and torch.distributed.is_initialized())
        if not self.training or alone or torch.distributed.get_world_size() == 1:
            return super().forward(x)
        # In fp32 and in two passes: E[x²] − E[x]² loses its digits where the mean is large.
        values = x.float()
        count = values.new_tensor(values.numel() / values.shape[1])
        count = distributed.all_reduce(count).detach()
        mean = distributed.all_reduce(values.sum((0, 2, 3))) / count
        variance = distributed.all_reduce((values - mean[:, None, None]).square().sum((0, 2, 3))) / count
        with torch.no_grad():
            assert self.running_mean is not None and self.running_var is not None
            assert self.num_batches_tracked is not None and self.momentum is not None
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return ((values - mean[:, None, None]) * scale[:, None, None] + self.bias[:, None, None]).to(x.dtype)


class TokenNorm(nn.LayerNorm):
    """Layer normalisation over the channels of each position (Ba et al. 2016), with ConvNeXt's ε."""

    def __init__(self, channels: int):
        super().__init__(channels, eps=1e-6)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


def zero(module: nn.Module) -> nn.Module:
    """The module with its parameters set to zero."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


@dataclass(frozen=True)
class Style:
    """What the blocks of one network share. `embedding`: length of the vector of time and class. `entry`: where it
    enters a block, see `ConditionedNorm`. `rescale`: residual sums are divided by √2 (Song et al. 2021, C.2).
    `zero_init`: residual branches begin as the identity, the network's output at zero (Ho et al. 2020)."""

    norm: Callable[[int], nn.Module] = group_norm
    activation: Callable[[], nn.Module] = nn.SiLU
    entry: Entry = "added"
    embedding: int = 0
    dropout: float = 0.0
    rescale: bool = False
    zero_init: bool = True

    def plain(self) -> Style:
        """For a block that takes no time, no dropout and no rescaling: D's stem and bottleneck."""
        return Style(self.norm, self.activation, entry="bottom")

    def last(self, module: nn.Module) -> nn.Module:
        """The module as the last layer of a residual branch or of the network: zero, if that is how they begin."""
        return zero(module) if self.zero_init else module

    def residual(self, x: Tensor, h: Tensor) -> Tensor:
        """The sum of a residual link and what it goes around."""
        return (x + h) * 0.5**0.5 if self.rescale else x + h


def norm_of(kind: Norm, groups: int | None, eps: float) -> Callable[[int], nn.Module]:
    """Normalisation by name, as a function of the channels. `layer` is one group: over all channels and positions."""
    if kind == "batch":
        return BatchNorm2d
    return partial(group_norm, groups=1 if kind == "layer" else groups, eps=eps)


class ConditionedNorm(nn.Module):
    """The normalisation inside a block, at which time and class enter: `added` before it, norm(h + We) (Ho et al.
    2020); `adagn` as its scale and shift, (1 + W_s e) norm(h) + W_b e (B table 3: Nichol & Dhariwal 2021, section 3.2);
    not here for the other entries. `e` is the embedding after its activation."""

    def __init__(self, channels: int, style: Style):
        super().__init__()
        self.norm = style.norm(channels)
        self.scales = style.entry == "adagn"
        enters = style.entry in ("added", "adagn")
        self.embed = nn.Linear(style.embedding, channels * (1 + self.scales)) if enters else None

    def forward(self, h: Float[Tensor, "n c h w"], e: Float[Tensor, "n e"] | None) -> Float[Tensor, "n c h w"]:
        if self.embed is None:
            return self.norm(h)
        entering = self.embed(e)[:, :, None, None]
        if not self.scales:
            return self.norm(h + entering)
        scale, shift = entering.chunk(2, dim=1)
        return self.norm(h) * (1 + scale) + shift
