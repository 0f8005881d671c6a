"""How a set of images is opened: by the name of a source or by a path.

A source is a part of the kind `data`: a function (split) -> ImageSet for the splits train, test and `all` of them (or
others that it is `outlined` with), with `root` or `size` among its keyword-only parameters if it reads files that may
lie elsewhere, or draws its images at any size.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from trilemma.data.decoding import Resize, Size, adapt, check_channels, check_size
from trilemma.data.holdout import check_holdout, has_splits, held_out, of_pixels
from trilemma.data.hub import hub_splits, is_hub, open_hub
from trilemma.data.images import SPLITS, ImageSet, MemorySet, Outline, check_fits, number_classes, split_parts
from trilemma.data.npz import read_npz
from trilemma.data.shards import are_shards, open_shards
from trilemma.data.trees import Tree, open_store, open_tree, read_tree
from trilemma.errors import InputError, shown
from trilemma.machine.untrusted import kind_of
from trilemma.registry import registry

SOURCES = registry("data")
"""The named sources. Besides these, what `open_data` says opens."""

IMAGENET_CLASSES = 1000


def open_data(
    name: str,
    *,
    split: str = "train",
    root: str | None = None,
    size: Size | None = None,
    channels: int | None = None,
    resize: Resize = "bicubic",
    holdout: float = 0.0,
    config: str | None = None,
    stream: bool = False,
) -> ImageSet:
    """Open a set of images.

    Args:
        name: a name in `SOURCES`; the path of a folder, a .zip, an .npz or a .tar, WebDataset's shard, of which a
            folder or braces name several, and URLs stream them (see `streams.order`); or `hub:NAME`, of the Hugging
            Face hub. A name wins over a folder called like it; write `./mnist` for the folder.
        split: `train`, `test` or whatever split folders there are, or `all`. A path without split folders is one
            whole: `train` and `all` both open it, and its `split` is `all`; unless images are held out of it.
        root: for a source that takes one, as `mnist` and `cifar10` do, where its files lie already; otherwise they are
            downloaded.
        size: side or (height, width) to crop (centred) and resize to; None keeps each image,
            and files of several sizes are refused. A source that draws its images, as `shapes`, draws them at it.
        channels: 1 (grey) or 3 (RGB); None keeps what the images have.
        resize: `bicubic` (antialiased), or `area`, as the low images of an upsampler's training are (`learner.low`).
        holdout: the share, in [0, 1), of the images of data without splits that are its `test` split, and `train` has
            not: those whose file's bytes (arrays: pixels) hash low, so that each stays on its side while the data grow.
        config: which of the configurations of `hub:NAME`, where there are several.
        stream: read `hub:NAME` as it is needed, and keep nothing on the disk: see `streams.order`.

    Raises:
        InputError: an unknown name, split or path, an option out of range, or a file that cannot be used; the message
            names it.
    """
    pair = check_size(size)
    check_channels(channels)
    check_holdout(holdout)
    if not is_hub(name) and (config is not None or stream):
        raise InputError(f"data.{'stream' if stream else 'config'}: is for hub:NAME, and {shown(name)!r} is none")
    if root is not None and "root" not in _taken(name):
        takers = [source for source in SOURCES if "root" in _taken(source)]
        raise InputError(f"data.root: {name!r} takes none (only {', '.join(takers)} do)")
    if name in SOURCES:
        splits = available_splits(name)[:-1]
        if holdout:
            raise has_splits(holdout, name, splits)
        split_parts(name, split, splits)
        given = {"root": root, "size": pair}
        chosen = {key: value for key, value in given.items() if value is not None and key in _taken(name)}
        return _adapted(SOURCES[name](split, **chosen), pair, channels, resize)
    if _is_npz(name):
        label = title(name)
        split_parts(label, split, SPLITS if holdout else SPLITS[:1])
        images, labels = read_npz(Path(name))
        classes = None if labels is None else number_classes(labels, label)
        if holdout and split != "all":
            chosen = held_out(map(of_pixels, images), holdout, label) == (split == "test")
            images, labels = images[chosen], None if labels is None else labels[chosen]
        part = split if holdout else "all"
        return _adapted(MemorySet(images, labels, name=label, split=part, classes=classes), pair, channels, resize)
    tree = tree_of(name, split, holdout, config, stream)
    return open_tree(tree, name=title(name), split=split, size=pair, channels=channels, resize=resize)


def tree_of(
    name: str, split: str = "all", holdout: float = 0.0, config: str | None = None, stream: bool = False
) -> Tree:
    """What there is at a path that is no .npz, in shards or on the hub; of the hub, in `split` alone. Arguments and
    errors as of `open_data`."""
    if is_hub(name):
        return read_tree(open_hub(name, split, config, stream, holdout), holdout)
    return read_tree(open_shards(name) if are_shards(name) else open_store(_existing(name)), holdout)


def title(name: str) -> str:
    """What results call data that are no named source."""
    return name if is_hub(name) or are_shards(name) else Path(name).resolve().name


@dataclass(frozen=True)
class Opening:
    """How data are opened: the options of `open_data`, which says what they are, in one."""

    root: str | None = None
    size: Size | None = None
    channels: int | None = None
    resize: Resize = "bicubic"
    holdout: float = 0.0
    config: str | None = None
    stream: bool = False

    def __call__(self, name: str, split: str = "train") -> ImageSet:
        return open_data(name, split=split, **vars(self))

    def fitted(self, images: ImageSet) -> ImageSet:
        """Images that are open already, of the size and channels that these would have."""
        return _adapted(images, check_size(self.size), self.channels, self.resize)


PLAIN = Opening()


def counted(name: str, split: str, opening: Opening = PLAIN) -> tuple[int, Int64[np.ndarray, " n"] | None]:
    """How many images a split has, and their labels if they have some, without decoding files. Raises InputError as
    `open_data` does."""
    if name in SOURCES or _is_npz(name):
        images = opening(name, split)
        return len(images), images.labels
    tree = tree_of(name, split, opening.holdout, opening.config, opening.stream)
    at = tree.chosen(split, title(name))
    return len(at), None if tree.labels is None else tree.labels[at]


def outline(name: str, *, size: Size | None = None, channels: int | None = None) -> Outline:
    """Shape and classes of the images that `open_data` would give, for building networks: of a named source without
    its files. A path is looked into; one that is called imagenet need not exist, if `size` is given.

    Raises:
        InputError: an unknown name or path, or an option out of range.
    """
    pair = check_size(size)
    check_channels(channels)
    known = _outlined(name)
    if known is None and pair is not None and kind_of(name) is None and Path(name).name == "imagenet":
        known = Outline(name, (3, *pair), tuple(str(k) for k in range(IMAGENET_CLASSES)))
    if known is None:
        opened = open_data(name, split="all", size=size, channels=channels)
        return Outline(name, opened.shape, opened.classes)
    depth, height, width = known.shape
    return replace(known, name=name, shape=(channels or depth, *(pair or (height, width))))


def available_splits(name: str, config: str | None = None, holdout: float = 0.0) -> tuple[str, ...]:
    """The splits that `open_data(name, ...)` accepts, `all` last.

    Raises:
        InputError: an unknown name or path, or one without images.
    """
    if name in SOURCES:
        known = _outlined(name)
        return (*(SPLITS if known is None else known.splits), "all")
    if holdout:
        return (*SPLITS, "all")
    if is_hub(name):
        return (*hub_splits(name, config), "all")
    return ("train", "all") if _is_npz(name) else (*tree_of(name).parts, "all")


def parse_reference(text: str) -> tuple[str, str]:
    """Split `DATA[:SPLIT]` into name and split; without a split, `train`. A path that exists is taken whole, and so are
    `hub:NAME` and what only looks like a drive (`C:\\images`).

    Raises:
        InputError: nothing stands before or after the colon.
    """
    head, colon, tail = text.rpartition(":")
    drive = len(head) == 1 and head.isalpha()
    if not colon or drive or head == "hub" or "/" in tail or "\\" in tail or kind_of(text):
        if not text:
            raise InputError("data: '' is empty, expected DATA or DATA:SPLIT, such as mnist5k:test")
        return text, "train"
    if not head or not tail:
        raise InputError(f"data: {text!r}, expected DATA or DATA:SPLIT, such as mnist5k:test")
    return head, tail


def _outlined(name: str) -> Outline | None:
    """What a named source says of itself, if it does."""
    return getattr(SOURCES[name], "outline", None) if name in SOURCES else None


def _taken(name: str) -> frozenset[str]:
    """The arguments that a source takes besides the split; a path takes none."""
    return frozenset(inspect.signature(SOURCES[name]).parameters) if name in SOURCES else frozenset()


def _adapted(opened: ImageSet, size: tuple[int, int] | None, channels: int | None, resize: Resize) -> ImageSet:
    """`opened` at another size or channel count, in memory."""
    depth, height, width = opened.shape
    if size in (None, (height, width)) and channels in (None, depth):
        return opened
    check_fits(opened.name, len(opened), (channels or depth, *(size or (height, width))))
    images, labels = opened.batch(range(len(opened)))
    converted = adapt(images, size=size, channels=channels, resize=resize)
    return MemorySet(converted, labels, name=opened.name, split=opened.split, classes=opened.classes)


def _is_npz(name: str) -> bool:
    return name.lower().endswith(".npz") and kind_of(name) == "file"


def _existing(name: str) -> Path:
    path = Path(name)
    if kind_of(path):
        return path
    if "/" in name or "\\" in name or path.suffix:
        raise InputError(f"data: {shown(name)!r} does not exist (a path), nor is it one of {', '.join(SOURCES)}")
    raise InputError(f"{SOURCES.unknown(name)}, and there is no such file or folder")
