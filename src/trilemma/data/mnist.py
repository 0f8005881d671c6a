"""`mnist` and `fashion-mnist`: four gzipped IDX files each, downloaded or read from a folder."""

from __future__ import annotations

import math
import struct
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from trilemma.data.download import fetch
from trilemma.data.images import MemorySet, outlined, split_parts
from trilemma.data.stores import open_unpacked
from trilemma.errors import InputError
from trilemma.machine.untrusted import kind_of, read_bounded
from trilemma.registry import register

PARTS = ("train", "test")
_PREFIX = {"train": "train", "test": "t10k"}
_IMAGES, _LABELS = "images-idx3-ubyte", "labels-idx1-ubyte"

MIRRORS = {
    "mnist": (
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
        "https://raw.githubusercontent.com/fgnt/mnist/master/",
    ),
    "fashion-mnist": (
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    ),
}
HASHES = {
    "mnist": {
        "train-images-idx3-ubyte.gz": "md5:f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "train-labels-idx1-ubyte.gz": "md5:d53e105ee54ea40749a09fcbcd1e9432",
        "t10k-images-idx3-ubyte.gz": "md5:9fb629c4189551a2d022fa330f9573f3",
        "t10k-labels-idx1-ubyte.gz": "md5:ec29112dd5afa0611ce80d1b7f02629c",
    },
    "fashion-mnist": {
        "train-images-idx3-ubyte.gz": "md5:8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "train-labels-idx1-ubyte.gz": "md5:25c81989df183df01b3e8a0aad5dffbe",
        "t10k-images-idx3-ubyte.gz": "md5:bef4ecab320f06d8554ea6380940ec79",
        "t10k-labels-idx1-ubyte.gz": "md5:bb300cfdad3c16e7a12a480ee83cd310",
    },
}
CLASSES = {
    "mnist": tuple(str(k) for k in range(10)),
    "fashion-mnist": (
        "t-shirt",
        "trouser",
        "pullover",
        "dress",
        "coat",
        "sandal",
        "shirt",
        "sneaker",
        "bag",
        "ankle-boot",
    ),
}


@register("data", "mnist")
@outlined((1, 28, 28), CLASSES["mnist"], download="11 MB")
def open_mnist(split: str, *, root: str | None = None) -> MemorySet:
    """Handwritten digits, 1x28x28, 10 classes (train 60 000, test 10 000)."""
    return _open("mnist", split, root)


@register("data", "fashion-mnist")
@outlined((1, 28, 28), CLASSES["fashion-mnist"], download="30 MB")
def open_fashion_mnist(split: str, *, root: str | None = None) -> MemorySet:
    """Pieces of clothing, 1x28x28, 10 classes (train 60 000, test 10 000)."""
    return _open("fashion-mnist", split, root)


def _open(name: str, split: str, root: str | None) -> MemorySet:
    """Those of the folder `root`, which holds the IDX files, gzipped or not; None downloads them once, checked by hash.
    `all` is `train` and then `test`.

    Raises:
        InputError: no such split, a file that is missing, damaged or of another kind, or a failed download.
    """
    parts = split_parts(name, split, PARTS)
    images = [read_idx(_file(name, f"{_PREFIX[part]}-{_IMAGES}", root), 3) for part in parts]
    labels = [read_idx(_file(name, f"{_PREFIX[part]}-{_LABELS}", root), 1) for part in parts]
    for pixels, numbers, part in zip(images, labels, parts, strict=True):
        if len(pixels) != len(numbers):
            raise InputError(f"{name}:{part}: {len(pixels)} images but {len(numbers)} labels")
    return MemorySet(
        np.concatenate(images)[:, :, :, None],
        np.concatenate(labels).astype(np.int64),
        name=name,
        split=split,
        classes=CLASSES[name],
    )


def read_idx(path: Path, dims: int) -> UInt8[np.ndarray, ...]:
    """The bytes of an IDX file of `dims` dimensions, gzipped or not: magic 0 0 8 dims, big-endian sizes, values.

    Raises:
        InputError: the file cannot be read, is no such IDX file, or is cut short.
    """
    try:
        with open_unpacked(path) as stream:
            content = read_bounded(stream)
    except Exception as error:  # a damaged .gz raises all there is
        raise InputError(f"{path}: cannot be read ({error})") from error
    start = 4 + 4 * dims
    if len(content) < start or content[:4] != bytes((0, 0, 8, dims)):
        raise InputError(f"{path}: not an IDX file of bytes in {dims} dimensions")
    shape = struct.unpack(f">{dims}I", content[4:start])
    expected = math.prod(shape)
    if len(content) - start != expected:
        raise InputError(f"{path}: holds {len(content) - start} values, its header promises {expected}")
    return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape)


def _file(name: str, file: str, root: str | None) -> Path:
    if root is None:
        zipped = f"{file}.gz"
        return fetch([mirror + zipped for mirror in MIRRORS[name]], HASHES[name][zipped], f"{name}/{zipped}")
    for candidate in (Path(root) / f"{file}.gz", Path(root) / file):
        if kind_of(candidate) == "file":
            return candidate
    raise InputError(f"data.root: {root} has no {file}.gz (nor {file}), which {name} needs")
