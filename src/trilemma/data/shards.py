"""WebDataset's shards: tars in which the files of a sample lie side by side under one name (Aizman et al. 2019). The
image is its .png, .jpg, .jpeg or .webp; its class the number in its .cls, or at `label` of its .json."""

from __future__ import annotations

import io
import tarfile
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from trilemma.data.images import CLASS_LIMIT
from trilemma.data.stores import Bounded, LabelledStore, Store
from trilemma.data.streams import Sample, StreamStore
from trilemma.errors import InputError, shown
from trilemma.machine.untrusted import FILE_LIMIT, MEMBERS, kind_of, open_file, parse_json

IMAGES = ("png", "jpg", "jpeg", "webp")

SHARDS = 100_000
"""Shards that braces may stand for."""

SECONDS = 60
"""That a server may be silent."""

_REMOTE = ("http://", "https://")


def are_shards(name: str) -> bool:
    """Whether data of this name are shards that are no path: URLs, or several by braces."""
    return name.startswith((*_REMOTE, "pipe:")) or (name.lower().endswith(".tar") and not kind_of(name))


def open_shards(name: str) -> Store:
    """Shards by their paths or URLs, `{000..003}` and `{a,b}` standing for several: local ones as files in any order,
    remote ones as a stream.

    Raises:
        InputError: one that does not exist, is damaged, or is to be had by running a command.
    """
    if name.startswith("pipe:"):
        raise InputError(f"data: {shown(name)!r} would run a command, expected paths or http(s) URLs of .tar files")
    found = list(islice(_library().shardlists.braceexpand.braceexpand(name), SHARDS + 1))
    if len(found) > SHARDS:
        raise InputError(f"data: {shown(name)!r} stands for more than {SHARDS:,} shards")
    if name.startswith(_REMOTE):
        return StreamStore(name, [RemoteShard(url) for url in found])
    for path in found:
        if kind_of(path) != "file":
            raise InputError(f"data: shard {shown(path)!r} does not exist, expected the path or http(s) URL of a .tar")
    return ShardStore(Path(name), [Path(path) for path in found])


class ShardStore(LabelledStore):
    """The images in local shards, found by one look at the members' headers, opened in any order.

    Raises:
        InputError: a shard is damaged or lists more members than it may; no image in them.
    """

    def __init__(self, where: Path, shards: Sequence[Path]) -> None:
        self._shards = list(shards)
        base = where if kind_of(where) == "folder" else where.parent
        self._places: dict[str, tuple[int, int, int]] = {}
        labels: dict[str, int] = {}
        for number, shard in enumerate(self._shards):
            prefix = shard.relative_to(base).as_posix() if shard.is_relative_to(base) else shard.as_posix()
            try:
                with open_file(shard) as file:
                    for found in _samples(file, "r:"):
                        name = f"{prefix}/{found.key}.{found.extension}"
                        self._places[name] = (number, found.offset, found.size)
                        labels[name] = -1 if found.label is None else found.label
                        if len(labels) > MEMBERS:
                            raise ValueError(f"more than {MEMBERS:,} images")
            except Exception as error:  # tarfile raises all there is over damaged files
                raise InputError(f"{shard}: cannot be read as a WebDataset shard ({error})") from error
        super().__init__(where, list(self._places))
        self.labels = np.array([labels[name] for name in self.names], dtype=np.int64)

    def open(self, name: str) -> IO[bytes]:
        number, offset, size = self._places[name]
        with open_file(self._shards[number]) as file:
            file.seek(offset)
            return io.BytesIO(file.read(size))


@dataclass(frozen=True)
class RemoteShard:
    """A shard at a URL, read forward."""

    url: str

    def __iter__(self) -> Iterator[Sample]:
        for found in self._found(True):
            yield Sample(found.content, found.label)

    def labels(self) -> Iterator[int | None]:
        return (found.label for found in self._found(False))

    def _found(self, content: bool) -> Iterator[_Found]:
        try:
            answer = urllib.request.urlopen(self.url, timeout=SECONDS)
        except (OSError, ValueError) as error:
            raise InputError(f"{self.url}: cannot be fetched ({error})") from error
        with closing(answer):
            yield from _samples(answer, "r|", content)


class _Found(NamedTuple):
    """An image in a tar: where it lies, its class if it has one, and its content, if it was asked for."""

    key: str
    extension: str
    offset: int
    size: int
    label: int | None
    content: bytes


class _Member(tarfile.TarInfo):
    """A damaged header is an error; to tarfile, it is the end of the archive unless it is the first."""

    @classmethod
    def frombuf(cls, buf: Any, encoding: str, errors: str) -> _Member:
        try:
            return super().frombuf(buf, encoding, errors)
        except (tarfile.InvalidHeaderError, tarfile.TruncatedHeaderError) as error:  # type: ignore[attr-defined]
            raise ValueError(f"a header is damaged: {error}") from error


def _samples(stream: IO[bytes], mode: str, content: bool = False) -> Iterator[_Found]:
    """The samples with an image. Raises ValueError for a label that is none, and all that tarfile does."""
    parts = _library().tariterators.base_plus_ext
    bounded = Bounded(stream, FILE_LIMIT)
    with tarfile.open(fileobj=bounded, mode=mode, tarinfo=_Member) as archive:  # type: ignore[call-overload]

        def members() -> Iterator[tuple[str, str, tarfile.TarInfo]]:
            while (member := archive.next()) is not None:
                archive.members.clear()
                bounded.renew(member.size)
                key, extension = parts(member.name.removeprefix("./"))
                if key is not None and member.isreg() and not member.issparse():
                    yield key, extension.lower(), member

        def read(member: tarfile.TarInfo) -> bytes:
            if member.size > FILE_LIMIT:
                raise ValueError(f"{member.name} has {member.size:,} bytes, expected at most {FILE_LIMIT:,}")
            file = archive.extractfile(member)
            assert file is not None
            return file.read()

        for key, files in groupby(members(), key=lambda member: member[0]):
            image, label, pixels = None, None, b""
            for _, extension, member in files:
                if extension in IMAGES and image is None:
                    image, pixels = (extension, member.offset_data, member.size), read(member) if content else b""
                elif extension in ("cls", "json") and label is None:
                    label = _label(read(member), extension, member.name)
            if image is not None:
                yield _Found(key, *image, label, pixels)


def _label(content: bytes, extension: str, name: str) -> int | None:
    """The class that a .cls or .json says; None: a .json says nothing of it."""
    value: Any = content.decode("ascii", "replace").strip()
    if extension == "json":
        said = parse_json(content)
        value = said.get("label") if isinstance(said, dict) else None
        if value is None:
            return None
    digits = str(value)
    if isinstance(value, bool) or not digits.isdecimal() or len(digits) > 9 or int(digits) >= CLASS_LIMIT:
        raise ValueError(f"{name}: label {shown(repr(value))}, expected a whole number from 0 to {CLASS_LIMIT - 1}")
    return int(digits)


def _library() -> Any:
    try:
        import webdataset.shardlists
        import webdataset.tariterators
    except ImportError as error:
        raise InputError(
            f"data: shards need the webdataset library, which cannot be imported ({error}); "
            "pip install 'trilemma[shards]'"
        ) from error
    return webdataset
