"""What images are measured by: an extractor turns uint8 images into vectors, and perhaps into class logits.

Every figure depends on its extractor, so each has a name, the hash of its weights, and a word on what it does to
images of another size. An extractor is deterministic; an image's features don't depend on the images beside it, but
for float rounding.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor

from trilemma.errors import InputError
from trilemma.networks.classifier import ConvClassifier
from trilemma.registry import register

WEIGHTS: Traversable = files("trilemma.metrics") / "weights"


@dataclass(frozen=True)
class Features:
    """What an extractor gives for n images: `pooled` vectors [n, d]; if it classifies, `logits` [n, k]; and `spatial`
    vectors [n, s] that keep where things are, if it has some (sFID is the Fréchet distance of these). `classes` [n, c]:
    the logits of a `ClassHead` that knows the classes of the data, where the extractor does not."""

    pooled: Float32[np.ndarray, "n d"]
    logits: Float32[np.ndarray, "n k"] | None = None
    spatial: Float32[np.ndarray, "n s"] | None = None
    classes: Float32[np.ndarray, "n c"] | None = None

    def __len__(self) -> int:
        return len(self.pooled)

    def first(self, count: int) -> Features:
        """Those of the first images."""
        return Features(*(None if part is None else part[:count] for part in vars(self).values()))  # type: ignore[arg-type]

    @property
    def dim(self) -> int:
        return self.pooled.shape[1]

    @property
    def by_class(self) -> Float32[np.ndarray, "n c"] | None:
        """The logits that say which class an image has: the head's, else the extractor's own."""
        return self.logits if self.classes is None else self.classes


class Extractor(ABC):
    """One way to look at images.

    `name`: what `open_extractor` and evaluation files call it. `dim`: length of a feature vector; None if it is that of
    the images. `sha256`: of the weights (of no bytes, if there are none). `resize`: what is done to images of another
    size, "none" if nothing. `classes`: what its logits are of, if it classifies and its card says."""

    name: str
    dim: int | None
    sha256: str
    resize: str = "none"
    classes: tuple[str, ...] | None = None

    @abstractmethod
    def __call__(self, images: UInt8[np.ndarray, "n h w c"]) -> Features:
        """Features of images with values in [0, 255]. Raises InputError for images that it cannot look at."""

    def record(self, dim: int | None = None) -> dict[str, Any]:
        """What an evaluation or statistics file says of the features; `dim` of those at hand, if it is the images'."""
        return {"name": self.name, "sha256": self.sha256, "dim": self.dim or dim, "resize": self.resize}


@register("features", "pixels")
class PixelExtractor(Extractor):
    """The image itself: values in [0, 1], channel by channel, d = c·h·w. It has no weights."""

    name = "pixels"
    dim = None
    sha256 = hashlib.sha256(b"").hexdigest()

    def __call__(self, images: UInt8[np.ndarray, "n h w c"]) -> Features:
        check_images(images)
        flat = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
        return Features(flat.astype(np.float32) / 255)


class ClassifierExtractor(Extractor):
    """A classifier's last features and its logits.

    `shape` (c, h, w) is what the network was trained on, `bounds` what black and white were to it. Images of a size in
    `cropped` lose an equal margin on every side (for digits padded to 32×32); any other size is refused, never resized.
    So are images of other channels."""

    def __init__(
        self,
        network: ConvClassifier,
        *,
        name: str,
        sha256: str,
        shape: tuple[int, int, int],
        cropped: tuple[tuple[int, int], ...] = (),
        bounds: tuple[float, float] = (-1.0, 1.0),
        device: str | torch.device = "cpu",
    ):
        self.network = network.eval().requires_grad_(False).to(device)
        self.name, self.sha256, self.dim = name, sha256, network.dim
        self.shape, self.cropped, self.bounds, self.device = shape, cropped, bounds, device

    @torch.inference_mode()
    def __call__(self, images: UInt8[np.ndarray, "n h w c"]) -> Features:
        check_images(images)
        x = torch.from_numpy(np.array(self._fitted(images))).to(self.device)
        low, high = self.bounds
        with full_precision():
            pooled = self.network.features(x.permute(0, 3, 1, 2).float() / (255 / (high - low)) + low)
            return Features(pooled.cpu().numpy(), self.network.head(pooled).cpu().numpy())

    def _fitted(self, images: np.ndarray) -> np.ndarray:
        channels, height, width = self.shape
        _, h, w, c = images.shape
        if c != channels or (h, w) not in ((height, width), *self.cropped):
            sizes = " or ".join(f"{channels}x{a}x{b}" for a, b in ((height, width), *self.cropped))
            raise InputError(
                f"features {self.name!r}: images are {c}x{h}x{w} (channels, height, width), expected {sizes}; "
                "'pixels' takes any size"
            )
        top, left = (h - height) // 2, (w - width) // 2
        return images[:, top : top + height, left : left + width]


def load_classifier(folder: Traversable, name: str, **arguments: Any) -> ClassifierExtractor:
    """The classifier kept in `folder` as NAME.safetensors (weights) and NAME.json (its card: "network", the arguments
    of `ConvClassifier`; "sha256" of the weights, checked if it is there). `arguments`: those of `ClassifierExtractor`,
    and `classes`. Raises InputError if a file is missing, damaged, or not the one of the card."""
    try:
        content = (folder / f"{name}.safetensors").read_bytes()
        card = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(
            f"features {name!r}: this installation lacks {error.filename}; 'pixels' needs no file"
        ) from None
    except ValueError as error:
        raise InputError(f"features {name!r}: {name}.json is not JSON ({error})") from None
    sha256 = hashlib.sha256(content).hexdigest()
    if card.get("sha256", sha256) != sha256:
        raise InputError(f"features {name!r}: weights have sha256 {sha256[:12]}…, the card says {card['sha256'][:12]}…")
    network = ConvClassifier(arguments["shape"][0], arguments.pop("classes"), **card["network"])
    try:
        network.load_state_dict(load_safetensors(content))
    except (SafetensorError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"features {name!r}: {name}.safetensors does not hold the card's network ({reason})") from None
    extractor = ClassifierExtractor(network, name=name, sha256=sha256, **arguments)
    extractor.classes = tuple(card["classes"]) if "classes" in card else None
    return extractor


@register("features", "digits")
def open_digits(*, device: str | torch.device = "cpu") -> Extractor:
    """The packaged classifier of MNIST digits: 28×28 grey, or 32×32 cropped to it."""
    return load_classifier(WEIGHTS, "digits", shape=(1, 28, 28), classes=10, cropped=((32, 32),), device=device)


def extract(batches: Iterable[UInt8[np.ndarray, "n h w c"]], extractor: Extractor) -> Features:
    """The features of all images of all batches, in order, whatever the sizes of the batches. Raises InputError when
    there is no image, when images of several sizes give features of several lengths, or when a feature is NaN."""
    what = f"features {extractor.name!r}"
    parts = [extractor(batch) for batch in batches if len(batch)]
    if not parts:
        raise InputError(f"{what}: there are no images to look at, expected at least one")
    dims = sorted({part.dim for part in parts})
    if len(dims) > 1:
        raise InputError(f"{what}: images of several sizes give features of {dims}, expected one")
    pooled = np.concatenate([part.pooled for part in parts])
    check_rows(pooled, what)
    return Features(pooled, _joined([p.logits for p in parts]), _joined([p.spatial for p in parts]))


def _joined(parts: list[np.ndarray | None]) -> np.ndarray | None:
    held = [part for part in parts if part is not None]
    return np.concatenate(held) if held else None


def full_precision() -> AbstractContextManager[None]:
    """On a GPU: convolutions in float32 rather than TF32, whose rounding shows in features, by deterministic
    algorithms."""
    return torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)


def hash_of(weights: Mapping[str, Tensor]) -> str:
    """sha256 over the names, types, shapes and bytes of tensors, in the order of their names: the same whatever file
    they came from."""
    digest = hashlib.sha256()
    for name, value in sorted(weights.items()):
        digest.update(f"{name} {value.dtype} {list(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def with_channels(images: UInt8[np.ndarray, "n h w c"], channels: int, name: str) -> UInt8[np.ndarray, "n h w d"]:
    """Images for a network of so many channels: grey ones are repeated. Raises InputError for any others, and
    for none."""
    check_images(images)
    if not len(images):
        raise InputError(f"features {name!r}: there are no images to look at, expected at least one")
    if images.shape[3] == 1:
        return np.repeat(images, channels, axis=3)
    if images.shape[3] != channels:
        raise InputError(f"features {name!r}: images have {images.shape[3]} channels, expected 1 or {channels}")
    return images


def check_images(images: np.ndarray) -> None:
    """Raises InputError unless `images` are uint8 [n, h, w, c]."""
    if images.dtype != np.uint8 or images.ndim != 4:
        raise InputError(f"images are {images.dtype} {list(images.shape)}, expected uint8 [n, h, w, c]")


def check_rows(values: np.ndarray, what: str) -> None:
    """Raises InputError unless `values` is [n, d] with every value finite; `what` names them."""
    if values.ndim != 2:
        raise InputError(f"{what}: shape {list(values.shape)}, expected [n, d]")
    bad = np.count_nonzero(~np.isfinite(values).all(axis=1))
    if bad:
        first = int(np.argmin(np.isfinite(values).all(axis=1)))
        raise InputError(
            f"{what}: {bad} of {len(values)} images have NaN or infinite values (the first is image {first}), "
            "expected finite ones"
        )
