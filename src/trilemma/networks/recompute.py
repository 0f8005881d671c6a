"""The blocks that a network is made of, and not keeping what they compute (gradient checkpointing)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import wraps
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from trilemma.errors import InputError


def blocks_of(network: nn.Module) -> list[nn.Module]:
    """The blocks of any network, in its order: of what its lists and sequences hold, however deep, the outermost
    modules that are called and made of several."""

    def found(module: nn.Module, listed: bool) -> Iterator[nn.Module]:
        row = isinstance(module, nn.ModuleList | nn.Sequential)
        called = not row and type(module).forward is not nn.Module.forward
        if listed and called and next(module.children(), None) is not None:
            yield module
            return
        for child in module.children():
            yield from found(child, row)

    return list(found(network, listed=False))


def recompute(network: nn.Module) -> None:
    """From now on a network's blocks keep their inputs alone for the backward pass, which computes the rest once more
    (Chen et al. 2016, section 4.1): less memory, and a forward pass more. The gradients are the same to the last bit:
    dropout drops what it dropped, and buffers, such as a batch norm's averages, are updated once. A network of
    diffusers is told by its own switch.

    Raises:
        InputError: for a network that has no blocks.
    """
    switch = getattr(network, "enable_gradient_checkpointing", None)
    if callable(switch):
        switch()
        return
    blocks = blocks_of(network)
    if not blocks:
        raise InputError(
            f"training.recompute true: network {type(network).__name__} is not made of blocks that could be computed "
            "again; expected false"
        )
    for block in blocks:
        held = ((module, module._buffers.items()) for module in block.modules())
        places = [(module, name) for module, buffers in held for name, value in buffers if value is not None]
        again = _again(block.forward, places)
        # Compiled code cannot hold buffers back: such blocks run as they are.
        block.forward = torch.compiler.disable(again) if places else again


Places = Sequence[tuple[nn.Module, str]]


def _again(forward: Callable[..., Any], buffers: Places) -> Callable[..., Any]:
    """A block's forward pass, which a backward pass calls a second time, with the buffers it had the first."""

    @wraps(forward)
    def kept(*given: Any, **named: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*given, **named)
        if not buffers:
            return checkpoint(forward, *given, use_reentrant=False, **named)
        before = [value.clone() for value in _held(buffers)]
        calls = 0

        def once_more(*given: Any, **named: Any) -> Any:
            nonlocal calls
            calls += 1
            with _holding(buffers, before) if calls > 1 else nullcontext():
                return forward(*given, **named)

        return checkpoint(once_more, *given, use_reentrant=False, **named)

    return kept


def _held(buffers: Places) -> list[Tensor]:
    return [cast(Tensor, module._buffers[name]) for module, name in buffers]


@contextmanager
def _holding(buffers: Places, values: list[Tensor]) -> Iterator[None]:
    """The modules have copies of these in place of their buffers."""
    own = _held(buffers)
    try:
        for (module, name), value in zip(buffers, values, strict=True):
            module._buffers[name] = value.clone()
        yield
    finally:
        for (module, name), value in zip(buffers, own, strict=True):
            module._buffers[name] = value
