"""Features of the FID Inception network: where its weights come from, and how images are brought to its size."""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from safetensors.torch import load as load_safetensors
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils import convert_conv2d_weight_memory_format

from trilemma.errors import InputError
from trilemma.metrics.cautions import caution
from trilemma.metrics.features import Extractor, Features, full_precision, with_channels
from trilemma.metrics.inception import DIM, SIZE, Inception
from trilemma.registry import register

FILE = "pt_inception-2015-12-05-6726825d.pth"
URL = f"https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/{FILE}"
SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
VARIABLE = "TRILEMMA_INCEPTION"  # of the environment: where that file lies

Images = UInt8[np.ndarray, "n h w 3"]


def bilinear(images: Images, device: str | torch.device = "cpu") -> Float[Tensor, "n 3 299 299"]:
    """As pytorch-fid: [0, 1], bilinear between pixel centres without antialiasing, then [−1, 1]."""
    x = torch.from_numpy(np.array(images)).to(device).permute(0, 3, 1, 2).float() / 255
    return 2 * F.interpolate(x, size=(SIZE, SIZE), mode="bilinear", align_corners=False) - 1


def bicubic(images: Images, device: str | torch.device = "cpu") -> Float[Tensor, "n 3 299 299"]:
    """As clean-fid (Parmar et al. 2022): Pillow's bicubic filter, which antialiases when it makes images smaller, on
    each channel in float32, held in [0, 255], not rounded to bytes; then (x − 128) / 128, as TensorFlow's graph has."""

    def resized(channel: np.ndarray) -> np.ndarray:
        whole = Image.fromarray(np.ascontiguousarray(channel, dtype=np.float32))
        return np.asarray(whole.resize((SIZE, SIZE), Image.Resampling.BICUBIC)).clip(0, 255)

    stacked = np.stack([[resized(image[..., c]) for c in range(3)] for image in images])
    return (torch.from_numpy(stacked).to(device) - 128) / 128


RESIZES = {
    "inception": ("bilinear-299 (pytorch-fid)", bilinear),
    "inception-clean": ("bicubic-299 (clean-fid)", bicubic),
}
"""What is recorded of each extractor's resizing, and what does it."""


class InceptionExtractor(Extractor):
    """Pooled features [n, 2048], logits [n, 1008] (without bias) and spatial features [n, 2023], see
    `Inception.outputs`. Takes colour and grey images of any size; `name` is one of `RESIZES`."""

    dim = DIM

    def __init__(self, network: Inception, *, name: str, sha256: str, device: str | torch.device = "cpu"):
        # On a CPU channels side by side, and few images at a time, go two to three times as fast.
        self.network = network.eval().requires_grad_(False).to(device)
        convert_conv2d_weight_memory_format(self.network, torch.channels_last)
        self.batch = 8 if torch.device(device).type == "cpu" else 64
        self.name, self.sha256, self.device = name, sha256, device
        self.resize, self._resized = RESIZES[name]

    @torch.inference_mode()
    def __call__(self, images: UInt8[np.ndarray, "n h w c"]) -> Features:
        if self.sha256 != SHA256:
            caution(
                f"features {self.name!r}: the weights (sha256 {self.sha256[:12]}…) are not the published file's, so "
                "figures compare only with others of these weights"
            )
        coloured = with_channels(images, 3, self.name)
        parts = []
        with full_precision():
            for start in range(0, len(coloured), self.batch):
                x = self._resized(coloured[start : start + self.batch], self.device)
                outputs = self.network.outputs(x.contiguous(memory_format=torch.channels_last))
                parts.append([part.cpu().numpy() for part in outputs])
        return Features(*(np.concatenate(column) for column in zip(*parts, strict=True)))

    def record(self, dim: int | None = None) -> dict[str, Any]:
        return super().record(dim) | {"grey": "repeated to three channels"}


@register("features", "inception")
def open_fid(path: str | None = None, *, device: str | torch.device = "cpu") -> InceptionExtractor:
    """The network of FID, its published weights (`inception:PATH`: this file's), images resized as pytorch-fid does."""
    return open_inception("inception", path, device=device)


@register("features", "inception-clean")
def open_clean_fid(path: str | None = None, *, device: str | torch.device = "cpu") -> InceptionExtractor:
    """The network of FID, its published weights (`inception-clean:PATH`: this file's), images resized as clean-fid."""
    return open_inception("inception-clean", path, device=device)


def open_inception(
    name: str = "inception", path: str | Path | None = None, *, device: str | torch.device = "cpu"
) -> InceptionExtractor:
    """The Inception extractor of this name (see `RESIZES`) with weights from `path`, a .pth or .safetensors file of the
    published names. Without one, the published file: where `$TRILEMMA_INCEPTION` says, or the copy kept in the cache
    folder (`$TRILEMMA_CACHE`, or the system's), downloaded once; its sha256 must be right.

    Weights at a `path` may be others: a caution then says so with every use. Raises InputError if the
    file cannot be had, is damaged, has the wrong hash or holds another network."""
    what = f"features {name!r}"
    if path is None and os.environ.get(VARIABLE):
        found, other = Path(os.environ[VARIABLE]), False
    elif path is None:
        found, other = _downloaded(what), False
    else:
        found, other = Path(path), True
    try:
        content = found.read_bytes()
    except OSError as error:
        raise InputError(
            f"{what}: weights {str(found)!r} cannot be read ({error.strerror}), expected the file {URL} gives"
        ) from None
    sha256 = hashlib.sha256(content).hexdigest()
    if sha256 != SHA256 and not other:
        raise InputError(
            f"{what}: weights {str(found)!r} have sha256 {sha256[:12]}…, expected {SHA256[:12]}… of {URL} "
            f"(damaged, or others: '{name}:PATH' takes others)"
        )
    network = load_inception(content, what=f"{what}: weights {str(found)!r}")
    return InceptionExtractor(network, name=name, sha256=sha256, device=device)


def load_inception(content: bytes, *, what: str) -> Inception:
    """The network with the weights of a file's content, safetensors or PyTorch's own (of which nothing but tensors is
    unpickled). `what` names the file. Raises InputError if it is damaged or holds another network."""
    try:
        # A safetensors file begins with a length of eight bytes and a JSON object.
        if content[8:9] == b"{":
            weights = load_safetensors(content)
        else:
            weights = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        network = Inception()
        # How many batches a normalisation was trained on is of no use here: files may lack it.
        counts = {key: value for key, value in network.state_dict().items() if key.endswith("num_batches_tracked")}
        network.load_state_dict({**counts, **weights})
    except Exception as error:  # unpicklers and archives raise many kinds
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"{what} do not hold the FID Inception network ({reason}), expected those of {URL}") from None
    return network


def published_file() -> Path | None:
    """Where the published weights lie; None where they would have to be downloaded first."""
    place = Path(os.environ.get(VARIABLE) or _folder() / FILE)
    return place if place.is_file() else None


def _folder() -> Path:
    import pooch

    return Path(os.environ.get("TRILEMMA_CACHE") or pooch.os_cache("trilemma")) / "inception"


def _downloaded(what: str) -> Path:
    import pooch

    try:
        return Path(pooch.retrieve(URL, f"sha256:{SHA256}", fname=FILE, path=_folder()))
    except (OSError, ValueError) as error:
        wrong = "its content does not have the published hash"
        reason = type(error).__name__ if isinstance(error, OSError) else wrong
        raise InputError(
            f"{what}: {URL} could not be downloaded ({reason}); fetch it by other means and set {VARIABLE} to its path"
        ) from None
