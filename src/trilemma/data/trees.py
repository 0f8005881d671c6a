"""Image folders and zips: which files belong to which split and class, and the sets made of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt8

from trilemma.data.decoding import Resize, blaming, decode, header, native_channels
from trilemma.data.holdout import has_splits, held_out, of_bytes
from trilemma.data.images import CLASS_LIMIT, MEMORY_LIMIT, ImageSet, MemorySet, number_classes, split_parts
from trilemma.data.shards import ShardStore
from trilemma.data.stores import FolderStore, LabelledStore, Store, ZipStore
from trilemma.data.streams import StreamStore, order
from trilemma.errors import InputError, shown
from trilemma.machine.untrusted import kind_of, parse_json

SPLIT_FOLDERS = ("train", "val", "valid", "validation", "test")


@dataclass(frozen=True)
class Tree:
    """The images of a store, in order, each with its split (None: the store has none) and class number. With images
    held out, `splits` says train or test of each.

    Labels come from `dataset.json` where there is one (the list of [file, number] pairs that StyleGAN's tools write;
    null: unlabelled; `classes` beside it names them), else from the sub-folders: the first one below the split is the
    class. Folders that all images share are no classes, and a tree with an image outside the class folders is
    unlabelled. Shards and tables have labels, and maybe splits, of their own.
    """

    store: Store
    names: tuple[str, ...]
    splits: tuple[str | None, ...]
    labels: Int64[np.ndarray, " n"] | None
    classes: tuple[str, ...] | None

    @property
    def parts(self) -> tuple[str, ...]:
        """The splits there are; `("train",)` for a tree without split folders."""
        present = set(self.splits)
        known = [split for split in SPLIT_FOLDERS if split in present]
        return (*known, *sorted(split for split in present - {*known} if split is not None)) or ("train",)

    def chosen(self, split: str, what: str) -> list[int]:
        """Positions of the images of `split`; `train` of a tree without split folders is all of it.

        Raises:
            InputError: there is no such split.
        """
        parts = split_parts(what, split, self.parts)
        return [i for i, part in enumerate(self.splits) if part is None or part in parts]


def open_store(path: Path) -> Store:
    """The folder, zip or tar at `path`; a folder of tars without images beside them is WebDataset's shards.

    Raises:
        InputError: it is none of them.
    """
    if kind_of(path) == "folder":
        folder = FolderStore(path)
        shards = [path / name for name in folder.names if name.lower().endswith(".tar")]
        return ShardStore(path, shards) if shards and not folder.has_images() else folder
    if path.suffix.lower() == ".zip":
        return ZipStore(path)
    if path.suffix.lower() == ".tar":
        return ShardStore(path, [path])
    raise InputError(f"{path}: expected a folder of images, a .zip or a .tar of them")


def read_tree(store: Store, holdout: float = 0.0) -> Tree:
    """Sort the images of `store` into splits and classes, a share `holdout` of those without a split into `test`.

    Raises:
        InputError: no images, a `dataset.json` that cannot be used, or images to be held out of data that has splits.
    """
    names, where = store.images(), str(store.where)
    base = _shared_folder(names)
    inner = [name[len(base) :] for name in names]
    own = store if isinstance(store, LabelledStore) else None
    split_tops = all("/" in name and name.split("/", 1)[0] in SPLIT_FOLDERS for name in inner)
    splits: tuple[str | None, ...] = tuple(name.split("/", 1)[0] if split_tops else None for name in inner)
    if own is not None and own.splits is not None:
        splits = own.splits
    if holdout:
        if None not in splits:
            raise has_splits(holdout, where, sorted({str(split) for split in splits}))
        held = held_out((of_bytes(store.read(name)) for name in names), holdout, where)
        splits = tuple("test" if out else "train" for out in held)
    table = None if own is not None else _label_file(store, base)
    labels, classes = None, None
    if own is not None:
        labels = None if (own.labels < 0).any() else own.labels
    elif table is not None:
        labels, classes = _listed_labels(store, names, table)
    else:
        labels, classes = _folder_labels([name.split("/", 1)[1] for name in inner] if split_tops else inner)
    if labels is not None and classes is None:
        classes = (own.classes if own is not None else None) or number_classes(labels, where)
    return Tree(store, tuple(names), splits, labels, classes)


class FileSet(ImageSet):
    """Images decoded from their files whenever a batch asks for them."""

    def __init__(
        self,
        store: Store,
        names: list[str],
        shape: tuple[int, int, int],
        *,
        name: str,
        split: str,
        labels: Int64[np.ndarray, " n"] | None,
        classes: tuple[str, ...] | None,
        resize: Resize = "bicubic",
    ) -> None:
        super().__init__(name, split, shape, count=len(names), labels=labels, classes=classes, in_memory=False)
        self._store, self._names, self._resize = store, names, resize
        self.streamed = isinstance(store, StreamStore)

    def order(self, rng: np.random.Generator) -> Int64[np.ndarray, " n"]:
        if not isinstance(self._store, StreamStore):
            return super().order(rng)
        return order(self._store.shard_of(np.array(self._names, dtype=np.int64)), rng)

    def _images(self, indices: Int64[np.ndarray, " n"]) -> UInt8[np.ndarray, "n h w c"]:
        channels, height, width = self.shape
        out = np.empty((len(indices), height, width, channels), dtype=np.uint8)
        for row in np.argsort(indices):  # forward, for those that read no other way
            file = self._names[indices[row]]
            data = self._store.read(file)
            out[row] = decode(
                data, self._store.label(file), size=(height, width), channels=channels, resize=self._resize
            )
        return out


def open_tree(
    tree: Tree,
    *,
    name: str,
    split: str,
    size: tuple[int, int] | None = None,
    channels: int | None = None,
    resize: Resize = "bicubic",
) -> ImageSet:
    """The images of `split`: in memory when their pixels take less than `MEMORY_LIMIT`, else by the batch.

    Without `size` all images must have one size; without `channels` they become RGB unless all of them are grey.

    Raises:
        InputError: no such split, mixed sizes (two files are named), or a damaged file (named).
    """
    at, store = tree.chosen(split, name), tree.store
    names = [tree.names[i] for i in at]
    if size is None or channels is None:
        found_size, found_channels = _common(store, names, size is None)
        size, channels = size or found_size, channels or found_channels
    labels = None if tree.labels is None else tree.labels[at]
    shown = "all" if None in tree.splits else split
    files = FileSet(
        store, names, (channels, *size), name=name, split=shown, labels=labels, classes=tree.classes, resize=resize
    )
    if len(names) * channels * size[0] * size[1] >= MEMORY_LIMIT:
        return files
    decoded, _ = files.batch(range(len(names)))
    return MemorySet(decoded, labels, name=name, split=shown, classes=tree.classes)


def _common(store: Store, names: list[str], alike: bool) -> tuple[tuple[int, int], int]:
    """The size of the images (when `alike` every one must have it) and the channels that lose nothing."""
    first: tuple[str, tuple[int, int]] | None = None
    channels = 1
    for name in names:
        label = store.label(name)
        with blaming(label), store.open(name) as stream:
            mode, size = header(stream, label)  # type: ignore[arg-type]
        channels = max(channels, native_channels(mode))
        if first is None:
            first = (label, size)
        elif alike and size != first[1]:
            raise InputError(
                f"images differ in size: {first[0]} is {_by(first[1])}, {label} is {_by(size)} (height x width); "
                f"give one size to crop and resize them to, such as data.size={min(*size, *first[1])}, "
                f"or, of `measure`, --size {min(*size, *first[1])}"
            )
    assert first is not None
    return first[1], channels


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _shared_folder(names: list[str]) -> str:
    """The folders that all names start with, "" or ending in "/", as far as the first that names a split."""
    folders = [name.split("/")[:-1] for name in names]
    kept = []
    for parts in zip(*folders, strict=False):
        if len(set(parts)) > 1 or parts[0] in SPLIT_FOLDERS:
            break
        kept.append(f"{parts[0]}/")
    return "".join(kept)


def _label_file(store: Store, base: str) -> str | None:
    """The `dataset.json` in the folder all images share or above it."""
    present = set(store.names)
    folder = base
    while True:
        if f"{folder}dataset.json" in present:
            return f"{folder}dataset.json"
        if not folder:
            return None
        folder = folder[: folder.rstrip("/").rfind("/") + 1]


def _listed_labels(
    store: Store, names: list[str], table: str
) -> tuple[Int64[np.ndarray, " n"] | None, tuple[str, ...] | None]:
    where = store.label(table)
    try:
        said = parse_json(store.read(table))
        pairs, classes = said["labels"], said.get("classes")
        listed = None if pairs is None else {str(file): label for file, label in pairs}
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f'{where}: expected {{"labels": [[file, number], ...]}} or null labels ({error})') from error
    if not listed:
        return None, None
    folder = table[: -len("dataset.json")]
    labels = np.empty(len(names), dtype=np.int64)
    for i, name in enumerate(names):
        label = listed.get(name[len(folder) :])
        if label is None:
            raise InputError(f"{where}: has no label for {name[len(folder) :]}")
        if isinstance(label, bool) or not isinstance(label, int) or not 0 <= label < CLASS_LIMIT:
            raise InputError(
                f"{where}: label {shown(repr(label))} of {name[len(folder) :]}, expected a whole number from 0 to "
                f"{CLASS_LIMIT - 1}"
            )
        labels[i] = label
    return labels, None if classes is None else _class_names(classes, where, int(labels.max()))


def _class_names(classes: object, where: str, highest: int) -> tuple[str, ...]:
    """Those that a label file lists. Raises InputError for what are no names, or not one for each label."""
    if not isinstance(classes, list) or not all(isinstance(one, str) for one in classes):
        raise InputError(f"{where}: classes are {shown(repr(classes))}, expected a list of names")
    if not highest < len(classes) <= CLASS_LIMIT or len(set(classes)) < len(classes):
        raise InputError(
            f"{where}: {len(classes)} classes, {len(set(classes))} different, expected {highest + 1} to {CLASS_LIMIT}"
        )
    return tuple(classes)


def _folder_labels(inner: list[str]) -> tuple[Int64[np.ndarray, " n"] | None, tuple[str, ...] | None]:
    if not all("/" in name for name in inner):
        return None, None
    tops = [name.split("/", 1)[0] for name in inner]
    classes = tuple(sorted(set(tops)))
    if len(classes) < 2:
        return None, None
    if len(classes) > CLASS_LIMIT:
        raise InputError(f"{len(classes)} class folders, expected at most {CLASS_LIMIT}")
    number = {name: k for k, name in enumerate(classes)}
    return np.array([number[top] for top in tops], dtype=np.int64), classes
