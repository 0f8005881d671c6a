"""Images in one `.npz`: `arr_0` uint8 NHWC and, where there are labels, `arr_1`, as the ADM evaluation tools read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt8

from trilemma.data.images import CLASS_LIMIT
from trilemma.errors import InputError, shown
from trilemma.machine.untrusted import open_arrays
from trilemma.process import check_images


def read_npz(path: Path) -> tuple[UInt8[np.ndarray, "n h w c"], Int64[np.ndarray, " n"] | None]:
    """The images and labels of `path`. Grey images may come as (n, h, w). Nothing in the file can run code.

    Raises:
        InputError: the file is damaged, larger than it may be, holds pickled objects, or its arrays are of another
            kind.
    """
    with open_arrays(path) as stored:
        if "arr_0" not in stored:
            raise InputError(f"{path}: has no arr_0 with the images (it holds {shown(', '.join(stored)) or 'nothing'})")
        arrays = {key: stored[key] for key in ("arr_0", "arr_1") if key in stored}
    images = arrays["arr_0"]
    if images.ndim == 3:
        images = images[:, :, :, None]
    check_images(images, f"{path}: arr_0")
    return images, _labels(path, arrays.get("arr_1"), len(images))


def _labels(path: Path, labels: np.ndarray | None, count: int) -> Int64[np.ndarray, " n"] | None:
    if labels is None:
        return None
    if labels.shape != (count,) or labels.dtype.kind not in "iu":
        found = f"{labels.dtype} {labels.shape}"
        raise InputError(f"{path}: arr_1 is {found}, expected whole-number labels of shape ({count},)")
    if count and int(labels.min()) < 0:
        raise InputError(f"{path}: arr_1 holds the label {int(labels.min())}, expected labels from 0")
    if count and int(labels.max()) >= CLASS_LIMIT:
        raise InputError(f"{path}: arr_1 holds the label {int(labels.max())}, expected labels below {CLASS_LIMIT}")
    return labels.astype(np.int64)
