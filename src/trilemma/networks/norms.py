"""Normalisation, and what the blocks of one network share: it, the activation, and how time and class enter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeVar

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
        scale = torch.rsqrt(variance + self.eps).expand(means.view(groups).shape)
        scale = scale * self.weight.view(self.num_groups, -1) if self.affine else scale
        shift = (means.to(x.dtype).view(groups) - mean) * scale
        shift = self.bias.view(self.num_groups, -1) + shift if self.affine else shift
        shift, scale = (part.reshape(n, c, 1, 1).to(x.dtype) for part in (shift, scale))
        return torch.addcmul(shift, centred, scale)


def group_norm(channels: int, groups: int | None = None, eps: float = 1e-6, affine: bool = True) -> GroupNorm:
    """Group normalisation with 32 groups (ε = 1e-6, as DDPM), fewer where that would leave less than four channels in
    one: a group of one channel takes away what the time embedding adds to it. `groups`: so many whatever is left."""
    if groups is None:
        groups = next(g for g in range(max(1, min(32, channels // 4)), 0, -1) if channels % g == 0)
    elif channels % groups:
        raise ValueError(f"network.groups {groups} does not divide {channels} channels")
    return GroupNorm(groups, channels, eps=eps, affine=affine)


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
        scale = torch.rsqrt(variance + self.eps)
        if not self.affine:
            return ((values - mean[:, None, None]) * scale[:, None, None]).to(x.dtype)
        scale = self.weight * scale
        return ((values - mean[:, None, None]) * scale[:, None, None] + self.bias[:, None, None]).to(x.dtype)


class TokenNorm(nn.LayerNorm):
    """Layer normalisation over the channels of each position (Ba et al. 2016), with ConvNeXt's ε."""

    def __init__(self, channels: int, affine: bool = True):
        super().__init__(channels, eps=1e-6, elementwise_affine=affine)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


def zero(module: nn.Module) -> nn.Module:
    """The module with its parameters set to zero."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


Layer = TypeVar("Layer", nn.Conv2d, nn.Linear, nn.Embedding)


def xavier(layer: Layer, gain: float = 1.0) -> Layer:
    """The layer with weights drawn uniformly from ± gain √(6 / (fan_in + fan_out)) (Glorot & Bengio 2010, eq. 16) and
    its bias at zero: how the GANs' published code and DDPM's begin."""
    nn.init.xavier_uniform_(layer.weight, gain)
    if not isinstance(layer, nn.Embedding) and layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


@dataclass(frozen=True)
class Style:
    """What the blocks of one network share. `embedding`: length of the vector of time and class. `entry`: where it
    enters a block, see `ConditionedNorm`. `modulation`: of networks whose blocks' norms are scaled and shifted by a
    latent vector or a class, what makes both of it for so many channels, see `ModulatedNorm`. `rescale`: residual sums
    are divided by √2 (Song et al. 2021, C.2). `zero_init`: residual branches begin as the identity, the network's
    output at zero (Ho et al. 2020)."""

    norm: Callable[..., nn.Module] = group_norm
    activation: Callable[[], nn.Module] = nn.SiLU
    entry: Entry = "added"
    embedding: int = 0
    dropout: float = 0.0
    rescale: bool = False
    zero_init: bool = True
    modulation: Callable[[int], nn.Module] | None = None

    def plain(self) -> Style:
        """For a block that takes no time, no dropout and no rescaling: D's stem and bottleneck."""
        return Style(self.norm, self.activation, entry="bottom")

    def last(self, module: nn.Module) -> nn.Module:
        """The module as the last layer of a residual branch or of the network: zero, if that is how they begin."""
        return zero(module) if self.zero_init else module

    def residual(self, x: Tensor, h: Tensor) -> Tensor:
        """The sum of a residual link and what it goes around."""
        return (x + h) * 0.5**0.5 if self.rescale else x + h


def norm_of(kind: Norm, groups: int | None, eps: float) -> Callable[..., nn.Module]:
    """Normalisation by name, as a function of the channels and of whether it is `affine`. `layer` is one group: over
    all channels and positions."""
    if kind == "batch":
        return BatchNorm2d
    return partial(group_norm, groups=1 if kind == "layer" else groups, eps=eps)


class ModulatedNorm(nn.Module):
    """A norm without an affine map of its own, scaled and shifted by what the network's `modulation` makes of e:
    (1 + s(e)) norm(h) + b(e). Of a latent vector this is DDGAN's adaptive group norm (Xiao et al. 2022, appendix C), of
    a class conditional batch norm (Dumoulin et al. 2017)."""

    def __init__(self, channels: int, style: Style):
        super().__init__()
        assert style.modulation is not None
        self.norm = style.norm(channels, affine=False)
        self.modulation = style.modulation(channels)

    def forward(self, h: Float[Tensor, "n c h w"], e: Tensor | None) -> Float[Tensor, "n c h w"]:
        return modulate(self.norm(h), self.modulation(e))


def modulate(h: Float[Tensor, "n c h w"], by: Float[Tensor, "n c2"]) -> Float[Tensor, "n c h w"]:
    """(1 + scale) h + shift, of scales and shifts [n, c] one after the other: zeros leave h alone."""
    scale, shift = by[:, :, None, None].chunk(2, dim=1)
    return h * (1 + scale) + shift


def block_norm(channels: int, style: Style) -> nn.Module:
    """A norm of a network's blocks, to be called through `normalise`: modulated, if they are."""
    return style.norm(channels) if style.modulation is None else ModulatedNorm(channels, style)


def normalise(norm: nn.Module, h: Float[Tensor, "n c h w"], e: Tensor | None) -> Float[Tensor, "n c h w"]:
    """What a `block_norm` makes of h."""
    return norm(h, e) if isinstance(norm, ModulatedNorm) else norm(h)


class Modulation(nn.Linear):
    """Scales and shifts [n, 2c] of the last `latent` numbers of e, those before being the time and the class."""

    def __init__(self, latent: int, channels: int):
        super().__init__(latent, 2 * channels)
        xavier(self)

    def forward(self, e: Float[Tensor, "n e"]) -> Float[Tensor, "n c2"]:
        return super().forward(e[:, -self.in_features :])


class ConditionedNorm(nn.Module):
    """The normalisation inside a block, at which time and class enter: `added` before it, norm(h + We) (Ho et al.
    2020); `adagn` as its scale and shift, (1 + W_s e) norm(h) + W_b e (B table 3: Nichol & Dhariwal 2021, section 3.2);
    not here for the other entries. `e` is the embedding after its activation; in a network of modulated norms a latent
    vector comes after it."""

    def __init__(self, channels: int, style: Style):
        super().__init__()
        self.norm = block_norm(channels, style)
        self.scales = style.entry == "adagn"
        enters = style.entry in ("added", "adagn")
        self.embed = nn.Linear(style.embedding, channels * (1 + self.scales)) if enters else None

    def forward(self, h: Float[Tensor, "n c h w"], e: Float[Tensor, "n e"] | None) -> Float[Tensor, "n c h w"]:
        if self.embed is None:
            return normalise(self.norm, h, e)
        assert e is not None
        entering = self.embed(e[:, : self.embed.in_features])
        if not self.scales:
            return normalise(self.norm, h + entering[:, :, None, None], e)
        return modulate(normalise(self.norm, h, e), entering)
