"""Self-attention over the positions of a feature map."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from trilemma.networks.norms import Style


class SelfAttention(nn.Module):
    """norm, then multi-head attention over all positions, added to the input (Ho et al. 2020, appendix B)."""

    def __init__(self, channels: int, heads: int, style: Style):
        super().__init__()
        self.heads, self.style = heads, style
        self.norm = style.norm(channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.project = style.last(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        n, c, h, w = x.shape
        tokens = self.norm(x).flatten(2).transpose(1, 2)
        # The last axis of q, k and v lies densely in memory: fused kernels ask for it, and are three times as fast.
        attended = heads_of(functional.linear(tokens, self.qkv.weight.flatten(1), self.qkv.bias), self.heads)
        return self.style.residual(x, self.project(attended.transpose(1, 2).reshape(n, c, h, w)))


class TransformerLayer(nn.Module):
    """A transformer's layer over all positions, normalised first: layer norm of each position's channels, multi-head
    attention, + input; layer norm, a linear layer, GELU, a linear layer, all of one width, + input (D 2.1, as the code
    that D adapts has it). `rescale` is the blocks' (D 2.3: "each residual connection" of the double convolutions):
    the sums here are left as they are."""

    def __init__(self, channels: int, heads: int, style: Style):
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.project = nn.Linear(channels, channels)
        nn.init.xavier_uniform_(self.qkv.weight)  # as PyTorch's MultiheadAttention begins, and with these biases
        for layer in (self.qkv, self.project):
            nn.init.zeros_(layer.bias)
        style.last(self.project)
        inner = [nn.LayerNorm(channels), nn.Linear(channels, channels), nn.GELU()]
        self.feed = nn.Sequential(*inner, style.last(nn.Linear(channels, channels)))

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        tokens = x.flatten(2).transpose(1, 2)
        tokens = tokens + self.project(heads_of(self.qkv(self.norm(tokens)), self.heads))
        tokens = tokens + self.feed(tokens)
        return tokens.transpose(1, 2).reshape(x.shape)


ATTENTION: dict[str, Callable[[int, int, Style], nn.Module]] = {
    "plain": SelfAttention,
    "transformer": TransformerLayer,
}


def heads_of(qkv: Float[Tensor, "n l c3"], heads: int) -> Float[Tensor, "n l c"]:
    """Multi-head attention: queries, keys and values lie one after the other, each the channels of all heads."""
    n, positions, channels = qkv.shape
    q, k, v = qkv.view(n, positions, 3, heads, channels // 3 // heads).permute(2, 0, 3, 1, 4).unbind()
    return attend(q, k, v).transpose(1, 2).reshape(n, positions, channels // 3)


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
