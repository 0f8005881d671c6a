"""Every source of images by name, and how a set is opened: by that name or by a path."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from trilemma.data.cifar10 import open_cifar10
from trilemma.data.decoding import Size, adapt, check_channels, check_size
from trilemma.data.images import ImageSet, MemorySet, check_fits, number_classes, split_parts
from trilemma.data.mnist import open_mnist
from trilemma.data.mnist5k import open_mnist5k
from trilemma.data.npz import read_npz
from trilemma.data.shapes import ShapesSet
from trilemma.data.trees import open_store, open_tree, read_tree
from trilemma.errors import InputError, shown, unknown
from trilemma.untrusted import kind_of

SOURCES: dict[str, str] = {
    "mnist5k": "5 000 handwritten digits, 1x28x28, 10 classes, part of the installation (train 4 500, test 500)",
    "shapes": "drawn shapes, 3x32x32 or any size, 10 classes, nothing to download (train 10 000, test 1 000)",
    "mnist": "handwritten digits, 1x28x28, 10 classes, 11 MB download (train 60 000, test 10 000)",
    "fashion-mnist": "pieces of clothing, 1x28x28, 10 classes, 30 MB download (train 60 000, test 10 000)",
    "cifar10": "small photographs, 3x32x32, 10 classes, 162 MB download (train 50 000, test 10 000)",
}
"""The named sources, one line each. Besides these, a path opens: a folder of images, a .zip of them, an .npz."""


@dataclass(frozen=True)
class Outline:
    """What is known of a set of images without its files: (channels, height, width), and its classes."""

    name: str
    shape: tuple[int, int, int]
    classes: tuple[str, ...] | None


_TEN = tuple(str(k) for k in range(10))
OUTLINES: dict[str, Outline] = {
    "mnist5k": Outline("mnist5k", (1, 28, 28), _TEN),
    "shapes": Outline("shapes", (3, 32, 32), _TEN),
    "mnist": Outline("mnist", (1, 28, 28), _TEN),
    "fashion-mnist": Outline("fashion-mnist", (1, 28, 28), _TEN),
    "cifar10": Outline("cifar10", (3, 32, 32), _TEN),
}
"""The named sources' shapes; their classes by number."""

IMAGENET_CLASSES = 1000

_WITH_ROOT = ("mnist", "fashion-mnist", "cifar10")


def open_data(
    name: str,
    *,
    split: str = "train",
    root: str | None = None,
    size: Size | None = None,
    channels: int | None = None,
) -> ImageSet:
    """Open a set of images.

    Args:
        name: a name in `SOURCES`, or the path of a folder, a .zip or an .npz. A name wins over a folder called like
            it; write `./mnist` for the folder.
        split: `train`, `test` or whatever split folders there are, or `all`. A path without split folders is one
            whole: `train` and `all` both open it, and its `split` is `all`.
        root: for `mnist`, `fashion-mnist` and `cifar10`, where their files lie already; otherwise they are downloaded.
        size: side or (height, width) to crop (centred) and resize (antialiased bicubic) to; None keeps each image,
            and files of several sizes are refused. `shapes` is drawn at this size.
        channels: 1 (grey) or 3 (RGB); None keeps what the images have.

    Raises:
        InputError: an unknown name, split or path, an option out of range, or a file that cannot be used; the message
            names it.
    """
    pair = check_size(size)
    check_channels(channels)
    if root is not None and name not in _WITH_ROOT:
        raise InputError(f"data.root: {name!r} takes none (only {', '.join(_WITH_ROOT)} do)")
    if name in SOURCES:
        return _adapted(_open_named(name, split, root, pair), pair, channels)
    path = _existing(name)
    label = path.resolve().name
    if path.suffix.lower() == ".npz" and path.is_file():
        split_parts(label, split, ("train",))
        images, labels = read_npz(path)
        classes = None if labels is None else number_classes(labels)
        return _adapted(MemorySet(images, labels, name=label, split="all", classes=classes), pair, channels)
    return open_tree(open_store(path), name=label, split=split, size=pair, channels=channels)


def outline(name: str, *, size: Size | None = None, channels: int | None = None) -> Outline:
    """Shape and classes of the images that `open_data` would give, for building networks: of a named source without
    its files. A path is looked into; one that is called imagenet need not exist, if `size` is given.

    Raises:
        InputError: an unknown name or path, or an option out of range.
    """
    pair = check_size(size)
    check_channels(channels)
    if name in OUTLINES:
        known = OUTLINES[name]
    elif pair is not None and kind_of(name) is None and Path(name).name == "imagenet":
        known = Outline(name, (3, *pair), tuple(str(k) for k in range(IMAGENET_CLASSES)))
    else:
        opened = open_data(name, split="all", size=size, channels=channels)
        return Outline(name, opened.shape, opened.classes)
    depth, height, width = known.shape
    return Outline(name, (channels or depth, *(pair or (height, width))), known.classes)


def available_splits(name: str, root: str | None = None) -> tuple[str, ...]:
    """The splits that `open_data(name, ...)` accepts, `all` last.

    Raises:
        InputError: an unknown name or path, or one without images.
    """
    if name in SOURCES:
        return ("train", "test", "all")
    path = _existing(name)
    if path.suffix.lower() == ".npz" and path.is_file():
        return ("train", "all")
    return (*read_tree(open_store(path)).parts, "all")


def parse_reference(text: str) -> tuple[str, str]:
    """Split `DATA[:SPLIT]` into name and split; without a split, `train`. A path that exists is taken whole, and so is
    what only looks like a drive (`C:\\images`).

    Raises:
        InputError: nothing stands before or after the colon.
    """
    head, colon, tail = text.rpartition(":")
    drive = len(head) == 1 and head.isalpha()
    if not colon or drive or "/" in tail or "\\" in tail or kind_of(text):
        if not text:
            raise InputError("data: '' is empty, expected DATA or DATA:SPLIT, such as mnist5k:test")
        return text, "train"
    if not head or not tail:
        raise InputError(f"data: {text!r}, expected DATA or DATA:SPLIT, such as mnist5k:test")
    return head, tail


def _open_named(name: str, split: str, root: str | None, size: tuple[int, int] | None) -> ImageSet:
    match name:
        case "mnist5k":
            return open_mnist5k(split)
        case "shapes":
            return ShapesSet(split, size=size or (32, 32))
        case "cifar10":
            return open_cifar10(split, root)
        case _:
            return open_mnist(name, split, root)


def _adapted(opened: ImageSet, size: tuple[int, int] | None, channels: int | None) -> ImageSet:
    """`opened` at another size or channel count, in memory."""
    depth, height, width = opened.shape
    if size in (None, (height, width)) and channels in (None, depth):
        return opened
    check_fits(opened.name, len(opened), (channels or depth, *(size or (height, width))))
    images, labels = opened.batch(range(len(opened)))
    converted = adapt(images, size=size, channels=channels)
    return MemorySet(converted, labels, name=opened.name, split=opened.split, classes=opened.classes)


def _existing(name: str) -> Path:
    path = Path(name)
    if kind_of(path):
        return path
    if "/" in name or "\\" in name or path.suffix:
        raise InputError(f"data: {shown(name)!r} does not exist (a path), nor is it one of {', '.join(SOURCES)}")
    raise unknown("data", name, SOURCES)
