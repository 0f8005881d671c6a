"""What a network's modules are called in a drawing, and which of them are its stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from trilemma.networks.blocks import ConvNeXt, DenseBlock, DoubleConv, DoubleConvs, MBConv, ResidualBlock
from trilemma.networks.classifier import AttentionPool
from trilemma.networks.embeddings import TimeAndClass
from trilemma.networks.norms import ConditionedNorm
from trilemma.networks.refinenet import RefineBlock
from trilemma.networks.resampling import BigGAN, BilinearUp, NearestUp, Pool, StridedDown
from trilemma.networks.trunk import Layer
from trilemma.networks.unet import UNet

_NAMES: dict[type[nn.Module], str] = {
    BigGAN: "BigGAN residual",
    AttentionPool: "attention pooling",
    RefineBlock: "refine block",
    MBConv: "MBConv + SE",
    DenseBlock: "residual dense",
    ConvNeXt: "ConvNeXt",
    StridedDown: "strided convolution",
    NearestUp: "nearest, convolution",
    nn.AdaptiveAvgPool2d: "mean over positions",
    nn.MaxPool2d: "max pool",
    nn.AvgPool2d: "average pool",
}


def kind_of(module: nn.Module) -> str:
    """What a module is, in a word or two; its class's name for one that is not known here."""
    match module:
        case Layer():
            return kind_of(module.block)
        case ResidualBlock() if type(module) is ResidualBlock:
            return f"residual, {module.resample}" if module.resample else "residual"
        case TimeAndClass():
            return "embedding of time" if module.label is None else "embedding of time and class"
        case DoubleConvs():
            linked = sum(part.shortcut is not None for part in module.parts if isinstance(part, DoubleConv))
            some = "" if not linked else ", linked" if linked == len(module.parts) else f", {linked} linked"
            return f"{len(module.parts)} double convs{some}" if len(module.parts) > 1 else f"double conv{some}"
        case DoubleConv():
            return "double conv" if module.shortcut is None else "double conv, linked"
        case Pool():
            blur = "" if not module.blur else "blurred (summed) " if module.summed else "blurred "
            return f"{blur}{module.pool} pool"
        case BilinearUp():
            return "bilinear, aligned" if module.aligned else "bilinear"
        case nn.Conv2d():
            return f"convolution {module.kernel_size[0]}×{module.kernel_size[1]}"
        case nn.Linear():
            return "linear"
        case nn.Sequential():
            return ", ".join(kind_of(part) for part in module if not is_plain(part))
    return _NAMES.get(type(module), type(module).__name__)


def entry_of(network: UNet) -> str:
    """How the embedding of time and class enters the blocks."""
    layers = [module for module in network.modules() if isinstance(module, Layer)]
    norms = [module for module in network.modules() if isinstance(module, ConditionedNorm) and module.embed]
    if any(layer.embed is not None for layer in layers):
        how = "added after each block"
    else:
        how = "each block's scale and shift" if any(norm.scales for norm in norms) else "added inside each block"
    middle = network.trunk.middle
    taken = any(isinstance(part, nn.Linear) for part in middle.modules())
    return how if taken else f"{how} but the middle ones"


def is_plain(module: nn.Module) -> bool:
    """Whether a module is a norm, an activation or the like, which a drawing leaves out."""
    if isinstance(module, nn.modules.batchnorm._BatchNorm | nn.GroupNorm | nn.LayerNorm | nn.Dropout):
        return True
    name = type(module).__module__
    return name == "torch.nn.modules.activation" or isinstance(module, nn.Identity | nn.Flatten)


def called(network: nn.Module, calls: Mapping[str, Any]) -> list[tuple[str, nn.Module]]:
    """A network's stages by name in the order of their calls: modules that are called as a whole, containers opened."""
    found: dict[str, nn.Module] = {}

    def visit(name: str, module: nn.Module) -> None:
        opened = isinstance(module, nn.Sequential | nn.ModuleList | nn.ModuleDict) or name not in calls
        if not opened and not is_plain(module):
            found[name] = module
        elif opened:
            for child, inner in module.named_children():
                visit(f"{name}.{child}" if name else child, inner)

    visit("", network)
    return [(name, found[name]) for name in calls if name in found]


def shape_text(shape: Sequence[int]) -> str:
    """Such as 3×32×32."""
    return "×".join(map(str, shape))
