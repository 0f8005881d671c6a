"""A network compiled once, for one size of batch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trilemma.process import Call, latent_of


class Compiled(nn.Module):
    """A network compiled by torch for batches of `batch` images: a smaller one is padded with its last image and what
    is made of those left out, so that none is compiled a second time. The weights are the network's own.

    Compiled code adds in another order, so an image may differ by a grey value here and there."""

    def __init__(self, network: nn.Module, batch: int):
        super().__init__()
        self.batch, self.call, self.latent = batch, Call.of(network), latent_of(network)
        self.compiled = torch.compile(network, dynamic=False)

    def forward(self, x: Tensor, time: Tensor, **condition: Tensor) -> Tensor:
        count = len(x)
        # One memory layout as well: another is another compilation.
        whole = self._padded(x).contiguous(memory_format=torch.channels_last)
        given = {name: self._padded(value) for name, value in condition.items()}
        output = self.call(self.compiled, whole, self._padded(time), given)
        return output[:count]

    def _padded(self, values: Tensor) -> Tensor:
        """The rows with the last one repeated up to a whole batch."""
        missing = self.batch - len(values)
        return torch.cat([values, values[-1:].expand(missing, *values.shape[1:])]).contiguous()
