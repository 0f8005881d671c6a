"""What sampling would take of memory, told before it is done."""

from __future__ import annotations

import math
from copy import deepcopy
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.modules.module import register_module_forward_hook

from trilemma.errors import InputError
from trilemma.machine.devices import memory_of
from trilemma.process import Call, latent_of

WIDEST = 4096
"""Values of a layer for each of an image's, more than networks have: batches of which even these would fit are not
looked into. ADM's widest has 192."""


def check_batch(
    network: nn.Module,
    shape: tuple[int, int, int],
    count: int,
    *,
    rows: int = 1,
    conditional: bool,
    precision: Literal["fp32", "bf16"],
    device: torch.device,
) -> None:
    """Refuse to sample so many images of `shape` (c, h, w) at once where memory cannot hold the network's weights and
    one layer's values of each; the network is shown `rows` for each. Sampling takes some more, so what is refused could
    not be done.

    Raises:
        InputError: with the memory needed and that there is.
    """
    there = memory_of(device)
    if count * rows * math.prod(shape) * 4 * WIDEST <= there:
        return
    image = rows * bytes_of_image(network, shape, conditional=conditional, precision=precision, device=device)
    weights = sum(parameter.nbytes for parameter in network.parameters())
    if weights + count * image > there:
        raise InputError(
            f"sampling.batch {count}: takes {(weights + count * image) / 2**30:,.1f} GiB of memory "
            f"({image / 2**20:,.2f} MiB an image), and there are {there / 2**30:,.1f} GiB: expected fewer at once"
        )


def bytes_of_image(
    network: nn.Module,
    shape: tuple[int, int, int],
    *,
    conditional: bool,
    precision: Literal["fp32", "bf16"],
    device: torch.device,
) -> int:
    """Bytes of the largest tensor that a module of the network is given or gives for an image, itself among them. The
    network is called on tensors that have a shape and no content; of one that needs content, all that is known is the
    image."""
    images = 2  # one alone has no variance for a batch norm that is training
    largest = images * math.prod(shape) * 4

    def note(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        nonlocal largest
        sizes = [value.nbytes for value in (*inputs, output) if isinstance(value, Tensor)]
        largest = max(largest, *sizes, 0)

    handle = register_module_forward_hook(note)
    try:
        # A copy, over the same weights: a network may keep what it makes on the way for its next call.
        asked = deepcopy(network, {id(value): value for value in (*network.parameters(), *network.buffers())})
        with (
            FakeTensorMode(allow_non_fake_inputs=True),
            torch.inference_mode(),
            torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"),
        ):
            label = torch.zeros(images, dtype=torch.int64, device=device)
            x, time = torch.empty(images, *shape, device=device), torch.ones(images, device=device)
            given = {"label": label} if conditional else {}
            low = {"low": x, "low_time": time} if getattr(network, "upsampler", False) else {}
            latent = {"latent": torch.empty(images, width, device=device)} if (width := latent_of(network)) else {}
            Call.of(network)(asked, x, time, given | low | latent)
    except Exception:  # whatever a network does that cannot be done without content
        pass
    finally:
        handle.remove()
    return largest // images
