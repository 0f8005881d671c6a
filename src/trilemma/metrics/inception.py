"""The Inception-v3 network of 2015 that the Fréchet Inception Distance is defined by.

Szegedy et al. 2016, *Rethinking the Inception Architecture for Computer Vision*, in the TensorFlow release of
2015-12-05, which Heusel et al. 2017 chose for FID. It differs from later releases of Inception-v3: average pools leave
the padding out of the mean, the last block pools by the maximum, and the classifier has 1 008 outputs. The names of the
parameters are those of the PyTorch copy that pytorch-fid publishes and torch-fidelity and torchmetrics read too.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

SIZE = 299  # of the images it was trained on: 299×299
DIM = 2048  # features after the last pool
CLASSES = 1008
SPATIAL = (17, 17, 7)  # height, width and channels of what sFID is computed on


class Conv(NamedTuple):
    """A convolution as the tables below write it: its name in the block, its filters, their size. At stride 1 it keeps
    the size of the image, at stride 2 it takes no padding."""

    name: str
    width: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1


Pool = str  # "average", "max", or "halve": the maximum at stride 2
Step = Conv | Pool | tuple[Conv, Conv]  # a pair works side by side, its outputs joined
Table = tuple[tuple[Step, ...], ...]  # the branches of a block, whose outputs are joined in this order


def _chain(name: str, *convs: tuple[int, tuple[int, int]], stride: int = 1) -> tuple[Conv, ...]:
    """Convolutions (width, kernel) in a row, NAME_1, NAME_2, …; the last one strides."""
    last = len(convs)
    return tuple(Conv(f"{name}_{i}", w, k, stride if i == last else 1) for i, (w, k) in enumerate(convs, 1))


def _fine(pooled: int) -> Table:
    """A block at 35×35."""
    return (
        (Conv("branch1x1", 64),),
        _chain("branch5x5", (48, (1, 1)), (64, (5, 5))),
        _chain("branch3x3dbl", (64, (1, 1)), (96, (3, 3)), (96, (3, 3))),
        ("average", Conv("branch_pool", pooled)),
    )


def _middle(width: int) -> Table:
    """A block at 17×17, its 7×7 filters factored into rows and columns."""
    row, column = (1, 7), (7, 1)
    return (
        (Conv("branch1x1", 192),),
        _chain("branch7x7", (width, (1, 1)), (width, row), (192, column)),
        _chain("branch7x7dbl", (width, (1, 1)), (width, column), (width, row), (width, column), (192, row)),
        ("average", Conv("branch_pool", 192)),
    )


def _coarse(pool: Pool) -> Table:
    """A block at 8×8, its branches widened by a row and a column side by side."""

    def fan(name: str) -> tuple[Conv, Conv]:
        return Conv(f"{name}a", 384, (1, 3)), Conv(f"{name}b", 384, (3, 1))

    return (
        (Conv("branch1x1", 320),),
        (Conv("branch3x3_1", 384), fan("branch3x3_2")),
        (*_chain("branch3x3dbl", (448, (1, 1)), (384, (3, 3))), fan("branch3x3dbl_3")),
        (pool, Conv("branch_pool", 192)),
    )


BLOCKS: dict[str, Table] = {
    "Mixed_5b": _fine(32),
    "Mixed_5c": _fine(64),
    "Mixed_5d": _fine(64),
    "Mixed_6a": (
        (Conv("branch3x3", 384, (3, 3), 2),),
        _chain("branch3x3dbl", (64, (1, 1)), (96, (3, 3)), (96, (3, 3)), stride=2),
        ("halve",),
    ),
    "Mixed_6b": _middle(128),
    "Mixed_6c": _middle(160),
    "Mixed_6d": _middle(160),
    "Mixed_6e": _middle(192),
    "Mixed_7a": (
        _chain("branch3x3", (192, (1, 1)), (320, (3, 3)), stride=2),
        _chain("branch7x7x3", (192, (1, 1)), (192, (1, 7)), (192, (7, 1)), (192, (3, 3)), stride=2),
        ("halve",),
    ),
    "Mixed_7b": _coarse("average"),
    "Mixed_7c": _coarse("max"),  # TensorFlow's release has it so; the paper says average
}


class ConvUnit(nn.Module):
    """Convolution, batch normalisation (ε = 0.001), ReLU. Padding: that of "same" at stride 1 unless it is given."""

    def __init__(self, channels: int, spec: Conv, padding: tuple[int, int] | None = None):
        super().__init__()
        height, width = spec.kernel
        if padding is None:
            padding = (height // 2, width // 2) if spec.stride == 1 else (0, 0)
        self.conv = nn.Conv2d(channels, spec.width, spec.kernel, spec.stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(spec.width, eps=0.001)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d a b"]:
        return F.relu(self.bn(self.conv(x)), inplace=True)


class Block(nn.Module):
    """Branches side by side, each a row of steps, as a table says."""

    def __init__(self, channels: int, table: Table):
        super().__init__()
        self.table, self.width = table, 0
        for branch in table:
            reached = channels
            for step in branch:
                if isinstance(step, str):
                    continue
                pair = (step,) if isinstance(step, Conv) else step
                for spec in pair:
                    self.add_module(spec.name, ConvUnit(reached, spec))
                reached = sum(spec.width for spec in pair)
            self.width += reached

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d a b"]:
        return torch.cat([part for branch in self.table for part in self._through(branch, x)], dim=1)

    def _through(self, branch: tuple[Step, ...], x: Tensor) -> list[Tensor]:
        parts = [x]
        for step in branch:
            if isinstance(step, str):
                parts = [pool(step, part) for part in parts]
            else:
                pair = (step,) if isinstance(step, Conv) else step
                parts = [self.get_submodule(spec.name)(parts[0]) for spec in pair]
        return parts


def pool(kind: Pool, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c a b"]:
    """3×3 pooling: "average" (over the pixels there are, as TensorFlow's, not over the padding), "max", both of
    stride 1 and the same size, or "halve", the maximum at stride 2 without padding."""
    if kind == "average":
        return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)
    return F.max_pool2d(x, 3, stride=1, padding=1) if kind == "max" else F.max_pool2d(x, 3, stride=2)


class Inception(nn.Module):
    """The network, on RGB images [n, 3, 299, 299] with values in [−1, 1]. `outputs` gives what measures are made of."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = ConvUnit(3, Conv("", 32, (3, 3), 2))
        self.Conv2d_2a_3x3 = ConvUnit(32, Conv("", 32, (3, 3)), padding=(0, 0))
        self.Conv2d_2b_3x3 = ConvUnit(32, Conv("", 64, (3, 3)))
        self.Conv2d_3b_1x1 = ConvUnit(64, Conv("", 80))
        self.Conv2d_4a_3x3 = ConvUnit(80, Conv("", 192, (3, 3)), padding=(0, 0))
        channels = 192
        for name, table in BLOCKS.items():
            block = Block(channels, table)
            self.add_module(name, block)
            channels = block.width
        self.fc = nn.Linear(channels, CLASSES)

    def outputs(
        self, x: Float[Tensor, "n 3 h w"]
    ) -> tuple[Float[Tensor, "n 2048"], Float[Tensor, "n 1008"], Float[Tensor, "n s"]]:
        """Pooled features, logits, and spatial features.

        The logits lack the bias of the last layer, as the Inception Score has been computed since Salimans et al. 2016,
        by ADM's evaluator and by torch-fidelity (its `logits_unbiased`).

        The spatial features are sFID's (Nash et al. 2021): the first 7 channels of Mixed_6d's 1×1 branch, after its
        normalisation and ReLU, which is what TensorFlow's graph calls `mixed_6/conv` and what Mixed_6d's output begins
        with. They run over rows, columns, then channels, as ADM's `mu_s` and `sigma_s` do; 2 023 for images of 299×299.
        """
        for unit in (self.Conv2d_1a_3x3, self.Conv2d_2a_3x3, self.Conv2d_2b_3x3):
            x = unit(x)
        x = pool("halve", x)
        for unit in (self.Conv2d_3b_1x1, self.Conv2d_4a_3x3):
            x = unit(x)
        x = pool("halve", x)
        spatial = x
        for name in BLOCKS:
            x = self.get_submodule(name)(x)
            if name == "Mixed_6d":
                spatial = x[:, : SPATIAL[2]].permute(0, 2, 3, 1).flatten(1)
        pooled = x.mean(dim=(2, 3))
        return pooled, F.linear(pooled, self.fc.weight), spatial

    def forward(self, x: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 2048"]:
        return self.outputs(x)[0]
