"""Progressive growing: a U-Net whose coarse levels are trained first, finer ones faded in (Karras et al. 2018)."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from annotated_types import Ge
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from trilemma.networks.embeddings import TimeAndClass, check_label
from trilemma.networks.norms import zero
from trilemma.networks.unet import UNet
from trilemma.registry import register


@register("network", "growing")
class Growing(nn.Module):
    """F(x, time, label) -> [n, out_channels, h, w] for images of `size` (h, w): a `UNet` that grows while it is trained
    (Karras et al. 2018, section 2), from the resolution `start` to the image's own.

    Level k of the U-Net and those below it are a network F_k of images halved k times: they are given a stem and a
    head of their own. What the network says at level k, with its weight a_k in [0, 1], is

        G_k(x) = a_k F_k(x) + (1 − a_k) [up(G_{k+1}(pool(x))) + g_k(time) · (x − up(pool(x)))],

    pool the mean of each 2×2 square (odd sizes round up), up its repetition; a is 1 at `start`, so nothing is coarser.
    A level of weight 0 is not run at all: a half-grown network costs what its coarse half costs.

    The images stay at full size throughout, and so does the noise: pooling x_t pools both, so the coarse network is
    trained on what it is given later, when a finer level fades in above it, and the squared error at full size is that
    of the pooled target, plus a part in which no coarse network has a say. Trained on small images with fresh noise of
    their own instead, it would meet another signal-to-noise ratio and another target at every stage. What pooling takes
    away F would not know either, noise above all, and it would stay in every sample: g_k, one number a channel, learnt
    as a function of the time, is the best linear guess of it (the Wiener filter). So a half-grown network is a denoiser
    like any other, to be sampled and measured at full size; its images are coarse, with noise for detail.

    `fade` holds a_0, a_1, … and belongs to the weights. It begins at 1, all grown; training calls `grow`. A step leaves
    the parameters of levels that it does not run without gradients, which data-parallel training has to be told.

    Recipe arguments: the U-Net's, less patch, upsampler, latent, input_pyramid and fourier; and
        start: the resolution (the feature map's shorter side) that is trained first.
        stage_steps: training steps at each resolution, the first half of them fading it in (at `start` there is nothing
            to fade); the finest goes on to the end. With fewer steps in all the network stays half-grown.
    """

    passes_on = UNet  # whose arguments `**unet` are: recipes check them against its constructor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        size: tuple[int, int],
        classes: int = 0,
        *,
        start: Annotated[int, Ge(1)] = 8,
        stage_steps: Annotated[int, Ge(2)] = 10_000,
        **unet: Any,
    ):
        super().__init__()
        self.unet = UNet(in_channels, out_channels, size, classes, **unet)
        self.classes = classes
        if self.unet.patch > 1 or self.unet.upsampler:
            raise ValueError("network.patch and network.upsampler: a growing network has neither")
        if self.unet.latent or self.unet.input_pyramid or self.unet.fourier:
            raise ValueError("network.latent, network.input_pyramid and network.fourier: a growing network has none")
        sides = [min(size) for size in self.unet.sizes]
        if start not in sides[1:]:
            raise ValueError(f"network.start {start}: expected one of the network's coarser resolutions, {sides[1:]}")
        self.stage_steps, self.stages = stage_steps, sides.index(start, 1)
        trunk, widths = self.unet.trunk, self.unet.widths
        stems, heads = [], []
        for k in range(1, self.stages + 1):
            stems.append(nn.Conv2d(in_channels, trunk.levels[k - 1].channels, 3, padding=1))
            heads.append(self.unet.make_head(self.unet.decoder[-1 - k].channels))
        self.stems, self.heads = nn.ModuleList(stems), nn.ModuleList(heads)  # level 0 has the U-Net's own
        self.time = TimeAndClass(widths[0], 4 * widths[0], 0)
        self.gains = nn.ModuleList(zero(nn.Linear(4 * widths[0], in_channels)) for _ in range(self.stages))
        self.fade: Tensor
        self.register_buffer("fade", torch.ones(self.stages))

    def grow(self, step: int) -> bool:
        """Set the weights a_k for this training step (0…): continuous, 0 where a stage begins, 1 from its middle on.
        Says whether a level begins here: averages of its weights from before are of weights that nobody trained."""
        for k, weight in enumerate(self._weights(step)):
            self.fade[k] = weight
        return step in (k * self.stage_steps for k in range(1, self.stages + 1))

    def running(self, step: int) -> tuple[bool, ...]:
        """Which levels are run at this training step, the finest first: those of a weight, down to one of all of it."""
        weights = [*self._weights(step), 1.0]
        return tuple(weight > 0 and 1.0 not in weights[:k] for k, weight in enumerate(weights))

    def _weights(self, step: int) -> list[float]:
        began = [(self.stages - k) * self.stage_steps for k in range(self.stages)]
        return [min(1.0, max(0.0, 2 * (step - first) / self.stage_steps)) for first in began]

    def forward(
        self,
        x: Float[Tensor, "n c h w"],
        time: Float[Tensor, "n"],
        label: Int64[Tensor, "n"] | None = None,
    ) -> Float[Tensor, "n d h w"]:
        check_label(self.classes, label)
        trunk, weights = self.unet.trunk, [*self.fade.tolist(), 1.0]
        e = trunk.embedding(time, label) if trunk.embedding is not None else None

        def level(k: int, x: Tensor) -> Tensor:
            stem, head = (self.stems[k - 1], self.heads[k - 1]) if k else (trunk.stem, self.unet.head)
            h, skips = trunk.descend(stem(x), e, time, label, first=k)
            return head(self.unet.ascend(h, skips, e))

        def seen(k: int, x: Tensor) -> Tensor:
            if weights[k] == 1:
                return level(k, x)
            pooled = functional.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False)
            both = torch.cat([pooled, seen(k + 1, pooled)], dim=1)
            repeated, coarse = functional.interpolate(both, size=x.shape[-2:], mode="nearest").tensor_split(
                [x.shape[1]], dim=1
            )
            detail = self.gains[k](self.time(time, None))[:, :, None, None] * (x - repeated)
            # A learned variance, the channels after the image's, has no detail.
            coarse = coarse + functional.pad(detail, (0, 0, 0, 0, 0, coarse.shape[1] - x.shape[1]))
            return weights[k] * level(k, x) + (1 - weights[k]) * coarse if weights[k] else coarse

        return seen(0, x)
