"""What a computation takes, whatever the machine: multiply-adds, and bytes kept for the backward pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

Shape = tuple[int, ...]


def multiply_adds(run: Callable[[], Any]) -> int:
    """Multiply-adds of the convolutions, matrix products and attention that `run` computes."""

    def attention(q: Shape, k: Shape, v: Shape, *rest: Any, out_shape: Any = None, **options: Any) -> int:
        (n, heads, queries, dim), keys, values = q, k[-2], v[-1]
        return 2 * n * heads * queries * keys * (dim + values)

    def back(gradient: Shape, q: Shape, k: Shape, v: Shape, *rest: Any, out_shape: Any = None, **options: Any) -> int:
        # The scores again, and the gradients of scores, values, keys and queries.
        (n, heads, queries, dim), keys, values = q, k[-2], v[-1]
        return 2 * n * heads * queries * keys * (3 * dim + 2 * values)

    # PyTorch counts two operations a multiply-add, and knows all its attention kernels but the CPU's.
    aten = torch.ops.aten
    own = {
        aten._scaled_dot_product_flash_attention_for_cpu: attention,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: back,
    }
    with FlopCounterMode(display=False, custom_mapping=own) as counter:
        run()
    return counter.get_total_flops() // 2


def kept_for_backward(network: nn.Module, run: Callable[[], Any]) -> int:
    """Bytes of the tensors that `run`, a forward pass, keeps for the backward one, weights aside."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = run()
    weights = {parameter.untyped_storage()._cdata for parameter in network.parameters()}
    del result  # until here, so that no storage's place was given to another
    return sum(size for place, size in kept.items() if place not in weights)
