"""EfficientNet-Lite0, the network of the features `imagenet`.

Tan & Le 2019, *EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks* (table 1, B0), as its authors'
Lite variant has it: without squeeze and excitation, ReLU6 in place of swish. Padding is TensorFlow's "same", whose odd
pixel is at the right and the bottom. The names of the parameters are those of the weights' file.
"""

from __future__ import annotations

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

SIZE = 224  # of the images it was trained on: 224×224
DIM = 1280  # features after the pool
CLASSES = 1000


class Stage(NamedTuple):
    """So many blocks of one width; the first of them strides."""

    blocks: int
    kernel: int
    stride: int
    expansion: int
    width: int


STEM = 32
STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)


class SameConv(nn.Conv2d):
    """A convolution that gives ⌈size / stride⌉, padded as TensorFlow does: a half before, what is odd behind."""

    def __init__(self, channels: int, width: int, kernel: int = 1, stride: int = 1, groups: int = 1):
        super().__init__(channels, width, kernel, stride, groups=groups, bias=False)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d u v"]:
        kernel, stride = self.kernel_size[0], self.stride[0]
        needed = [max((-(-side // stride) - 1) * stride + kernel - side, 0) for side in x.shape[-2:]]
        if needed[0] % 2 or needed[1] % 2:
            top, left = needed[0] // 2, needed[1] // 2
            x, needed = F.pad(x, (left, needed[1] - left, top, needed[0] - top)), [0, 0]
        padding = needed[0] // 2, needed[1] // 2
        return F.conv2d(x, self.weight, self.bias, self.stride, padding, groups=self.groups)


def _norm(width: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(width, eps=1e-3)


class Block(nn.Module):
    """Widened, filtered channel by channel, narrowed again without an activation (MBConv of Sandler et al. 2018); added
    to what it was given where the size is kept."""

    def __init__(self, channels: int, stage: Stage, stride: int):
        super().__init__()
        wide = channels * stage.expansion
        self.widens, self.adds = stage.expansion > 1, stride == 1 and channels == stage.width
        if self.widens:
            self._expand_conv, self._bn0 = SameConv(channels, wide), _norm(wide)
        self._depthwise_conv, self._bn1 = SameConv(wide, wide, stage.kernel, stride, groups=wide), _norm(wide)
        self._project_conv, self._bn2 = SameConv(wide, stage.width), _norm(stage.width)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d u v"]:
        h = F.relu6(self._bn0(self._expand_conv(x))) if self.widens else x
        h = F.relu6(self._bn1(self._depthwise_conv(h)))
        h = self._bn2(self._project_conv(h))
        return x + h if self.adds else h


class EfficientNetLite(nn.Module):
    """Images [n, 3, h, w] of values (byte − 127) / 128 to pooled features [n, 1280] and logits [n, 1000]."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem, self._bn0 = SameConv(3, STEM, 3, 2), _norm(STEM)
        blocks, channels = [], STEM
        for stage in STAGES:
            for i in range(stage.blocks):
                blocks.append(Block(channels, stage, stage.stride if i == 0 else 1))
                channels = stage.width
        self._blocks = nn.ModuleList(blocks)
        self._conv_head, self._bn1 = SameConv(channels, DIM), _norm(DIM)
        self._fc = nn.Linear(DIM, CLASSES)

    def outputs(self, x: Float[Tensor, "n 3 h w"]) -> tuple[Float[Tensor, "n 1280"], Float[Tensor, "n 1000"]]:
        x = F.relu6(self._bn0(self._conv_stem(x)))
        for block in self._blocks:
            x = block(x)
        pooled = F.relu6(self._bn1(self._conv_head(x))).mean((2, 3))
        return pooled, self._fc(pooled)


def folded(network: EfficientNetLite) -> EfficientNetLite:
    """The network with each normalisation folded into the convolution before it: the same function, faster."""
    pairs = {"_conv_stem": "_bn0", "_conv_head": "_bn1"}
    inner = {"_expand_conv": "_bn0", "_depthwise_conv": "_bn1", "_project_conv": "_bn2"}
    for module in (network.eval(), *network._blocks):
        for conv, norm in (inner if isinstance(module, Block) else pairs).items():
            if hasattr(module, conv):
                setattr(module, conv, fuse_conv_bn_eval(getattr(module, conv), getattr(module, norm)))
                setattr(module, norm, nn.Identity())
    return network
