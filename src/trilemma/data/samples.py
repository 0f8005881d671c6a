"""Sample sets at the edge: a folder of PNG files or one `.npz`, written whole or not at all, and grids to look at."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt8
from PIL import Image

from trilemma.data.images import check_images
from trilemma.data.npz import read_npz
from trilemma.data.trees import open_store, open_tree
from trilemma.errors import InputError
from trilemma.untrusted import kind_of

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
    with _writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        if kind == "folder" and any(out.iterdir()):
            raise InputError(f"out: {out} is not empty, expected a new or empty folder, or an .npz file")
        with tempfile.TemporaryFile(dir=out.parent):
            pass
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
    with _writing(out):
        if _is_npz(out):
            arrays = (images,) if labels is None else (images, labels)  # NumPy calls them arr_0, arr_1
            with _replacing(out) as temporary, temporary.open("wb") as stream:
                np.savez_compressed(stream, *arrays)
        else:
            _write_folder(out, images, labels)
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
    opened = open_tree(open_store(source), name=source.name, split="all")
    return opened.batch(range(len(opened)))


def image_grid(
    images: UInt8[np.ndarray, "n h w c"], columns: int, *, padding: int = 2, fill: int = 255
) -> UInt8[np.ndarray, "gh gw c"]:
    """Images side by side, `columns` to a row, row by row, `padding` pixels of grey value `fill` between and around.

    Raises:
        InputError: no images, not uint8 NHWC, or `columns` below 1.
    """
    check_images(images, "image_grid")
    if not len(images) or columns < 1:
        raise InputError(f"image_grid: {len(images)} images in {columns} columns, expected at least one of each")
    count, height, width, channels = images.shape
    columns = min(columns, count)
    rows = -(-count // columns)
    step_y, step_x = height + padding, width + padding
    grid = np.full((rows * step_y + padding, columns * step_x + padding, channels), fill, dtype=np.uint8)
    for i, image in enumerate(images):
        top, left = (i // columns) * step_y + padding, (i % columns) * step_x + padding
        grid[top : top + height, left : left + width] = image
    return grid


def write_png(path: str | Path, image: UInt8[np.ndarray, "h w c"]) -> Path:
    """Write one grey or RGB image as PNG, complete or not at all. Missing parent folders are created.

    Raises:
        InputError: `path` cannot be written, or the image is not uint8 HWC with 1 or 3 channels.
    """
    out = Path(path)
    check_images(image[None], "write_png")
    with _writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        with _replacing(out) as temporary:
            _save_png(temporary, image)
    return out


def _is_npz(path: Path) -> bool:
    return path.suffix.lower() == ".npz"


def _save_png(path: Path, image: UInt8[np.ndarray, "h w c"]) -> None:
    Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).save(path, format="PNG")


def _write_folder(out: Path, images: np.ndarray, labels: np.ndarray | None) -> None:
    digits = max(6, len(str(len(images) - 1)))
    temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        names = [f"{i:0{digits}d}.png" for i in range(len(images))]
        for name, image in zip(names, images, strict=True):
            _save_png(temporary / name, image)
        if labels is not None:
            pairs = [[name, int(label)] for name, label in zip(names, labels, strict=True)]
            (temporary / "dataset.json").write_text(json.dumps({"labels": pairs}), encoding="utf-8")
        temporary.chmod(0o777 & ~_umask())
        if out.is_dir():
            out.rmdir()
        os.replace(temporary, out)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


@contextmanager
def _replacing(out: Path) -> Iterator[Path]:
    """A temporary file beside `out` that takes its place when the block ends well, and vanishes when it doesn't."""
    handle, name = tempfile.mkstemp(prefix=f".{out.name}-", dir=out.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        os.replace(temporary, out)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _umask() -> int:
    # The only way to read it is to set it; temporary files are private, results are not.
    mask = os.umask(0)
    os.umask(mask)
    return mask


@contextmanager
def _writing(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"out: {out} cannot be written ({error.strerror or error})") from error
