"""What a source of images holds, told without stopping at what is damaged."""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import UInt8

from trilemma.data.catalogue import PLAIN, SOURCES, Opening, available_splits, title, tree_of
from trilemma.data.cifar10 import files_name, image_files
from trilemma.data.decoding import DamagedImageError, decode, header
from trilemma.data.images import ImageSet
from trilemma.data.trees import SPLIT_FOLDERS, Tree, read_tree


@dataclass(frozen=True)
class DataReport:
    """The findings of `check`.

    Attributes:
        name, split: what was looked at.
        count: images that can be read.
        sizes: (height, width) -> images, most frequent first.
        modes: Pillow's mode of the files (`L`, `RGB`, `RGBA`, `P`, `I;16`, ...) -> images.
        classes: class name -> images; None when unlabelled.
        damaged: (file, reason) of every file that cannot be read.
        duplicates: images whose pixels equal those of an earlier one.
        channels: 3 if any image has colour, else 1, whatever its file could hold.
        lowest, highest: extreme pixel values after decoding, 0..255; None without images.
        notes: one sentence for each thing to do something about.
    """

    name: str
    split: str
    count: int
    sizes: dict[tuple[int, int], int]
    modes: dict[str, int]
    classes: dict[str, int] | None
    damaged: tuple[tuple[str, str], ...]
    duplicates: int
    channels: int
    lowest: int | None
    highest: int | None
    notes: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether training can start on it as it is: some images, one size, nothing damaged."""
        return self.count > 0 and len(self.sizes) == 1 and not self.damaged

    def rows(self) -> list[tuple[str, str]]:
        """The report as (heading, text), for a table of two columns."""
        rows = [
            ("data", f"{self.name}:{self.split}"),
            ("images", str(self.count)),
            ("sizes", ", ".join(f"{h}x{w}: {n}" for (h, w), n in self.sizes.items()) or "none"),
            ("modes", ", ".join(f"{mode}: {n}" for mode, n in self.modes.items()) or "none"),
        ]
        if self.classes is None:
            rows.append(("classes", "unlabelled"))
        else:
            counts = ", ".join(f"{name}: {n}" for name, n in self.classes.items())
            rows.append(("classes", f"{len(self.classes)} ({counts})"))
        rows.append(("values", "none" if self.lowest is None else f"{self.lowest} to {self.highest}"))
        rows.append(("duplicates", str(self.duplicates)))
        rows += [("damaged", f"{file}: {reason}") for file, reason in self.damaged] or [("damaged", "none")]
        rows += [("note", note) for note in self.notes]
        return rows


def check(name: str, split: str = "all", opening: Opening = PLAIN) -> DataReport:
    """Read every image of a source, at its own size, and report; a damaged image file is listed and passed over.

    Args:
        name, split: as for `open_data`; `all` by default.
        opening: where they lie (`root`, `config`), and whether they are streamed.

    Raises:
        InputError: an unknown name, path or split, a folder or zip without images, or a container (zip, tar, .npz, IDX
            or CIFAR file) that is damaged itself.
    """
    if name == "cifar10" and opening.root is not None:
        store = image_files(opening.root)
        if store is not None:
            return _check_tree(read_tree(store), files_name(store), split)
    if name not in SOURCES and not name.lower().endswith(".npz"):
        tree = tree_of(name, split, config=opening.config, stream=opening.stream)
        report = _check_tree(tree, title(name), split)
        return _advised(report) if split == "all" and "test" not in tree.parts else report
    report = _check_set(Opening(opening.root)(name, split))
    return _advised(report) if split == "all" and "test" not in available_splits(name) else report


def _advised(report: DataReport) -> DataReport:
    """The report of data without a test split."""
    advice = "no test split: data.holdout=0.1 keeps a tenth of the images aside, to measure against"
    return replace(report, notes=(*report.notes, advice))


@dataclass
class _Tally:
    """What is counted while images go by."""

    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    modes: Counter[str] = field(default_factory=Counter)
    classes: Counter[int] = field(default_factory=Counter)
    damaged: list[tuple[str, str]] = field(default_factory=list)
    seen: set[bytes] = field(default_factory=set)
    count: int = 0
    lowest: int = 255
    highest: int = 0
    coloured: bool = False

    def add(self, image: UInt8[np.ndarray, "h w c"], mode: str, label: int | None) -> None:
        self.count += 1
        self.sizes[image.shape[0], image.shape[1]] += 1
        self.modes[mode] += 1
        if label is not None:
            self.classes[label] += 1
        self.lowest = min(self.lowest, int(image.min()))
        self.highest = max(self.highest, int(image.max()))
        self.coloured = self.coloured or bool((image != image[:, :, :1]).any())
        key = hashlib.blake2b(image.tobytes(), digest_size=16, key=str(image.shape).encode())
        self.seen.add(key.digest())

    def report(self, name: str, split: str, classes: tuple[str, ...] | None, notes: list[str]) -> DataReport:
        counts = None if classes is None else {kind: self.classes[k] for k, kind in enumerate(classes)}
        return DataReport(
            name=name,
            split=split,
            count=self.count,
            sizes=dict(self.sizes.most_common()),
            modes=dict(self.modes.most_common()),
            classes=counts,
            damaged=tuple(self.damaged),
            duplicates=self.count - len(self.seen),
            channels=3 if self.coloured else 1,
            lowest=self.lowest if self.count else None,
            highest=self.highest if self.count else None,
            notes=(*self._advice(counts), *notes),
        )

    def _advice(self, classes: dict[str, int] | None) -> list[str]:
        advice = []
        if self.damaged:
            advice.append(f"{len(self.damaged)} damaged: remove or replace before training")
        if len(self.sizes) > 1:
            smallest = min(min(size) for size in self.sizes)
            advice.append(f"sizes differ: data.size={smallest} crops and resizes all images to one size")
        if self.count and self.highest <= 1:
            advice.append("no value above 1: the images look like fractions that were not scaled to 0..255")
        if self.count and not self.coloured and any(mode not in ("1", "L", "I", "I;16", "LA") for mode in self.modes):
            advice.append("all images are grey, some in colour files: data.channels=1 is enough")
        empty = [kind for kind, n in (classes or {}).items() if n == 0]
        if empty:
            advice.append(f"no images of {', '.join(empty)}")
        return advice


def _check_tree(tree: Tree, name: str, split: str) -> DataReport:
    tally, store = _Tally(), tree.store
    for i in tree.chosen(split, name):
        file = store.label(tree.names[i])
        try:
            data = store.read(tree.names[i])
            mode, _ = header(io.BytesIO(data), file)
            tally.add(decode(data, file), mode, None if tree.labels is None else int(tree.labels[i]))
        except DamagedImageError as damage:
            tally.damaged.append((damage.file, damage.reason))
    notes = []
    tops = {file.split("/", 1)[0] for file in tree.names if "/" in file} & set(SPLIT_FOLDERS)
    if tops and None in tree.splits:
        stray = next(file for file in tree.names if file.split("/", 1)[0] not in SPLIT_FOLDERS)
        notes.append(f"{', '.join(sorted(tops))} are not taken as splits, as {stray} lies beside them")
    elif tree.labels is None and any("/" in file for file in tree.names):
        notes.append("sub-folders are not taken as classes (dataset.json says so, or images lie beside them)")
    return tally.report(name, "all" if None in tree.splits else split, tree.classes, notes)


def _check_set(opened: ImageSet) -> DataReport:
    tally = _Tally()
    mode = "L" if opened.shape[0] == 1 else "RGB"
    for start in range(0, len(opened), 256):
        images, labels = opened.batch(range(start, min(start + 256, len(opened))))
        for row, image in enumerate(images):
            tally.add(image, mode, None if labels is None else int(labels[row]))
    return tally.report(opened.name, opened.split, opened.classes, [])
