"""The parts a U-Net is built from: residual and double-convolution blocks, changes of resolution, normalisation."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.distributed.nn.functional as distributed
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional


def group_norm(channels: int) -> nn.GroupNorm:
    """Group normalisation with 32 groups (ε = 1e-6, as DDPM), fewer where that would leave less than four channels in
    one: a group of one channel takes away what the time embedding adds to it."""
    groups = next(g for g in range(max(1, min(32, channels // 4)), 0, -1) if channels % g == 0)
    return nn.GroupNorm(groups, channels, eps=1e-6)


def zero(module: nn.Module) -> nn.Module:
    """The module with its parameters set to zero, so that a residual branch begins as the identity (Ho et al. 2020)."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


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


class ResidualBlock(nn.Module):
    """DDPM's residual block (A figure 4.1): norm, swish, convolution, + embedding, norm, swish, dropout, convolution,
    + shortcut, which is the identity or a 1×1 convolution where the channels change."""

    def __init__(self, inputs: int, outputs: int, embedding: int, dropout: float):
        super().__init__()
        self.norm1 = group_norm(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.embed = nn.Linear(embedding, outputs)
        self.norm2 = group_norm(outputs)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = zero(nn.Conv2d(outputs, outputs, 3, padding=1))
        self.shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Float[Tensor, "n c h w"], embedding: Float[Tensor, "n e"]) -> Float[Tensor, "n d h w"]:
        h = self.conv1(functional.silu(self.norm1(x)))
        h = h + self.embed(functional.silu(embedding))[:, :, None, None]
        h = self.conv2(self.dropout(functional.silu(self.norm2(h))))
        return self.shortcut(x) + h


class DoubleConv(nn.Module):
    """Two 3×3 convolutions, each with batch normalisation and ReLU (E 3.2). Takes no embedding."""

    def __init__(self, inputs: int, outputs: int, embedding: int, dropout: float):
        super().__init__()
        layers: list[nn.Module] = []
        for channels in (inputs, outputs):
            conv = nn.Conv2d(channels, outputs, 3, padding=1, bias=False)
            layers += [conv, BatchNorm2d(outputs), nn.ReLU(), nn.Dropout(dropout)]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Float[Tensor, "n c h w"], embedding: Tensor | None) -> Float[Tensor, "n d h w"]:
        return self.layers(x)


class StridedDown(nn.Conv2d):
    """Halve the resolution (odd sizes round up) by a 3×3 convolution of stride 2."""

    def __init__(self, channels: int):
        super().__init__(channels, channels, 3, stride=2, padding=1)


class MaxDown(nn.MaxPool2d):
    """Halve the resolution (odd sizes round up) by taking maxima."""

    def __init__(self, channels: int):
        super().__init__(2, ceil_mode=True)


class NearestUp(nn.Module):
    """Nearest-neighbour upsampling to the given size, then a 3×3 convolution."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Float[Tensor, "n c h w"], size: tuple[int, int]) -> Float[Tensor, "n c h2 w2"]:
        return self.conv(functional.interpolate(x, size=size, mode="nearest"))


class BilinearUp(nn.Module):
    """Bilinear upsampling to the given size."""

    def __init__(self, channels: int):
        super().__init__()

    def forward(self, x: Float[Tensor, "n c h w"], size: tuple[int, int]) -> Float[Tensor, "n c h2 w2"]:
        return functional.interpolate(x, size=size, mode="bilinear", align_corners=False)


BLOCKS: dict[str, Callable[[int, int, int, float], nn.Module]] = {"residual": ResidualBlock, "double": DoubleConv}
DOWN: dict[str, Callable[[int], nn.Module]] = {"strided": StridedDown, "max": MaxDown}
UP: dict[str, Callable[[int], nn.Module]] = {"nearest": NearestUp, "bilinear": BilinearUp}
