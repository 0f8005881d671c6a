"""`cifar10`: the binary version, downloaded or read from a path, or a copy of it as image files."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np

from trilemma.data.download import fetch
from trilemma.data.images import ImageSet, MemorySet, outlined, split_parts
from trilemma.data.stores import FolderStore, Store, TarStore, ZipStore
from trilemma.data.trees import open_tree, read_tree
from trilemma.errors import InputError
from trilemma.machine.untrusted import kind_of
from trilemma.registry import register

PARTS = ("train", "test")
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
FILES = {"train": tuple(f"data_batch_{k}.bin" for k in range(1, 6)), "test": ("test_batch.bin",)}
ARCHIVE = "cifar-10-binary.tar.gz"
URLS = (f"https://www.cs.toronto.edu/~kriz/{ARCHIVE}",)
HASH = "md5:c32a1d4ab5d03f1284b67883e8d87530"
_FOLDER = "cifar-10-batches-bin"
_RECORD = 1 + 3 * 32 * 32


@register("data", "cifar10")
@outlined((3, 32, 32), CLASSES, download="162 MB")
def open_cifar10(split: str, *, root: str | None = None) -> ImageSet:
    """Small photographs, 3x32x32, 10 classes (train 50 000, test 10 000).

    Only the binary version is read; the Python version is a pickle, which could run code.

    Args:
        split: `train`, `test`, or `all`: both in that order.
        root: the folder `cifar-10-batches-bin` or one that holds it or its archive; the archive
            `cifar-10-binary.tar.gz` itself; or a folder, zip or tar with image files as train/CLASS/*, test/CLASS/*.
            A copy of JPEG files is named `cifar10-jpeg`, because its pixels are not CIFAR-10's. None downloads the
            archive once, checked by hash.

    Raises:
        InputError: no such split, nothing usable at `root`, a damaged file, or a failed download.
    """
    parts = split_parts("cifar10", split, PARTS)
    store = _store(fetch(URLS, HASH, f"cifar10/{ARCHIVE}") if root is None else Path(root))
    members = {Path(name).name: name for name in store.names}
    if _is_binary(members):
        return _binary(store, members, split, parts)
    return _images(store, split)


def image_files(root: str) -> Store | None:
    """The store at `root` when it holds CIFAR-10 as image files, None when it holds the binary version.

    Raises:
        InputError: nothing usable at `root`.
    """
    store = _store(Path(root))
    return None if _is_binary({Path(name).name for name in store.names}) else store


def files_name(store: Store) -> str:
    """What a copy made of image files is called: `cifar10-jpeg` if any of them is JPEG, else `cifar10`."""
    lossy = any(name.lower().endswith((".jpg", ".jpeg")) for name in store.names)
    return "cifar10-jpeg" if lossy else "cifar10"


def _is_binary(files: Collection[str]) -> bool:
    if any(file in files for part in FILES.values() for file in part):
        return True
    if "data_batch_1" in files or "test_batch" in files:
        raise InputError(f"CIFAR-10's Python version is a pickle and is not read; give the binary version, {ARCHIVE}")
    return False


def _store(path: Path) -> Store:
    """The store at `path`; a folder that holds nothing but one archive stands for it."""
    kind = kind_of(path)
    if kind == "folder":
        inside = [path / ARCHIVE] if (path / ARCHIVE).is_file() else sorted(path.glob("*.tar*"))
        return TarStore(inside[0]) if len(inside) == 1 else FolderStore(path)
    if path.suffix.lower() == ".zip":
        return ZipStore(path)
    if kind is None:
        raise InputError(
            f"data.root: {path} does not exist; expected {ARCHIVE}, its folder, or a folder of image files"
        )
    return TarStore(path)


def _binary(store: Store, members: dict[str, str], split: str, parts: tuple[str, ...]) -> MemorySet:
    """Records of one label byte and 3x32x32 pixels, plane by plane."""
    blocks = []
    for file in (file for part in parts for file in FILES[part]):
        if file not in members:
            raise InputError(f"{store.where}: has no {file}, which cifar10:{split} needs")
        data = store.read(members[file])
        if not data or len(data) % _RECORD:
            raise InputError(f"{store.label(members[file])}: {len(data)} bytes, expected a multiple of {_RECORD}")
        blocks.append(np.frombuffer(data, dtype=np.uint8).reshape(-1, _RECORD))
    records = np.concatenate(blocks)
    pixels = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    labels = records[:, 0].astype(np.int64)
    return MemorySet(np.ascontiguousarray(pixels), labels, name="cifar10", split=split, classes=CLASSES)


def _images(store: Store, split: str) -> ImageSet:
    tree = read_tree(store)
    if tree.classes != CLASSES or not set(PARTS) <= set(tree.parts):
        raise InputError(
            f"{store.where}: expected train/CLASS/* and test/CLASS/* with the classes {', '.join(CLASSES)}"
        )
    opened = open_tree(tree, name=files_name(store), split=split)
    if opened.shape != (3, 32, 32):
        raise InputError(f"{store.where}: images are {opened.shape}, expected (3, 32, 32)")
    return opened
