"""Images packed into one file that opens fast, at the size that they are learnt at: what EDM's dataset tool does."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from trilemma.data.catalogue import Opening, available_splits
from trilemma.data.images import ImageSet
from trilemma.errors import InputError
from trilemma.machine.files import check_writable, replacing, write_npz
from trilemma.machine.progress import progress
from trilemma.process import png

BATCH = 256


def pack(name: str, out: str | Path, opening: Opening | None = None, split: str | None = None) -> list[ImageSet]:
    """Write images, as they are opened, to a .zip or an .npz, whole or not at all; the same bytes for the same images.

    A zip holds uncompressed PNG, `[SPLIT/]00000/img00000000.png` and on, with `dataset.json`: the `labels` that
    StyleGAN's and EDM's tools write (null: unlabelled), and `classes`, their names. It opens to what was packed, split
    by split, with the same fingerprints. An .npz holds `arr_0`, and `arr_1` with the classes' numbers.

    Args:
        name, opening: as for `open_data`.
        out: the file; its folder is made.
        split: one to pack, which the file then does not name; None: all of them.

    Returns:
        What was packed: an image set for each split.

    Raises:
        InputError: as `open_data`; `out` cannot be written, or is none of the two; several splits for an .npz.
    """
    path, opening = Path(out), opening or Opening()
    kind = path.suffix.lower()
    if kind not in (".zip", ".npz"):
        raise InputError(f"out: {path}, expected a name that ends in .zip or .npz")
    check_writable(path, source=name)
    parts = (split,) if split is not None else available_splits(name, opening.config, opening.holdout)[:-1]
    if kind == ".npz" and len(parts) > 1:
        raise InputError(
            f"out: {path} has no splits, and {name} has {', '.join(parts)}: name one, as {name}:{parts[0]}"
        )
    sets = [opening(name, part) for part in parts]
    if kind == ".npz":
        images, labels = sets[0].batch(range(len(sets[0])))
        write_npz(path, {"arr_0": images} if labels is None else {"arr_0": images, "arr_1": labels})
        return sets
    with replacing(path) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
        labels_of: list[list[object]] = []
        folders = [f"{one.split}/" if split is None and one.split != "all" else "" for one in sets]
        with progress(f"packing {path.name}", sum(map(len, sets)), "images") as advance:
            for folder, one in zip(folders, sets, strict=True):
                for i, image, label in _each(one):
                    member = f"{folder}{i // 1000:05d}/img{i:08d}.png"
                    _write(archive, member, png(image, level=0))
                    labels_of.append([member, label])
                    advance(len(labels_of), "")
        classes = sets[0].classes
        table = {"labels": None} if classes is None else {"labels": labels_of, "classes": classes}
        _write(archive, "dataset.json", json.dumps(table).encode())
    return sets


def _each(images: ImageSet) -> Iterator[tuple[int, np.ndarray, int | None]]:
    for start in range(0, len(images), BATCH):
        pixels, labels = images.batch(range(start, min(start + BATCH, len(images))))
        for row, image in enumerate(pixels):
            yield start + row, image, None if labels is None else int(labels[row])


def _write(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    """A member that says nothing of when and where it was written."""
    member = zipfile.ZipInfo(name)
    member.create_system, member.external_attr = 3, 0o644 << 16
    archive.writestr(member, content)
