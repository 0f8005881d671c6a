"""What a network would take, told before it is built."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch._subclasses.fake_tensor import unset_fake_temporarily
from torch.nn.modules.module import register_module_parameter_registration_hook

from trilemma.errors import InputError
from trilemma.machine.untrusted import memory

TENSORS = 5_000
"""Weight tensors that a network may have: each is made in its turn, some thousands a second. ADM's largest network has
567."""


def check_network(build: Callable[[], nn.Module]) -> None:
    """Refuse a network that `build` would make of too many weights, or of more than memory holds. For this it is built
    once without any (on PyTorch's device meta), as far as `TENSORS` go: milliseconds.

    Raises:
        InputError: with the parameters and the memory that they need and that there is.
    """
    tensors = parameters = needed = 0

    def count(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal tensors, parameters, needed
        if parameter is None:
            return
        tensors, parameters = tensors + 1, parameters + parameter.numel()
        needed += parameter.numel() * parameter.element_size()
        if tensors > TENSORS:
            raise InputError(f"network: more than {TENSORS:,} weight tensors, expected fewer blocks or levels")

    handle = register_module_parameter_registration_hook(count)
    try:
        with unset_fake_temporarily(), torch.device("meta"):
            build()
    except (OverflowError, RuntimeError, TypeError) as error:
        if "overflow" in str(error).lower():
            raise InputError("network: a weight has more than 2⁶³ bytes, expected fewer channels") from error
        # Whatever else is wrong, or cannot be done without memory, shows where it is built.
    finally:
        handle.remove()
    if needed > memory():
        raise InputError(
            f"network: {parameters:,} parameters take {needed / 2**30:,.1f} GiB of memory, and there are "
            f"{memory() / 2**30:,.1f} GiB: expected fewer channels or blocks"
        )
