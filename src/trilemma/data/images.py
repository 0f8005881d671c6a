"""What a set of images is, and the set that lives in memory."""

from __future__ import annotations

import hashlib
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Int64, UInt8

from trilemma.errors import InputError, unknown
from trilemma.machine.untrusted import memory
from trilemma.process import check_images

CLASS_LIMIT = 2**16
"""Classes that bare numbers may count: each costs a name, a row of the network and a line of every table, also where
no image shows it. ImageNet-21k has 21 841."""

MEMORY_LIMIT = 256 * 2**20
"""Bytes of decoded pixels up to which a set of files is decoded once and kept in memory."""


P = TypeVar("P")

SPLITS = ("train", "test")
"""The splits of a source that says nothing of them."""


@dataclass(frozen=True)
class Outline:
    """What is known of a set of images without its files: (channels, height, width), its classes, the splits that there
    are besides `all` of them, and how much has to be downloaded first, if anything has."""

    name: str
    shape: tuple[int, int, int]
    classes: tuple[str, ...] | None = None
    splits: tuple[str, ...] = SPLITS
    download: str | None = None


def outlined(
    shape: tuple[int, int, int],
    classes: tuple[str, ...] | None = None,
    splits: tuple[str, ...] = SPLITS,
    *,
    download: str | None = None,
) -> Callable[[P], P]:
    """A decorator for a source of images: says what is known of them without opening it, see `Outline`."""

    def keep(source: Any) -> Any:
        source.outline = Outline(source.__name__, shape, classes, splits, download)
        return source

    return keep


class ImageSet(ABC):
    """A numbered collection of equally large uint8 images, with one class label each or none at all.

    Attributes:
        name: what results call it: `mnist5k`, `shapes`, or the last part of a path.
        split: `train`, `test`, ... or `all`.
        shape: (channels, height, width) of every image; channels is 1 (grey) or 3 (RGB).
        classes: the names of classes 0..K-1, None when unlabelled.
        labels: the class of every image, None when unlabelled.
        in_memory: whether `batch` only copies; otherwise it decodes files, and worker processes pay.
        streamed: whether images can only be read forward; `order` is made for it, and each process that reads them
            reads all of them.
    """

    streamed = False

    def __init__(
        self,
        name: str,
        split: str,
        shape: tuple[int, int, int],
        *,
        count: int,
        labels: Int64[np.ndarray, " n"] | None,
        classes: tuple[str, ...] | None,
        in_memory: bool,
    ) -> None:
        if (labels is None) != (classes is None):
            raise InputError(f"{name}: labels and class names come together or not at all")
        if labels is not None and classes is not None:
            _check_labels(name, labels, count, len(classes))
        self.name, self.split, self.shape = name, split, shape
        self.labels, self.classes, self.in_memory = labels, classes, in_memory
        self._count = count
        self._fingerprint: str | None = None

    def __len__(self) -> int:
        return self._count

    def __repr__(self) -> str:
        channels, height, width = self.shape
        kinds = f"{len(self.classes)} classes" if self.classes is not None else "unlabelled"
        return f"<{self.name}:{self.split}, {len(self)} images {channels}x{height}x{width}, {kinds}>"

    @abstractmethod
    def _images(self, indices: Int64[np.ndarray, " n"]) -> UInt8[np.ndarray, "n h w c"]:
        """The images at `indices`, which lie in [0, len)."""

    def batch(
        self, indices: Sequence[int] | Int64[np.ndarray, " n"]
    ) -> tuple[UInt8[np.ndarray, "n h w c"], Int64[np.ndarray, " n"] | None]:
        """The images at `indices`, in that order, values 0..255, and their labels.

        Raises:
            IndexError: an index outside [0, len).
            InputError: a file of a set that is decoded on demand is damaged; the message names it. Or more pixels than
                there is memory.
        """
        index = np.asarray(indices, dtype=np.int64).reshape(-1)
        if index.size and (index.min() < 0 or index.max() >= len(self)):
            raise IndexError(f"{self.name}: index outside [0, {len(self)})")
        check_fits(self.name, index.size, self.shape)
        return self._images(index), None if self.labels is None else self.labels[index]

    def order(self, rng: np.random.Generator) -> Int64[np.ndarray, " n"]:
        """The images in the random order of an epoch: any of all orders, or, of a stream, shards and a buffer shuffled
        (see `streams.order`)."""
        return rng.permutation(len(self))

    def fingerprint(self) -> str:
        """sha256 over count, shape, decoded pixels and labels, in order; 64 hexadecimal digits, computed once.

        It depends on what a model sees, not on how it is stored: a folder, a zip and an `.npz` of the same images
        and labels agree, and another `size` is another fingerprint.
        """
        if self._fingerprint is None:
            head = {"count": len(self), "shape": list(self.shape), "labelled": self.labels is not None}
            digest = hashlib.sha256(json.dumps(head, sort_keys=True).encode())
            for start in range(0, len(self), 256):
                index = np.arange(start, min(start + 256, len(self)), dtype=np.int64)
                digest.update(np.ascontiguousarray(self._images(index)).tobytes())
            if self.labels is not None:
                digest.update(self.labels.astype("<i8").tobytes())
            self._fingerprint = digest.hexdigest()
        return self._fingerprint


class MemorySet(ImageSet):
    """Images held in memory as one uint8 NHWC array.

    Raises:
        InputError: the images are not uint8 NHWC with 1 or 3 channels, or the labels don't fit them.
    """

    def __init__(
        self,
        images: UInt8[np.ndarray, "n h w c"],
        labels: Int64[np.ndarray, " n"] | None = None,
        *,
        name: str,
        split: str = "all",
        classes: tuple[str, ...] | None = None,
    ) -> None:
        check_images(images, name)
        count, height, width, channels = images.shape
        shape = (channels, height, width)
        super().__init__(name, split, shape, count=count, labels=labels, classes=classes, in_memory=True)
        self._array = images

    def _images(self, indices: Int64[np.ndarray, " n"]) -> UInt8[np.ndarray, "n h w c"]:
        return self._array[indices]


class Spread(ImageSet):
    """So many of a set's images, spread evenly over it, under its name."""

    def __init__(self, whole: ImageSet, count: int) -> None:
        at = np.linspace(0, len(whole) - 1, count).astype(np.int64)
        labels = None if whole.labels is None else whole.labels[at]
        super().__init__(
            whole.name, whole.split, whole.shape, count=count, labels=labels, classes=whole.classes,
            in_memory=whole.in_memory,
        )  # fmt: skip
        self._whole, self._at = whole, at

    def _images(self, indices: Int64[np.ndarray, " n"]) -> UInt8[np.ndarray, "n h w c"]:
        return self._whole.batch(self._at[indices])[0]


def check_fits(what: str, count: int, shape: tuple[int, int, int]) -> None:
    """Refuse `count` images of `shape` at once where memory is too small for them.

    Raises:
        InputError: naming `what`, and both sizes.
    """
    needed = count * math.prod(shape)
    if needed > memory():
        images = f"{count} images {'x'.join(map(str, shape))}"
        raise InputError(f"{what}: {images} take {needed:,} bytes of memory, of which there are {memory():,}")


def number_classes(labels: Int64[np.ndarray, " n"], what: str) -> tuple[str, ...]:
    """Names for labels that come as bare numbers: "0" to the largest of them.

    Raises:
        InputError: naming `what`, a label of `CLASS_LIMIT` or more.
    """
    if labels.size and int(labels.max()) >= CLASS_LIMIT:
        raise InputError(f"{what}: label {int(labels.max())}, expected labels below {CLASS_LIMIT}")
    return tuple(str(k) for k in range(int(labels.max()) + 1)) if labels.size else ()


def split_parts(name: str, split: str, parts: Sequence[str]) -> tuple[str, ...]:
    """The stored parts that make up `split`: itself, or every part for `all`.

    Raises:
        InputError: there is no such split; the message lists those that exist.
    """
    if split == "all":
        return tuple(parts)
    if split not in parts:
        raise unknown(f"split of {name}", split, [*parts, "all"])
    return (split,)


def _check_labels(name: str, labels: np.ndarray, count: int, classes: int) -> None:
    if labels.dtype != np.int64 or labels.shape != (count,):
        raise InputError(f"{name}: labels are {labels.dtype} {labels.shape}, expected int64 ({count},)")
    if count and (labels.min() < 0 or labels.max() >= classes):
        bad = int(labels[(labels < 0) | (labels >= classes)][0])
        raise InputError(f"{name}: label {bad} is out of range, expected 0 to {classes - 1}")
