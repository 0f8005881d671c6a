"""Sample sets at the edge: a folder of PNG files or one `.npz`, written whole or not at all, and pictures as PNG."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt8

from trilemma.data.npz import read_npz
from trilemma.data.trees import open_store, open_tree, read_tree
from trilemma.errors import InputError
from trilemma.machine.files import check_writable, replacing, write_npz
from trilemma.machine.untrusted import kind_of
from trilemma.process import check_images, png

_OTHER_FILES = {".png", ".jpg", ".jpeg", ".zip", ".npy", ".pt", ".pth", ".json", ".html", ".txt", ".yaml"}


def check_out(path: str | Path) -> Path:
    """Make sure, before any work is spent on it, that samples can be written to `path`.

    An `.npz` may exist, it is replaced; a folder must be new or empty, so that old samples don't mix with new ones.
    Missing parent folders are created.

    Raises:
        InputError: `path` cannot be written, holds something already, or has the suffix of another kind of file.
    """
    out = Path(path)
    if out.suffix.lower() in _OTHER_FILES:
        raise InputError(f"out: {out} is neither an .npz file nor a folder")
    kind = kind_of(out)
    if _is_npz(out) and kind == "folder":
        raise InputError(f"out: {out} is a folder, expected an .npz file")
    if not _is_npz(out) and kind == "file":
        raise InputError(f"out: {out} is a file, expected a folder or a name ending in .npz")
    if out.is_dir() and any(out.iterdir()):
        raise InputError(f"out: {out} is not empty, expected a new or empty folder, or an .npz file")
    check_writable(out / "dataset.json" if out.is_dir() else out)
    return out


def write_samples(
    path: str | Path, images: UInt8[np.ndarray, "n h w c"], labels: Int64[np.ndarray, " n"] | None = None
) -> Path:
    """Write images 0..255 and their labels to an `.npz` (`arr_0`, `arr_1`) or, for any other name, to a folder of
    PNG files numbered from 0, with the labels in StyleGAN's `dataset.json`. The result appears complete or not at all.

    Raises:
        InputError: as `check_out`; or images that are not uint8 NHWC, or labels that are not int64 (n,).
    """
    check_images(images, "samples")
    if labels is not None and (labels.dtype != np.int64 or labels.shape != (len(images),)):
        raise InputError(f"samples: labels are {labels.dtype} {labels.shape}, expected int64 ({len(images)},)")
    out = check_out(path)
    if _is_npz(out):
        arrays = {"arr_0": images} if labels is None else {"arr_0": images, "arr_1": labels}
        return write_npz(out, arrays, compressed=True)
    with replacing(out) as partial:
        _write_folder(partial, images, labels)
    return out


def read_samples(path: str | Path) -> tuple[UInt8[np.ndarray, "n h w c"], Int64[np.ndarray, " n"] | None]:
    """Images 0..255 and labels, where there are any, from an `.npz`, a folder or a zip of images (in name order).

    Raises:
        InputError: it does not exist, a file in it is damaged, or dtype, shape or sizes don't fit.
    """
    source = Path(path)
    kind = kind_of(source)
    if kind is None:
        raise InputError(f"samples: {source} does not exist")
    if kind == "file" and _is_npz(source):
        return read_npz(source)
    opened = open_tree(read_tree(open_store(source)), name=source.name, split="all")
    return opened.batch(range(len(opened)))


def write_png(path: str | Path, image: UInt8[np.ndarray, "h w c"]) -> Path:
    """Write one grey or RGB image as PNG, complete or not at all. Missing parent folders are created.

    Raises:
        InputError: `path` cannot be written, or the image is not uint8 HWC with 1 or 3 channels.
    """
    out, content = Path(path), png(image)
    with replacing(out) as partial:
        partial.write_bytes(content)
    return out


def check_png(path: Path | None, what: str) -> None:
    """Make sure, before any work is spent on it, that a picture can be written to `path`, if there is one.

    Raises:
        InputError: it does not end in .png, or cannot be written; `what` is what the option is called.
    """
    if path is None:
        return
    check_writable(path, what, suffix=".png")


def _is_npz(path: Path) -> bool:
    return path.suffix.lower() == ".npz"


def _write_folder(folder: Path, images: np.ndarray, labels: np.ndarray | None) -> None:
    folder.mkdir()
    digits = max(6, len(str(len(images) - 1)))
    names = [f"{i:0{digits}d}.png" for i in range(len(images))]
    for name, image in zip(names, images, strict=True):
        (folder / name).write_bytes(png(image))
    if labels is not None:
        pairs = [[name, int(label)] for name, label in zip(names, labels, strict=True)]
        (folder / "dataset.json").write_text(json.dumps({"labels": pairs}), encoding="utf-8")
