"""The U-Net skeleton: a trunk that halves the resolution level by level, and a decoder that takes up its skips.

One skeleton, its parts by name: blocks, changes of resolution, entry of time and class, attention, skips, both ends.
DDPM's network is its defaults; every other U-Net of the sources is a few other words in a recipe.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge, Gt, Le, Len, Lt
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from trilemma.networks.attention import ATTENTION
from trilemma.networks.embeddings import BottomMaps, LatentMapping, TimeAndClass, check_label, with_fourier
from trilemma.networks.ends import HEADS, STEMS
from trilemma.networks.norms import ACTIVATIONS, Activation, Entry, Modulation, Norm, Style, norm_of
from trilemma.networks.resampling import UP
from trilemma.networks.trunk import Level, Plan, Trunk, attending
from trilemma.registry import register, registry


@register("network", "unet")
class UNet(nn.Module):
    """F(x, time, label) -> [n, out_channels, h, w] for images of `size` (h, w); odd sizes round up on the way down.

    Recipe arguments:
        base_channels: channels at the finest resolution; `multipliers`: times this at each resolution, finest first.
        blocks: blocks at each resolution of the trunk, one number or one a resolution. With `skips: block` the decoder
            has one more at each; with `skips: level` as many, but none at the coarsest and elsewhere at least one.
        attention: resolutions (the feature map's shorter side) with self-attention, or levels, which fit any size: −1
            the coarsest, −2 the one before; and `middle_attention`.
        attention_kind: attention alone (`plain`, DDPM) or with a feed-forward part, a `transformer` layer (D).
        heads, or head_channels: attention heads (1), or the channels of each. dropout: in every block.
        patch: side of the square patches that are folded into channels first, unfolded last (1: none).
        block: its name (`trilemma list blocks`); `repeats`: double convolutions in one
            `double` block, `links`: which of them have residual links.
        norm, activation: in every block; groups: of group norm, as many as leave four channels in each unless given;
            norm_eps: its ε. rescale: the blocks' residual sums, and those of `plain` attention, are divided by √2.
        zero_init: residual branches and the head begin at zero.
        down, up: changes of resolution (`networks.resampling`).
        entry: how time and class enter each block: `added` between its convolutions (DDPM), `adagn` (ADM), `after` it
            (D); or once, as maps at the `bottom` (E 3.3).
        time_range: what the time is divided by where it enters as a number (`entry: bottom`). time_sinusoids: so many
            sinusoids are all there is of the time's embedding (D); otherwise base_channels of them go through two
            linear layers to four times as many. time_endpoint: the spacing of their frequencies, see `Sinusoidal`.
        skips: `block`: the decoder takes every block's output (DDPM); `level`: the last one of each resolution.
        decoder_widths: at each resolution the trunk's (`mirrored`, DDPM), or the trunk's at the next finer one
            (`narrowed`): what is upsampled is then as wide as the skip that it meets (Ronneberger et al. 2015, D).
        stem: the first convolution, 3×3 (`conv`), 1×1 (`point`) or a `double` convolution.
        middle: two of the network's `blocks`, or D's three `double` convolutions, twice as wide inside.
        head: norm, activation and 3×3 convolution (`conv`), or a 1×1 convolution alone (`point`).
        upsampler: takes a second image `low`, of any size, interpolated bilinearly and joined to x (B, two stages).
        low_time: and the time that it is noised to, embedded as the other is (Ho et al. 2022, section 4.2).
        latent: takes a latent vector z [n, latent] too (0: none), which through a mapping network scales and shifts the
            norms of every block, both of a `residual` one and that which time enters of another (DDGAN: Xiao et al.
            2022); entry has to be `added` or `adagn`. latent_width, latent_layers: the mapping network's, every linear
            layer counted.
        tanh: the output is bounded by it.
        fourier: sin and cos of 2^n π x for each exponent n are joined to the input (Kingma et al. 2021, appendix C).
        input_pyramid: the image is brought down beside the trunk and added to it at each resolution, see `Trunk`.
        decoder_attention: after every block of a resolution that has attention (`block`), or its last (`level`).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        size: tuple[int, int],
        classes: int = 0,
        *,
        base_channels: Annotated[int, Ge(1)] = 128,
        multipliers: Annotated[Sequence[Annotated[int | float, Gt(0)]], Len(1)] = (1, 2, 2, 2),
        blocks: Annotated[int, Ge(1)] | Sequence[Annotated[int, Ge(0)]] = 2,
        attention: Sequence[int] = (16,),
        middle_attention: bool = True,
        attention_kind: Literal["plain", "transformer"] = "plain",
        heads: Annotated[int, Ge(1)] | None = None,
        head_channels: Annotated[int, Ge(1)] | None = None,
        dropout: Annotated[float, Ge(0), Lt(1)] = 0.1,
        patch: Annotated[int, Ge(1)] = 1,
        block: str = "residual",
        repeats: Annotated[int, Ge(1)] = 1,
        links: Literal["none", "same", "all"] = "none",
        norm: Norm = "group",
        groups: Annotated[int, Ge(1)] | None = None,
        norm_eps: Annotated[float, Gt(0)] = 1e-6,
        activation: Activation = "silu",
        rescale: bool = False,
        zero_init: bool = True,
        down: Literal[
            "strided", "strided_same", "average", "max", "blurred", "blurred_summed", "biggan", "biggan_fir"
        ] = "strided",
        up: Literal["nearest", "bilinear", "bilinear_aligned", "biggan", "biggan_fir"] = "nearest",
        entry: Entry = "added",
        time_range: Annotated[float, Gt(0)] = 1000.0,
        time_sinusoids: Annotated[int, Ge(2)] | None = None,
        time_endpoint: bool = False,
        skips: Literal["block", "level"] = "block",
        decoder_widths: Literal["mirrored", "narrowed"] = "mirrored",
        stem: Literal["conv", "point", "double"] = "conv",
        middle: Literal["blocks", "double"] = "blocks",
        head: Literal["conv", "point"] = "conv",
        upsampler: bool = False,
        low_time: bool = False,
        latent: Annotated[int, Ge(0)] = 0,
        latent_width: Annotated[int, Ge(1)] = 256,
        latent_layers: Annotated[int, Ge(1)] = 5,
        tanh: bool = False,
        input_pyramid: bool = False,
        decoder_attention: Literal["block", "level"] = "block",
        fourier: Sequence[Annotated[int, Ge(-16), Le(16)]] = (),
    ):
        super().__init__()
        if size[0] % patch or size[1] % patch:
            raise ValueError(f"network.patch {patch} does not divide the image size {size[0]}×{size[1]}")
        if block != "double" and (repeats > 1 or links != "none"):
            raise ValueError(f"network.repeats and network.links are those of block 'double', and block is {block!r}")
        if head_channels is not None and heads is not None:
            raise ValueError(f"network.heads {heads} and network.head_channels {head_channels}: expected one of them")
        if groups is not None and norm != "group":
            raise ValueError(f"network.groups {groups}: norm {norm!r} has none, only 'group' has")
        if middle == "double" and middle_attention:
            raise ValueError("network.middle 'double' has no attention: it goes with middle_attention false")
        if time_sinusoids is not None and entry == "bottom":
            raise ValueError(f"network.time_sinusoids {time_sinusoids}: entry 'bottom' has none, its time is a number")
        if low_time and (entry == "bottom" or not upsampler):
            what = "entry 'bottom' has no place for it" if upsampler else "only an upsampler's low image has one"
            raise ValueError(f"network.low_time: {what}")
        if latent and entry not in ("added", "adagn"):
            raise ValueError(f"network.latent {latent}: goes with entry 'added' or 'adagn', not with {entry!r}")
        widths = tuple(round(base_channels * m) for m in multipliers)
        if any(abs(w - base_channels * m) > 1e-6 * w for w, m in zip(widths, multipliers, strict=True)):
            raise ValueError(
                f"network.multipliers {list(multipliers)} of {base_channels} channels are no whole numbers"
            )
        counts = (blocks,) * len(widths) if isinstance(blocks, int) else tuple(blocks)
        if len(counts) != len(widths):
            raise ValueError(f"network.blocks {list(counts)}: expected one number, or {len(widths)} as multipliers has")
        sizes = [(size[0] // patch, size[1] // patch)]
        for _ in widths[1:]:
            sizes.append(((sizes[-1][0] + 1) // 2, (sizes[-1][1] + 1) // 2))
        sides = [min(s) for s in sizes]
        embedding = time_sinusoids or 4 * base_channels
        style = Style(
            norm_of(norm, groups, norm_eps),
            ACTIVATIONS[activation],
            entry,
            embedding,
            dropout,
            rescale,
            zero_init,
            partial(Modulation, latent_width) if latent else None,
        )
        if block not in registry("block"):
            raise registry("block").unknown(block, "network.block")
        made = partial(registry("block")[block], **({"repeats": repeats, "links": links} if block == "double" else {}))
        many = partial(_heads, heads=heads, head_channels=head_channels)
        plan = Plan(
            inputs=in_channels * (1 + 2 * len(fourier) + upsampler) * patch**2,
            widths=widths,
            blocks=counts,
            attends=attending(attention, sides),
            style=style,
            block=lambda inputs, outputs: made(inputs, outputs, style),
            attention=lambda channels: ATTENTION[attention_kind](channels, many(channels), style),
            every_block=skips == "block",
        )
        self.patch, self.classes, self.upsampler, self.low_time = patch, classes, upsampler, low_time
        self.latent, self.input_pyramid, self.fourier = latent, input_pyramid, tuple(fourier)
        self.widths, self.sizes = widths, tuple(sizes)
        base = None if time_sinusoids else base_channels
        self.trunk = Trunk(
            plan,
            STEMS[stem](plan.inputs, widths[0], style),
            TimeAndClass(base, embedding, classes, time_endpoint, low_time) if entry != "bottom" else None,
            BottomMaps(widths[-1] // 2, sizes[-1], classes, time_range) if entry == "bottom" else None,
            middle,
            middle_attention,
            down,
            LatentMapping(latent, latent_width, latent_layers) if latent else None,
            input_pyramid,
        )
        kept, channels = list(self.trunk.kept), self.trunk.channels
        decoder = []
        rising = (widths[0], *widths[:-1]) if decoder_widths == "narrowed" else widths
        for i, width in reversed(list(enumerate(rising))):
            layers = []
            coarsest = i == len(widths) - 1
            many_layers = counts[i] + 1 if plan.every_block else 0 if coarsest else max(1, counts[i])
            for j in range(many_layers):
                skip = kept.pop() if plan.every_block or j == 0 else 0
                attends = plan.attends[i] and (decoder_attention == "block" or j == many_layers - 1)
                layers.append(plan.layer(channels + skip, width, attends))
                channels = width
            decoder.append(Level(layers, channels, UP[up](channels, style) if i else None))
        self.decoder: Any = nn.ModuleList(decoder)
        self.head_kind, self.outputs, self.tanh = head, out_channels * patch**2, tanh
        self.head = self.make_head(channels)

    def make_head(self, channels: int) -> nn.Module:
        """A head over so many channels."""
        made = HEADS[self.head_kind](channels, self.outputs, self.trunk.style)
        return nn.Sequential(made, nn.Tanh()) if self.tanh else made

    def forward(
        self,
        x: Float[Tensor, "n c h w"],
        time: Float[Tensor, "n"],
        label: Int64[Tensor, "n"] | None = None,
        low: Float[Tensor, "n c h2 w2"] | None = None,
        low_time: Float[Tensor, "n"] | None = None,
        latent: Float[Tensor, "n z"] | None = None,
    ) -> Float[Tensor, "n d h w"]:
        check_label(self.classes, label)
        x = with_fourier(x, self.fourier)
        if self.upsampler:
            if low is None:
                raise ValueError("this network is an upsampler: it needs a `low` image for each image")
            x = torch.cat([x, functional.interpolate(low, size=x.shape[-2:], mode="bilinear")], dim=1)
        elif low is not None:
            raise ValueError("this network is no upsampler (network.upsampler): it takes no `low` image")
        if self.low_time != (low_time is not None):
            raise ValueError(f"network.low_time {self.low_time}: a `low_time` is {'not ' * self.low_time}given")
        if bool(self.latent) != (latent is not None):
            expected = f"it needs a `latent` [n, {self.latent}]" if self.latent else "it takes no `latent`"
            raise ValueError(f"network.latent {self.latent}: {expected}")
        x = functional.pixel_unshuffle(x, self.patch) if self.patch > 1 else x
        h, skips, e = self.trunk(x, time, label, low_time, latent)
        h = self.head(self.ascend(h, skips, e))
        return functional.pixel_shuffle(h, self.patch) if self.patch > 1 else h

    def ascend(self, h: Tensor, skips: list[Tensor], e: Tensor | None) -> Tensor:
        """From the coarsest features to the finest that the skips lead to."""
        skips = list(skips)
        for level in self.decoder:
            for j, layer in enumerate(level.layers):
                if self.trunk.every_block or j == 0:
                    h = torch.cat([h, skips.pop()], dim=1)
                h = layer(h, e)
            if not skips:
                break
            if level.resample is not None:
                h = level.resample(h, e, skips[-1].shape[-2:])
        return h


def _heads(width: int, heads: int | None, head_channels: int | None) -> int:
    each = head_channels or width // (heads or 1)
    if width % (head_channels or heads or 1):
        what = f"head_channels {head_channels}" if head_channels else f"heads {heads}"
        raise ValueError(f"network.{what} does not divide {width} channels")
    return width // each
