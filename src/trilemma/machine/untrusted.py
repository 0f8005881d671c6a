"""Files that somebody else wrote: opened only if they are files, and taken in only within the limits stated here. What
goes beyond is refused in one line before the memory or the time is spent."""

from __future__ import annotations

import io
import json
import math
import os
import stat
import sys
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import yaml

from trilemma.errors import InputError, shown

FILE_LIMIT = 2**28
"""Bytes of a file that is read whole, as it lies or unpacked. A label table of ImageNet's 1.3 million images takes 2²⁶,
MNIST's images 2²⁶, a photograph of 50 megapixels less."""

RECIPE_LIMIT = 2**23
"""Bytes of YAML, which takes some seconds to parse from here on. A recipe holds its classes: the 21 841 of ImageNet-21k
take 2¹⁹."""

NESTING = 64
"""Levels of JSON or YAML. Nothing that is read here has ten; Python gives up at several hundred."""

NODES = 100_000
"""Values in a YAML, an alias counted as all that it stands for: a few lines of aliases can stand for billions. More
than the classes that there may be."""

TOO_MANY = f"more than {NODES:,} values with its aliases written out"

MEMBERS = 1_500_000
"""Members of a zip, of which each takes 7 µs and a KiB to list. ImageNet's training set has 1 281 167 images."""

DIRECTORY = 2**28
"""Bytes of a zip's list of its members, which is read whole: 178 for each of so many."""

RATIO, RATIO_FROM = 100, 2**30
"""An archive may hold so many times its own size, or so many bytes if that is more. Compression reaches 1 000 on
constant bytes, and no images are those."""

_PLAIN = "biufcUS"  # NumPy's kinds of numbers and text: no objects, no records, no dates
_KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "folder",
    stat.S_IFIFO: "named pipe",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "device",
    stat.S_IFBLK: "device",
}


def kind_of(path: str | os.PathLike[str]) -> Literal["file", "folder"] | None:
    """What lies at `path`, links followed; None: nothing.

    Raises:
        InputError: a named pipe, a socket or a device, of which reading may never end, or a path that cannot be looked
            at: a name that is too long, links that lead in a circle, no permission.
    """
    try:
        kind = _KINDS.get(stat.S_IFMT(os.stat(path).st_mode), "thing of another kind")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:  # ValueError: a null character
        raise InputError(f"{shown(path)}: {getattr(error, 'strerror', None) or error}") from error
    if kind == "file":
        return "file"
    if kind == "folder":
        return "folder"
    raise InputError(f"{shown(path)} is a {kind}, expected a file or a folder")


def read_bounded(stream: IO[bytes], limit: int = FILE_LIMIT) -> bytes:
    """All bytes of a stream. Raises ValueError for more than `limit`, having read hardly more."""
    parts, size = [], 0
    while part := stream.read(2**20):  # a single call would take the whole limit's memory at once
        parts.append(part)
        size += len(part)
        if size > limit:
            raise ValueError(f"more than {limit:,} bytes")
    return b"".join(parts)


def read_text(path: Path, limit: int = FILE_LIMIT) -> str:
    """The text of a file in UTF-8. Raises ValueError for what is none, or longer than `limit` bytes."""
    with open_file(path) as file:
        try:
            return read_bounded(file, limit).decode("utf-8")
        except OSError as error:
            raise InputError(f"{path}: {error.strerror or error}") from error


def parse_json(text: str | bytes) -> Any:
    """What a JSON text says. Raises ValueError for what is none, or is nested deeper than `NESTING`."""
    try:
        values = json.loads(text)
    except RecursionError:
        raise ValueError(f"nested deeper than {NESTING} levels") from None
    level = [values]
    for _ in range(NESTING + 1):
        inner = [part for part in level if isinstance(part, list | dict)]
        if not inner:
            return values
        level = [item for part in inner for item in (part.values() if isinstance(part, dict) else part)]
    raise ValueError(f"nested deeper than {NESTING} levels")


def parse_yaml(text: str) -> Any:
    """What a YAML text says, aliases written out: each is a value of its own; nothing in it can run code. Raises
    ValueError for what is none, is nested deeper than `NESTING`, or has more than `NODES` values."""
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        if _extent(node, {}, 0)[0] > NODES:  # before anything is made of it: merged keys multiply too
            raise ValueError(TOO_MANY)
        return _unshared(loader.construct_document(node))
    except RecursionError:
        raise ValueError(f"nested deeper than {NESTING} levels") from None
    except (LookupError, AttributeError, yaml.YAMLError) as error:  # PyYAML's of a tag that its value does not fit
        raise ValueError(" ".join(str(error).split())) from error


def _unshared(value: Any) -> Any:
    """A value in which no mapping or list stands in two places."""
    if isinstance(value, dict):
        return {key: _unshared(item) for key, item in value.items()}
    return [_unshared(item) for item in value] if isinstance(value, list) else value


class _Loader(yaml.SafeLoader):
    """PyYAML's, which gives up at `NODES` values instead of taking minutes over more, and at the bracket, dash or
    colon that goes deeper than `NESTING`: each looks through all that are open."""

    _composed = 0

    def fetch_flow_collection_start(self, TokenClass: Any) -> None:
        self._check_depth(self.flow_level)
        super().fetch_flow_collection_start(TokenClass)

    def add_indent(self, column: int) -> bool:
        self._check_depth(len(self.indents))
        return super().add_indent(column)

    def _check_depth(self, depth: int) -> None:
        if depth > NESTING:  # of the text; of the values, `_extent` says it exactly
            raise ValueError(f"nested deeper than {NESTING} levels")

    def compose_node(self, parent: Any, index: Any) -> yaml.Node | None:
        self._composed += 1
        if self._composed > NODES:
            raise ValueError(TOO_MANY)
        return super().compose_node(parent, index)


def _extent(node: yaml.Node, known: dict[int, tuple[int, int]], depth: int) -> tuple[int, int]:
    """The values that a node at this depth stands for, and their levels. Raises ValueError where it is nested too
    deeply, as an alias of what it lies in is."""
    if id(node) not in known and depth <= NESTING:
        inner: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            inner = [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            inner = node.value
        extents = [_extent(part, known, depth + 1) for part in inner]
        known[id(node)] = (
            1 + sum(count for count, _ in extents),
            max((1 + levels for _, levels in extents), default=0),
        )
    if depth > NESTING or depth + known[id(node)][1] > NESTING:
        raise ValueError(f"nested deeper than {NESTING} levels")
    return known[id(node)]


class _Listed(io.BufferedReader):
    """A zip's file, of which zipfile reads the list of members at once, and members bit by bit."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > DIRECTORY:
            raise ValueError(f"its list of members has {size:,} bytes, expected at most {DIRECTORY:,}")
        content = super().read(size)
        if content.count(b"PK\x01\x02") > MEMBERS:
            raise ValueError(f"more than {MEMBERS:,} members")
        return content


class _Archive(zipfile.ZipFile):
    """One that closes its file with itself."""

    def __init__(self, file: _Listed):
        self._file = file
        super().__init__(file)

    def close(self) -> None:
        super().close()
        self._file.close()


def open_archive(path: Path) -> zipfile.ZipFile:
    """A zip to read from. Raises ValueError for one that lists more than `MEMBERS`, would unpack to more than `RATIO`
    allows, whose members share their bytes, or whose members are packed by a method that cannot be unpacked bit by bit;
    InputError as `open_file` does; and what zipfile raises, which is all there is."""
    archive = _Archive(_Listed(open_file(path).detach()))  # type: ignore[attr-defined]
    _check_archive(archive, path.stat().st_size)
    return archive


def _check_archive(archive: zipfile.ZipFile, size: int) -> None:
    members = archive.infolist()
    for member in members:
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"{member.filename} is packed by method {member.compress_type}, expected deflate or none")
    unpacked, limit = sum(member.file_size for member in members), max(RATIO_FROM, RATIO * size)
    if unpacked > limit:
        raise ValueError(f"it would unpack to {unpacked:,} bytes, expected at most {limit:,} from {size:,}")
    if sum(member.compress_size for member in members) > size:
        raise ValueError("its members share their bytes")


class Arrays(Mapping[str, np.ndarray]):
    """The arrays of an open .npz by name, each read when it is asked for. Raises InputError for one that holds anything
    but numbers or text, or is not as large as its header says."""

    def __init__(self, path: Path, archive: zipfile.ZipFile):
        self._path, self._archive = path, archive
        self._members = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}

    def __getitem__(self, name: str) -> np.ndarray:
        member = self._members[name]
        with _blaming(f"{self._path}: {name}"), self._archive.open(member) as stream:
            return _read_array(stream, member.file_size)

    def __contains__(self, name: object) -> bool:
        return name in self._members

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)


@contextmanager
def open_arrays(path: Path) -> Iterator[Arrays]:
    """The arrays of an .npz file. Raises InputError for what is none, or goes beyond a limit."""
    with _blaming(str(path)):
        archive = open_archive(path)
    with archive:
        yield Arrays(path, archive)


def read_array(path: Path) -> np.ndarray:
    """The array of an .npy file. Raises InputError as `open_arrays` does."""
    with open_file(path) as file, _blaming(str(path)):
        return _read_array(file, os.fstat(file.fileno()).st_size)


def open_file(path: Path) -> IO[bytes]:
    """A file to read. Raises InputError for what is none, or cannot be opened."""
    if kind_of(path) == "folder":
        raise InputError(f"{path} is a folder, expected a file")
    try:
        return path.open("rb")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from error


def _read_array(stream: IO[bytes], size: int) -> np.ndarray:
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"version {version} of the format, which plain numbers do not need")
    header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = header(stream)
    if dtype.kind not in _PLAIN:
        raise ValueError(f"holds {shown(dtype)}, expected plain numbers; pickled objects are never loaded")
    needed, there = math.prod(shape) * dtype.itemsize, size - stream.tell()
    if min(shape, default=0) < 0 or needed > there:
        raise ValueError(f"its header says {dtype} {shown(shape)}, more than the {there:,} bytes that are there")
    if needed > memory():
        raise ValueError(f"{dtype} {shape} takes {needed:,} bytes of memory, of which there are {memory():,}")
    stream.seek(0)
    return np.lib.format.read_array(stream, allow_pickle=False)


@cache
def memory() -> int:
    """Bytes of memory that this process may take: the machine's, or what its container or `ulimit -v` leaves of it."""
    limits = []
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            limits.append(int(Path(file).read_text(encoding="utf-8")))
        except (OSError, ValueError):  # no such limit, or "max"
            continue
    try:
        import resource

        limits += [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), resource.getrlimit(resource.RLIMIT_AS)[0]]
    except (ImportError, AttributeError, ValueError):  # not a POSIX system
        pass
    return min((limit for limit in limits if limit > 0), default=sys.maxsize)


@contextmanager
def _blaming(what: str) -> Iterator[None]:
    """NumPy and zipfile raise all there is over damaged files."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{what}: {reason}") from error
