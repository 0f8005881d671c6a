"""Features of the pretrained networks of the timm library."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from trilemma.errors import InputError
from trilemma.metrics.features import Extractor, Features, full_precision, hash_of, with_channels
from trilemma.registry import register

BATCH = 32


class TimmExtractor(Extractor):
    """The pooled features of a network without its classifier. `config`: timm's data config, of which the size, the
    mean and the standard deviation are used. The whole image is resized, antialiased, nothing is cropped away: bicubic
    unless the config says bilinear. Grey images are repeated."""

    def __init__(self, network: nn.Module, config: Mapping[str, Any], *, name: str, device: str | torch.device = "cpu"):
        self.network = network.eval().requires_grad_(False).to(device)
        self.name, self.device, self.sha256 = name, device, hash_of(network.state_dict())
        self.channels, *size = config["input_size"]
        self.size = (size[0], size[1])
        self.filter = "bilinear" if config.get("interpolation") == "bilinear" else "bicubic"
        self.mean, self.std = (torch.tensor(config[key], device=device).view(-1, 1, 1) for key in ("mean", "std"))
        self.resize = f"{self.filter}-{size[0]}x{size[1]} antialiased"
        self.dim = self(np.zeros((1, 8, 8, self.channels), dtype=np.uint8)).dim

    @torch.inference_mode()
    def __call__(self, images: UInt8[np.ndarray, "n h w c"]) -> Features:
        parts = [self._look(part) for part in np.split(images, range(BATCH, len(images), BATCH))]
        return Features(np.concatenate(parts))

    def _look(self, images: np.ndarray) -> np.ndarray:
        x = torch.from_numpy(np.array(with_channels(images, self.channels, self.name))).to(self.device)
        x = F.interpolate(
            x.permute(0, 3, 1, 2).float() / 255, self.size, mode=self.filter, align_corners=False, antialias=True
        )
        with full_precision():
            pooled: Tensor = self.network((x.clamp(0, 1) - self.mean) / self.std)
        if pooled.ndim != 2:
            raise InputError(f"features {self.name!r}: the network gives {list(pooled.shape)}, expected [n, d]")
        return pooled.float().cpu().numpy()

    def record(self, dim: int | None = None) -> dict[str, Any]:
        return super().record(dim) | ({"grey": "repeated"} if self.channels > 1 else {})


@register("features", "timm")
def open_timm(name: str, *, device: str | torch.device = "cpu") -> TimmExtractor:
    """`timm:NAME`, a pretrained network of the timm library, such as `resnet18.a1_in1k`; timm downloads its weights the
    first time.

    Raises InputError if timm is not installed, has no such network, or cannot get the weights."""
    model, name = name, f"timm:{name}"
    try:
        import timm
    except ImportError as error:
        raise InputError(
            f"features {name!r}: the timm library cannot be imported ({error}); pip install 'trilemma[timm]'"
        ) from None
    try:
        network = timm.create_model(model, pretrained=True, num_classes=0)
        config = timm.data.resolve_model_data_config(network)
    except Exception as error:  # of timm, the hub or the network: many kinds, by version
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(
            f"features {name!r}: timm could not give it ({type(error).__name__}: {reason}); expected a name of "
            "timm.list_models(pretrained=True), and a network connection the first time"
        ) from None
    return TimmExtractor(network, config, name=name, device=device)
