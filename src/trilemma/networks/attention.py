"""Self-attention over the positions of a feature map."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from trilemma.networks.blocks import zero
from trilemma.networks.norms import Style


class SelfAttention(nn.Module):
    """norm, then multi-head attention over all positions, added to the input (Ho et al. 2020, appendix B)."""

    def __init__(self, channels: int, heads: int, style: Style):
        super().__init__()
        self.heads, self.style = heads, style
        self.norm = style.norm(channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.project = zero(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        n, c, h, w = x.shape
        tokens = self.norm(x).flatten(2).transpose(1, 2)
        # The last axis of q, k and v lies densely in memory: fused kernels ask for it, and are three times as fast.
        qkv = functional.linear(tokens, self.qkv.weight.flatten(1), self.qkv.bias)
        q, k, v = qkv.view(n, h * w, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4).unbind()
        attended = attend(q, k, v).transpose(1, 2).reshape(n, h * w, c)
        return self.style.residual(x, self.project(attended.transpose(1, 2).reshape(n, c, h, w)))


def attend(
    q: Float[Tensor, "n heads l d"], k: Float[Tensor, "n heads l d"], v: Float[Tensor, "n heads l d"]
) -> Float[Tensor, "n heads l d"]:
    """softmax(q kᵀ/√d) v (Vaswani et al. 2017, eq. 1).

    A CPU's fused kernel computes in fp32 whatever it is given; two products of bf16 matrices are three times as fast
    while the weights, kept for the backward pass, are small. The scores are rounded to bf16 then, as everything is
    under autocast."""
    if q.device.type != "cpu" or q.dtype is not torch.bfloat16 or q.shape[2] > 512:
        return functional.scaled_dot_product_attention(q, k, v)
    heads = q.shape[1]
    q, k, v = (part.flatten(0, 1) for part in (q, k, v))
    with torch.autocast("cpu", enabled=False):
        scores = torch.baddbmm(q.new_zeros(1, 1, 1), q, k.transpose(1, 2), beta=0, alpha=q.shape[-1] ** -0.5)
        return torch.bmm(scores.softmax(-1), v).unflatten(0, (-1, heads))
