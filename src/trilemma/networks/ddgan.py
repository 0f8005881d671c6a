"""The discriminator of denoising diffusion GANs; their generator is a `UNet` with a latent vector."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Len
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from trilemma.networks.embeddings import Sinusoidal, check_label
from trilemma.networks.filters import fir_down
from trilemma.networks.norms import xavier, zero
from trilemma.registry import register


def activation(x: Tensor) -> Tensor:
    """The leaky ReLU of this network."""
    return functional.leaky_relu(x, 0.2)


class TimedDownBlock(nn.Module):
    """activation, 3×3 convolution, + the time's vector through a linear layer, activation, 3×3 convolution,
    + a 1×1 convolution of the input, over √2; `down`: halved by a filter before the second convolution and on the
    shortcut. The second convolution begins at zero."""

    def __init__(self, inputs: int, outputs: int, embedding: int, down: bool):
        super().__init__()
        self.down = down
        self.conv1 = xavier(nn.Conv2d(inputs, outputs, 3, padding=1))
        self.embed = xavier(nn.Linear(embedding, outputs))
        self.conv2 = zero(nn.Conv2d(outputs, outputs, 3, padding=1))
        self.shortcut = xavier(nn.Conv2d(inputs, outputs, 1, bias=False))

    def forward(self, x: Float[Tensor, "n c h w"], e: Float[Tensor, "n e"]) -> Float[Tensor, "n d h2 w2"]:
        h = activation(self.conv1(activation(x)) + self.embed(e)[:, :, None, None])
        if self.down:
            h, x = fir_down(h), fir_down(x)
        return (self.conv2(h) + self.shortcut(x)) * 0.5**0.5


def group_deviation(x: Float[Tensor, "n c h w"], largest: int = 4) -> Float[Tensor, "n"]:
    """How much the images of a batch differ: for each, the standard deviation over its group at every channel and
    position, its mean over those (Karras et al. 2018, section 3; groups as in Karras et al. 2020).

    Groups are of `largest` images in their order; of a batch that it does not divide there are as many as it takes, of
    one size but for the last. One image alone has none: 1e-4. The batch is what one call is given: in micro-batches and
    processes of a multiple of `largest` images the groups are the whole batch's."""
    n = x.shape[0]
    groups = -(-n // largest)
    rows = -(-n // groups)
    given = functional.pad(x.flatten(1), (0, 0, 0, rows * groups - n)).view(groups, rows, -1)
    there = (torch.arange(rows * groups, device=x.device) < n).view(groups, rows, 1)
    count = there.sum(1, keepdim=True)
    mean = given.sum(1, keepdim=True) / count
    variance = ((given - mean).square() * there).sum(1) / count[:, 0]
    deviations = (variance + 1e-8).sqrt().mean(1)
    return deviations.repeat_interleave(rows)[:n]


@register("network", "ddgan_discriminator")
class DDGANDiscriminator(nn.Module):
    """Logits [n] of pairs (x_s, x_t) at the time t, whether x_s, the less noisy one, is data noised or what a generator
    makes of x_t (Xiao et al. 2022, appendix C, the network for CIFAR-10): a 1×1 convolution of both, blocks that the
    time enters, of which all but the first halve the size (odd sides round up), the deviation in groups of four images
    as one more channel, 3×3 convolution, the sum over positions, a linear layer. Where there are classes, the inner
    product of the summed features and a vector of the class is added (Miyato & Koyama 2018, eq. 4).

    Recipe arguments: `base_channels`; `multipliers`: times this are the channels of each block. `time_width`: of the
    time's sinusoids and of the two layers after them. `patch`: side of the square patches that are folded into
    channels first (1: none)."""

    def __init__(
        self,
        in_channels: int,
        size: tuple[int, int],
        classes: int = 0,
        *,
        base_channels: Annotated[int, Ge(1)] = 128,
        multipliers: Annotated[Sequence[Annotated[int, Gt(0)]], Len(1)] = (1, 2, 4, 4),
        time_width: Annotated[int, Ge(2)] = 256,
        patch: Annotated[int, Ge(1)] = 1,
    ):
        super().__init__()
        if size[0] % patch or size[1] % patch:
            raise ValueError(f"patch {patch} does not divide the image size {size[0]}×{size[1]}")
        self.classes, self.patch = classes, patch
        widths = [base_channels * m for m in multipliers]
        linear = [xavier(nn.Linear(time_width, time_width)) for _ in range(2)]
        self.time = nn.Sequential(
            Sinusoidal(time_width, endpoint=True), linear[0], nn.LeakyReLU(0.2), linear[1], nn.LeakyReLU(0.2)
        )
        self.stem = xavier(nn.Conv2d(2 * in_channels * patch**2, widths[0], 1))
        self.blocks = nn.ModuleList(
            TimedDownBlock(a, b, time_width, down=i > 0) for i, (a, b) in enumerate(pairwise([widths[0], *widths]))
        )
        self.conv = zero(nn.Conv2d(widths[-1] + 1, widths[-1], 3, padding=1))
        self.head = xavier(nn.Linear(widths[-1], 1))
        self.label = xavier(nn.Embedding(classes, widths[-1])) if classes else None

    def forward(
        self,
        x_s: Float[Tensor, "n c h w"],
        x_t: Float[Tensor, "n c h w"],
        time: Float[Tensor, "n"],
        label: Int64[Tensor, "n"] | None = None,
    ) -> Float[Tensor, "n"]:
        check_label(self.classes, label)
        e = self.time(time)
        h = self.stem(functional.pixel_unshuffle(torch.cat([x_s, x_t], dim=1), self.patch))
        for block in self.blocks:
            h = block(h, e)
        deviation = group_deviation(h)[:, None, None, None].expand(-1, 1, *h.shape[-2:])
        features = activation(self.conv(torch.cat([h, deviation.to(h.dtype)], dim=1))).sum((2, 3))
        logits = self.head(features)[:, 0]
        return logits if self.label is None else logits + (self.label(label) * features).sum(1)
