"""Where image files lie: a folder, a zip or a tar archive, seen alike as names with bytes behind them."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import tarfile
import threading
import zipfile
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import IO, Any

import numpy as np
from jaxtyping import Int64

from trilemma.data.decoding import blaming
from trilemma.errors import InputError
from trilemma.machine.untrusted import open_archive, open_file, read_bounded

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")

TAR_LIMIT = 2**29
"""Bytes that a tar may unpack to, which are held in memory: CIFAR-10, all that is read from one, has a third of it."""

_PACKED = {b"\x1f\x8b": gzip.open, b"BZ": bz2.open, b"\xfd7": lzma.open}


class Store(ABC):
    """Files by name; names use `/` and are sorted. `where` is the path the user knows it by."""

    def __init__(self, where: Path, names: list[str]) -> None:
        self.where = where
        self.names = sorted(names)

    @abstractmethod
    def open(self, name: str) -> IO[bytes]:
        """The bytes of `name` as a stream that can seek."""

    def label(self, name: str) -> str:
        """How messages call the file."""
        return f"{self.where}:{name}"

    def read(self, name: str) -> bytes:
        """All bytes of `name`.

        Raises:
            DamagedImageError: they cannot be read (no permission, a bad checksum in the archive, more than
                `FILE_LIMIT`, ...).
        """
        with blaming(self.label(name)), self.open(name) as stream:
            return read_bounded(stream)

    def images(self) -> list[str]:
        """The names with an image's suffix, hidden ones left out.

        Raises:
            InputError: there is none.
        """
        found = self._images()
        if not found:
            raise InputError(f"{self.where}: holds no images (looked for {', '.join(IMAGE_SUFFIXES)})")
        return found

    def has_images(self) -> bool:
        return bool(self._images())

    def _images(self) -> list[str]:
        return [name for name in self.names if name.lower().endswith(IMAGE_SUFFIXES) and not _hidden(name)]


class LabelledStore(Store):
    """One that says itself, in the order of its names, which are all images, what their classes are: `labels`, -1 where
    there is none; `classes`, if they have names; and `splits`, unless the first folder of a name says so."""

    labels: Int64[np.ndarray, " n"]
    classes: tuple[str, ...] | None = None
    splits: tuple[str, ...] | None = None

    def images(self) -> list[str]:
        if not self.names:
            raise InputError(f"{self.where}: holds no images")
        return self.names


class FolderStore(Store):
    """The files below a folder, at any depth. Links are followed, and each folder counts once, however many lead to it:
    by its own name where it lies below, else by that of the first link."""

    def __init__(self, where: Path) -> None:
        names: list[str] = []
        seen: set[tuple[int, int]] = set()
        waiting = deque([where])
        while waiting:
            for folder, folders, files in os.walk(waiting.popleft()):
                found = os.stat(folder)
                if (found.st_dev, found.st_ino) in seen:
                    folders.clear()
                    continue
                seen.add((found.st_dev, found.st_ino))
                base = Path(folder)
                names += [(base / file).relative_to(where).as_posix() for file in files]
                waiting += sorted(base / name for name in folders if (base / name).is_symlink())
        super().__init__(where, names)

    def open(self, name: str) -> IO[bytes]:
        return open_file(self.where / name)

    def label(self, name: str) -> str:
        return str(self.where / name)


class ZipStore(Store):
    """The members of a zip, opened anew in each process, so that workers don't share a file position.

    Raises:
        InputError: the file is no zip, is truncated, lists more members or unpacks to more than it may.
    """

    def __init__(self, where: Path) -> None:
        self._opened: tuple[int, zipfile.ZipFile] | None = None
        self._lock = threading.Lock()
        self.where = where
        try:
            names = {entry.filename for entry in self._zip().infolist() if not entry.is_dir()}
        except Exception as error:  # zipfile raises all there is over damaged files
            raise InputError(f"{where}: cannot be read as a zip ({error})") from error
        super().__init__(where, list(names))

    def __getstate__(self) -> dict[str, object]:
        return {"where": self.where, "names": self.names}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state, _opened=None, _lock=threading.Lock())

    def _zip(self) -> zipfile.ZipFile:
        with self._lock:
            if self._opened is None or self._opened[0] != os.getpid():
                self._opened = (os.getpid(), open_archive(self.where))
            return self._opened[1]

    def open(self, name: str) -> IO[bytes]:
        return self._zip().open(name)


class TarStore(Store):
    """The members of a tar (.gz, .xz, .bz2), read into memory at once because such archives only read forward.

    Raises:
        InputError: the file is no tar, is truncated, or unpacks to more than `TAR_LIMIT`.
    """

    def __init__(self, where: Path) -> None:
        self._content: dict[str, bytes] = {}
        try:
            # Not unpacked by tarfile: its headers, too, can be larger than memory.
            with open_unpacked(where) as packed, tarfile.open(fileobj=Bounded(packed, TAR_LIMIT), mode="r|") as archive:
                for member in archive:
                    if member.size > TAR_LIMIT:
                        raise ValueError(f"{member.name} has {member.size:,} bytes, expected at most {TAR_LIMIT:,}")
                    file = archive.extractfile(member) if member.isfile() else None
                    if file is not None:
                        self._content[member.name.removeprefix("./")] = read_bounded(file)
        except Exception as error:  # tarfile raises all there is over damaged files
            raise InputError(f"{where}: cannot be read as a tar archive ({error})") from error
        super().__init__(where, list(self._content))

    def open(self, name: str) -> IO[bytes]:
        return io.BytesIO(self._content[name])


@contextmanager
def open_unpacked(path: Path) -> Iterator[IO[bytes]]:
    """A file to read, unpacked on the way if it is a .gz, .bz2 or .xz. Raises InputError where it cannot be opened."""
    with open_file(path) as file:
        unpack: Any = _PACKED.get(file.read(2), nullcontext)
        file.seek(0)
        with unpack(file) as stream:
            yield stream


class Bounded(io.RawIOBase):
    """A stream that ends in an error after `limit` bytes, counted from where they were last `renew`ed."""

    def __init__(self, stream: IO[bytes], limit: int) -> None:
        self._stream, self._limit, self._left = stream, limit, limit

    def renew(self, more: int = 0) -> None:
        self._left = self._limit + more

    def read(self, count: int = -1, /) -> bytes:
        content = self._stream.read(count if 0 <= count <= self._left else self._left + 1)
        self._left -= len(content)
        if self._left < 0:
            raise ValueError(f"it unpacks to more than {self._limit:,} bytes")
        return content

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()


def _hidden(name: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))
