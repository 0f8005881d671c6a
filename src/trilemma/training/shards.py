"""Weights in parts, one a process, with their gradients, moments and averages (Rajbhandari et al. 2020, ZeRO-3; Zhao et
al. 2023): what `fully_shard` of PyTorch makes of a network, and whole tensors of parts and parts of whole tensors."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from trilemma.networks.recompute import blocks_of

if TYPE_CHECKING:  # whose import takes as long as all of this package's
    from torch.distributed.fsdp import FSDPModule


class Shards:
    """A module whose weights lie in parts but where a block is at work, which has its own gathered: the blocks of its
    networks one by one, and all else together while the module itself is called. Scalars, and weights of another type
    than most, are whole in every process."""

    def __init__(self, module: nn.Module, accelerator: Accelerator):
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        self.accelerator = accelerator
        for value in [*module.parameters(), *module.buffers()]:
            torch.distributed.broadcast(value.detach(), 0)
        count: Counter[torch.dtype] = Counter()
        for weight in module.parameters():
            # Strided as they are counted: channels that come last cannot be cut into parts.
            weight.data = weight.data.contiguous()
            count[weight.dtype] += weight.numel()
        ((usual, _),) = count.most_common(1)
        self.whole = [weight for weight in module.parameters() if weight.dim() == 0 or weight.dtype != usual]
        how: dict[str, Any] = {"mesh": init_device_mesh(accelerator.device.type, (accelerator.num_processes,))}
        how |= {"reshard_after_forward": True} | ({"ignored_params": set(self.whole)} if self.whole else {})
        for block in blocks_of(module):
            fully_shard(block, **how)
        self.module: FSDPModule = fully_shard(module, **how)
        self._modules: list[FSDPModule] = [cast(Any, each) for each in module.modules() if hasattr(each, "unshard")]

    def clip(self, weights: Sequence[Tensor], limit: float) -> float:
        """`torch.nn.utils.clip_grad_norm_` of weights of which each process has a part: the norm before clipping."""
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        parts = [part(gradient) for gradient in gradients]
        squares = [torch.zeros(2, device=self.accelerator.device)]
        for gradient, own in zip(gradients, parts, strict=True):
            square = own.detach().float().square().sum()
            split = in_parts(gradient)
            squares.append(torch.stack([square * split, square * (not split)]))
        mine = torch.stack(squares).sum(0)
        norm = math.sqrt(float(self.accelerator.reduce(mine[0], "sum") + mine[1]))
        if norm > limit:
            for own in parts:
                own.mul_(limit / (norm + 1e-6))
        return norm

    def average_whole(self) -> None:
        """Have the processes agree on the gradients of what is not in parts."""
        for weight in self.whole:
            if weight.grad is not None:
                weight.grad = self.accelerator.reduce(weight.grad, "mean")

    def gather(self) -> None:
        """From now on every process has all weights."""
        self.module.set_reshard_after_forward(False)
        for module in self._modules:
            module.unshard()

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """Every process has all weights inside the `with`."""
        self.gather()
        try:
            yield
        finally:
            for module in self._modules:
                module.reshard()
            self.module.set_reshard_after_forward(True)


def in_parts(value: Any) -> bool:
    """Whether each process has a part of this tensor (a `DTensor`)."""
    return hasattr(value, "to_local")


def part(value: Any) -> Tensor:
    """This process's part of a tensor in parts; any other as it is. What is done to it is done to the tensor."""
    part: Tensor = value.to_local() if in_parts(value) else value
    return part


def whole(values: Mapping[str, Tensor], keep: bool = True) -> dict[str, Tensor]:
    """Tensors, those in parts put together, one after the other: every process has to call it. None unless `keep`."""
    found = {}
    for name, value in values.items():
        full: Any = value
        if in_parts(value):
            full = full.full_tensor()
            full = full.cpu() if keep else None
        if keep:
            found[name] = full
    return found


def held_as(own: Any, value: Tensor) -> Tensor:
    """A whole tensor as one's own is held: in parts, if it is; every process has to call it with the same."""
    if not in_parts(own):
        return value
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value.to(own.device), own.device_mesh, own.placements)
