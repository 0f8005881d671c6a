"""Where image files lie: a folder, a zip or a tar archive, seen alike as names with bytes behind them."""

from __future__ import annotations

import io
import lzma
import os
import tarfile
import threading
import zipfile
import zlib
from abc import ABC, abstractmethod
from pathlib import Path
from typing import IO

from trilemma.data.decoding import blaming
from trilemma.errors import InputError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")


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
            DamagedImageError: they cannot be read (no permission, a bad checksum in the archive, ...).
        """
        with blaming(self.label(name)), self.open(name) as stream:
            return stream.read()

    def images(self) -> list[str]:
        """The names with an image's suffix, hidden ones left out.

        Raises:
            InputError: there is none.
        """
        found = [name for name in self.names if name.lower().endswith(IMAGE_SUFFIXES) and not _hidden(name)]
        if not found:
            raise InputError(f"{self.where}: holds no images (looked for {', '.join(IMAGE_SUFFIXES)})")
        return found


class FolderStore(Store):
    """The files below a folder, at any depth."""

    def __init__(self, where: Path) -> None:
        names = []
        for folder, _, files in os.walk(where, followlinks=True):
            base = Path(folder).relative_to(where)
            names += [(base / file).as_posix() for file in files]
        super().__init__(where, names)

    def open(self, name: str) -> IO[bytes]:
        return (self.where / name).open("rb")

    def label(self, name: str) -> str:
        return str(self.where / name)


class ZipStore(Store):
    """The members of a zip, opened anew in each process, so that workers don't share a file position.

    Raises:
        InputError: the file is no zip, or is truncated.
    """

    def __init__(self, where: Path) -> None:
        self._opened: tuple[int, zipfile.ZipFile] | None = None
        self._lock = threading.Lock()
        self.where = where
        try:
            names = [entry.filename for entry in self._zip().infolist() if not entry.is_dir()]
        except (OSError, zipfile.BadZipFile) as error:
            raise InputError(f"{where}: cannot be read as a zip ({error})") from error
        super().__init__(where, names)

    def __getstate__(self) -> dict[str, object]:
        return {"where": self.where, "names": self.names}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state, _opened=None, _lock=threading.Lock())

    def _zip(self) -> zipfile.ZipFile:
        with self._lock:
            if self._opened is None or self._opened[0] != os.getpid():
                self._opened = (os.getpid(), zipfile.ZipFile(self.where))
            return self._opened[1]

    def open(self, name: str) -> IO[bytes]:
        return self._zip().open(name)


class TarStore(Store):
    """The members of a tar (.gz, .xz, .bz2), read into memory at once because such archives only read forward.

    Raises:
        InputError: the file is no tar, or is truncated.
    """

    def __init__(self, where: Path) -> None:
        self._content: dict[str, bytes] = {}
        try:
            with tarfile.open(where, "r|*") as archive:
                for member in archive:
                    stream = archive.extractfile(member) if member.isfile() else None
                    if stream is not None:
                        self._content[member.name.removeprefix("./")] = stream.read()
        except (OSError, EOFError, ValueError, tarfile.TarError, lzma.LZMAError, zlib.error) as error:
            raise InputError(f"{where}: cannot be read as a tar archive ({error})") from error
        super().__init__(where, list(self._content))

    def open(self, name: str) -> IO[bytes]:
        return io.BytesIO(self._content[name])


def _hidden(name: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))
