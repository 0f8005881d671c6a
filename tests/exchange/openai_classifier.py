"""guided-diffusion's classifier of noised images in its own names, as a plain function of a state dict: the trunk of
`openai_unet`, and the attention pooling written out a query at a time (Radford et al. 2021, section 2.3)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from tests.exchange.openai_unet import Model, Module, Weights, norm


@dataclass(frozen=True)
class Classifier(Model):
    """Images of side `side`; `outputs` are the classes, `pool_heads` the pooling's heads."""

    side: int = 8
    pool_heads: int = 2

    @property
    def left(self) -> int:
        """Positions at the coarsest resolution."""
        return (self.side // 2 ** (len(self.multipliers) - 1)) ** 2

    def modules(self) -> dict[str, list[Module]]:
        return {block: parts for block, parts in super().modules().items() if not block.startswith("output")}

    def state_dict(self, seed: int = 0) -> Weights:
        w = super().state_dict(seed)
        generator = torch.Generator().manual_seed(seed + 1)
        c = int(self.base * self.multipliers[-1])
        del w["out.2.weight"], w["out.2.bias"]

        def normal(*shape: int, scale: float) -> Tensor:
            return torch.randn(*shape, generator=generator) * scale

        w["out.0.weight"], w["out.0.bias"] = 1 + normal(c, scale=0.3), normal(c, scale=0.3)
        w["out.2.positional_embedding"] = normal(c, self.left + 1, scale=1.0)
        for name, rows in (("qkv_proj", 3 * c), ("c_proj", self.outputs)):
            w[f"out.2.{name}.weight"] = normal(rows, c, 1, scale=2 / math.sqrt(c))
            w[f"out.2.{name}.bias"] = normal(rows, scale=0.3)
        return w

    def __call__(self, w: Weights, x: Tensor, time: Tensor, label: Tensor | None = None) -> Tensor:
        e, h = self.embedding(w, time, label), x
        for block, modules in self.modules().items():
            for i, (kind, _, _) in enumerate(modules):
                h = self.module(w, f"{block}.{i}", kind, h, e)
        return self.pooled(w, F.silu(norm(w, "out.0", h)).flatten(2))

    def pooled(self, w: Weights, positions: Tensor) -> Tensor:
        """[n, c, positions] -> logits: rows of q, then of k, then of v, and in each the heads in turn."""
        tokens = torch.cat([positions.mean(2, keepdim=True), positions], 2) + w["out.2.positional_embedding"]
        c = tokens.shape[1]
        d = c // self.pool_heads
        rows = F.conv1d(tokens, w["out.2.qkv_proj.weight"], w["out.2.qkv_proj.bias"])
        heads = []
        for k in range(self.pool_heads):
            q, key, v = (rows[:, c * i + d * k : c * i + d * (k + 1)] for i in range(3))
            attention = torch.softmax(torch.einsum("nd,ndp->np", q[:, :, 0], key) / math.sqrt(d), 1)
            heads.append(torch.einsum("np,ndp->nd", attention, v))
        return F.linear(torch.cat(heads, 1), w["out.2.c_proj.weight"][:, :, 0], w["out.2.c_proj.bias"])
