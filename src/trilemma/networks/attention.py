"""Self-attention over the positions of a feature map."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from trilemma.networks.blocks import group_norm, zero


class SelfAttention(nn.Module):
    """norm, then multi-head attention over all positions, added to the input (Ho et al. 2020, appendix B)."""

    def __init__(self, channels: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm = group_norm(channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.project = zero(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        n, c, h, w = x.shape
        qkv = self.qkv(self.norm(x)).reshape(n, 3, self.heads, c // self.heads, h * w).transpose(-1, -2)
        q, k, v = qkv.unbind(1)
        attended = functional.scaled_dot_product_attention(q, k, v)
        return x + self.project(attended.transpose(-1, -2).reshape(n, c, h, w))
