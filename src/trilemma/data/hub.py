"""`hub:NAME`: data sets of the Hugging Face hub, or of a folder that the datasets library reads, through that library:
kept on the disk once and read in any order, or streamed."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from trilemma.data.holdout import has_splits
from trilemma.data.images import split_parts
from trilemma.data.stores import LabelledStore
from trilemma.data.streams import Sample, StreamStore
from trilemma.errors import InputError, shown
from trilemma.machine.untrusted import open_file, read_bounded

PREFIX = "hub:"

LABELS = ("label", "labels", "class", "cls", "fine_label")
"""Columns of classes, if they hold whole numbers, the likeliest first; any other is one if it says so."""


def is_hub(name: str) -> bool:
    return name.startswith(PREFIX)


def hub_splits(name: str, config: str | None = None) -> tuple[str, ...]:
    """The splits of a data set. Raises InputError as `open_hub`."""
    library = _library()
    with _blaming(name):
        return tuple(map(str, library.get_dataset_split_names(_path(name), config)))


def open_hub(name: str, split: str, config: str | None, stream: bool, holdout: float) -> LabelledStore:
    """The images of `split` (`all`: of all of them in turn), in the first column of images. With images held out of the
    only split that there is, `split` is a side of that.

    Raises:
        InputError: there is no such data set, configuration or split, none that holds images, or it cannot be reached.
    """
    known = hub_splits(name, config)
    if holdout and len(known) > 1:
        raise has_splits(holdout, name, known)
    parts = known if holdout else split_parts(name, split, known)
    library = _library()
    with _blaming(name):
        tables = [library.load_dataset(_path(name), config, split=part, streaming=stream) for part in parts]
        columns = _columns(name, library, tables[0])
        tables = [table.cast_column(columns.image, library.Image(decode=False)) for table in tables]
    if not stream:
        return HubStore(name, tables, columns, None if holdout else parts)
    shards = [
        (HubShard(table.shard(table.num_shards, i), columns), part)
        for table, part in zip(tables, parts, strict=True)
        for i in range(table.num_shards)
    ]
    splits = None if holdout else [part for _, part in shards]
    return StreamStore(name, [shard for shard, _ in shards], columns.classes, splits)


@dataclass(frozen=True)
class Columns:
    """The columns of a table that hold images and classes, and those classes' names."""

    image: str
    label: str | None
    classes: tuple[str, ...] | None

    def sample(self, row: dict[str, Any]) -> Sample:
        image = row[self.image]
        if image is None:
            raise ValueError(f"a row has no {self.image}")
        content = image["bytes"]
        if content is None:
            with open_file(Path(image["path"])) as file:
                content = read_bounded(file)
        return Sample(content, self.number(row))

    def number(self, row: dict[str, Any]) -> int | None:
        value = None if self.label is None else row[self.label]
        return None if value is None or value < 0 else int(value)


class HubStore(LabelledStore):
    """The rows of tables on the disk as files."""

    def __init__(self, name: str, tables: list[Any], columns: Columns, splits: tuple[str, ...] | None) -> None:
        self._name, self._tables, self._columns, self.classes = name, tables, columns, columns.classes
        counts = [len(table) for table in tables]
        super().__init__(Path(name), [f"{k:03d}/{i:09d}" for k, count in enumerate(counts) for i in range(count)])
        self.splits = None if splits is None else tuple(np.repeat(splits, counts).tolist())
        self.labels = np.full(len(self.names), -1, dtype=np.int64)
        if columns.label is not None:
            found = [value for table in tables for value in table[columns.label]]
            self.labels[:] = [-1 if value is None else value for value in found]

    def label(self, name: str) -> str:
        table, row = map(int, name.split("/"))
        return f"{self._name}: row {row} of {self._tables[table].split}"

    def open(self, name: str) -> IO[bytes]:
        table, row = map(int, name.split("/"))
        return io.BytesIO(self._columns.sample(self._tables[table][row]).content)


@dataclass
class HubShard:
    """One of the files that a table is streamed from."""

    table: Any
    columns: Columns

    def __iter__(self) -> Iterator[Sample]:
        return map(self.columns.sample, self.table)

    def labels(self) -> Iterator[int | None]:
        column = self.columns.label or self.columns.image
        return map(self.columns.number, self.table.select_columns([column]))


def _columns(name: str, library: Any, table: Any) -> Columns:
    features = table.features
    if features is None:
        features = table._resolve_features().features
    images = [column for column, kind in features.items() if isinstance(kind, library.Image)]
    if not images:
        raise InputError(f"data {name}: no column holds images (there are {shown(', '.join(features))})")
    classed = [column for column, kind in features.items() if isinstance(kind, library.ClassLabel)]
    whole = [column for column, kind in features.items() if "int" in str(getattr(kind, "dtype", ""))]
    likely = [column for column in LABELS if column in {*classed, *whole}]
    label = next(iter(likely or classed), None)
    names = tuple(features[label].names) if label in classed else None
    return Columns(images[0], label, names)


def _path(name: str) -> str:
    path = name.removeprefix(PREFIX)
    if not path:
        raise InputError("data: 'hub:' is empty, expected hub:NAME, such as hub:ylecun/mnist")
    return path


@contextmanager
def _blaming(name: str) -> Iterator[None]:
    """The library raises all there is over data sets that it cannot have."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"data {name}: cannot be opened through datasets ({reason[:300]})") from error


def _library() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise InputError(
            f"data: hub:NAME needs the datasets library, which cannot be imported ({error}); "
            "pip install 'trilemma[hub]'"
        ) from error
    return datasets
