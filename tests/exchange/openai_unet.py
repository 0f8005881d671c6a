"""The U-Net of improved- and guided-diffusion in its own names, as a plain function of a state dict: written from what
their papers and files say, to hold imported weights against."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

Weights = dict[str, Tensor]
Module = tuple[str, int, int]


@dataclass(frozen=True)
class Model:
    """Settings by their papers' words. `attends`: by level. `order`: of q, k and v among an attention's rows."""

    base: int = 32
    multipliers: tuple[float, ...] = (1, 2)
    blocks: int = 1
    attends: tuple[bool, ...] = (False, True)
    channels: int = 1
    outputs: int = 1
    classes: int = 0
    scale_shift: bool = True
    updown: bool = False
    heads: int = 2
    order: str = "legacy"

    def modules(self) -> dict[str, list[Module]]:
        """(kind, inputs, outputs) of each module in turn, by the block they are in."""
        widths = [int(self.base * m) for m in self.multipliers]
        found: dict[str, list[Module]] = {"input_blocks.0": [("conv", self.channels, widths[0])]}
        skips, c = [widths[0]], widths[0]

        def attention(level: int) -> list[Module]:
            return [("attention", c, c)] if self.attends[level] else []

        for level, width in enumerate(widths):
            for _ in range(self.blocks):
                before, c = c, width
                found[f"input_blocks.{len(skips)}"] = [("block", before, c), *attention(level)]
                skips.append(c)
            if level < len(widths) - 1:
                found[f"input_blocks.{len(skips)}"] = [("down", c, c)]
                skips.append(c)
        found["middle_block"] = [("block", c, c), ("attention", c, c), ("block", c, c)]
        count = 0
        for level, width in reversed(list(enumerate(widths))):
            for j in range(self.blocks + 1):
                before, c = c + skips.pop(), width
                up: list[Module] = [("up", c, c)] if level and j == self.blocks else []
                found[f"output_blocks.{count}"] = [("block", before, c), *attention(level), *up]
                count += 1
        return found

    def state_dict(self, seed: int = 0) -> Weights:
        """Random weights, none of them zero."""
        generator, w = torch.Generator().manual_seed(seed), Weights()

        def add(name: str, *shape: int, norm: bool = False) -> None:
            fan = math.prod(shape[1:])
            w[f"{name}.weight"] = torch.randn(*shape, generator=generator) * (0.3 if norm else fan**-0.5) + norm
            w[f"{name}.bias"] = torch.randn(shape[0], generator=generator) * 0.3

        embedding, last = 4 * self.base, int(self.base * self.multipliers[0])
        add("time_embed.0", embedding, self.base)
        add("time_embed.2", embedding, embedding)
        if self.classes:
            w["label_emb.weight"] = torch.randn(self.classes, embedding, generator=generator)
        for block, modules in self.modules().items():
            for i, (kind, a, b) in enumerate(modules):
                at = f"{block}.{i}"
                if kind == "conv":
                    add(at, b, a, 3, 3)
                elif kind == "attention":
                    add(f"{at}.norm", a, norm=True)
                    add(f"{at}.qkv", 3 * a, a, 1)
                    add(f"{at}.proj_out", a, a, 1)
                elif kind == "block" or self.updown:
                    add(f"{at}.in_layers.0", a, norm=True)
                    add(f"{at}.in_layers.2", b, a, 3, 3)
                    add(f"{at}.emb_layers.1", b * (1 + self.scale_shift), embedding)
                    add(f"{at}.out_layers.0", b, norm=True)
                    add(f"{at}.out_layers.3", b, b, 3, 3)
                    if a != b:
                        add(f"{at}.skip_connection", b, a, 1, 1)
                else:
                    add(f"{at}.op" if kind == "down" else f"{at}.conv", a, a, 3, 3)
        add("out.0", last, norm=True)
        add("out.2", self.outputs, last, 3, 3)
        return w

    def embedding(self, w: Weights, time: Tensor, label: Tensor | None) -> Tensor:
        angles = time[:, None] * torch.exp(-math.log(10000) * torch.arange(self.base // 2) / (self.base // 2))
        e = linear(w, "time_embed.0", torch.cat([angles.cos(), angles.sin()], 1))
        e = linear(w, "time_embed.2", F.silu(e))
        return F.silu(e + w["label_emb.weight"][label] if label is not None else e)

    def __call__(self, w: Weights, x: Tensor, time: Tensor, label: Tensor | None = None) -> Tensor:
        e = self.embedding(w, time, label)
        h, skips = x, []
        for block, modules in self.modules().items():
            if block.startswith("output"):
                h = torch.cat([h, skips.pop()], 1)
            for i, (kind, _, _) in enumerate(modules):
                h = self.module(w, f"{block}.{i}", kind, h, e)
            if block.startswith("input"):
                skips.append(h)
        return conv(w, "out.2", F.silu(norm(w, "out.0", h)))

    def module(self, w: Weights, at: str, kind: str, h: Tensor, e: Tensor) -> Tensor:
        if kind == "attention":
            return self.attention(w, at, h)
        if kind == "conv":
            return conv(w, at, h)
        if kind == "block" or self.updown:
            return self.block(w, at, kind, h, e)
        if kind == "down":
            return conv(w, f"{at}.op", h, stride=2)
        return conv(w, f"{at}.conv", h.repeat_interleave(2, 2).repeat_interleave(2, 3))

    def block(self, w: Weights, at: str, kind: str, x: Tensor, e: Tensor) -> Tensor:
        h = F.silu(norm(w, f"{at}.in_layers.0", x))
        if kind == "down":
            h, x = F.avg_pool2d(h, 2), F.avg_pool2d(x, 2)
        elif kind == "up":
            h, x = (part.repeat_interleave(2, 2).repeat_interleave(2, 3) for part in (h, x))
        h = conv(w, f"{at}.in_layers.2", h)
        entering = linear(w, f"{at}.emb_layers.1", e)[:, :, None, None]
        if self.scale_shift:
            c = h.shape[1]
            h = norm(w, f"{at}.out_layers.0", h) * (1 + entering[:, :c]) + entering[:, c:]
        else:
            h = norm(w, f"{at}.out_layers.0", h + entering)
        h = conv(w, f"{at}.out_layers.3", F.silu(h))
        return h + (conv(w, f"{at}.skip_connection", x) if f"{at}.skip_connection.weight" in w else x)

    def attention(self, w: Weights, at: str, x: Tensor) -> Tensor:
        """One head after the other."""
        c = x.shape[1]
        d = c // self.heads
        rows = F.conv1d(norm(w, f"{at}.norm", x).flatten(2), w[f"{at}.qkv.weight"], w[f"{at}.qkv.bias"])
        heads = []
        for k in range(self.heads):
            starts = [3 * d * k + d * i if self.order == "legacy" else c * i + d * k for i in range(3)]
            q, key, v = (rows[:, start : start + d] for start in starts)
            heads.append(v @ torch.softmax(q.transpose(1, 2) @ key / d**0.5, -1).transpose(1, 2))
        h = F.conv1d(torch.cat(heads, 1), w[f"{at}.proj_out.weight"], w[f"{at}.proj_out.bias"])
        return x + h.view_as(x)


def linear(w: Weights, name: str, x: Tensor) -> Tensor:
    return F.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])


def conv(w: Weights, name: str, x: Tensor, stride: int = 1) -> Tensor:
    weight = w[f"{name}.weight"]
    return F.conv2d(x, weight, w[f"{name}.bias"], stride, padding=weight.shape[-1] // 2)


def norm(w: Weights, name: str, x: Tensor) -> Tensor:
    return F.group_norm(x, 32, w[f"{name}.weight"], w[f"{name}.bias"], 1e-5)
