"""Files written whole or not at all, places looked at before any work is spent on them, and hashes.

What stood in a place before stays as it was until what replaces it is complete and on the disk. What may be replaced:
a file of the ending that a command writes, for whoever names it wishes so; of JSON, whose ending says little, only a
file of the same `format`, or an empty one. Folders that hold something, devices and a command's own input never are.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from trilemma.errors import InputError
from trilemma.machine.untrusted import parse_json, read_text

JSON_LIMIT = 2**26
"""Bytes of JSON that is looked into before it is replaced: none that is written here has a tenth of it."""


@contextmanager
def replacing(path: Path, what: str = "out") -> Iterator[Path]:
    """A path beside `path` to write a file or a folder to, which takes its place when the block ends well and is
    removed when it does not. Missing parent folders are made.

    Raises InputError, which calls the place `what`, where it cannot be written: no room, no permission, or what stands
    there is no file (a folder, a device) and would have to be removed."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        _check_replaceable(path, what)
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        for part in [*(file for file in partial.rglob("*") if file.is_file()), partial]:
            _sync(part)
        if path.is_dir() and not path.is_symlink():
            path.rmdir()  # an empty one: any other is refused above
        partial.replace(path)
        _sync(path.parent)
    except OSError as error:
        _remove(partial)
        safe = "; what stood there is as it was" if path.is_file() else ""
        raise InputError(f"{what}: cannot write {path} ({error.strerror or error}){safe}") from error
    except BaseException:
        _remove(partial)
        raise


@contextmanager
def keeping(safe: Callable[[], str]) -> Iterator[None]:
    """Where what happens inside cannot write, the error goes on to say what is safe."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{error.filename or 'a file'}: {error.strerror or error}; {safe()}") from error
    except InputError as error:
        if not isinstance(error.__cause__, OSError):
            raise
        raise InputError(f"{error}; {safe()}") from error.__cause__


def _check_replaceable(path: Path, what: str) -> None:
    if path.is_dir() and not path.is_symlink():
        if any(path.iterdir()):
            raise InputError(f"{what}: {path} is a folder that is not empty: remove it, or choose another place")
    elif path.exists() and not path.is_file():
        raise InputError(f"{what}: {path} is a device or the like, which is not replaced by a file")


def _remove(path: Path) -> None:
    with suppress(OSError):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str, what: str = "out") -> Path:
    """Write a text file in UTF-8. Raises InputError as `replacing` does."""
    with replacing(path, what) as partial:
        partial.write_text(text, encoding="utf-8")
    return path


def write_json(path: Path, value: Any, what: str = "out") -> Path:
    """Write plain JSON values. Raises InputError as `replacing` does, and where another kind of file stands there."""
    if isinstance(value, dict) and "format" in value:
        _check_format(path, value["format"], what)
    return write_text(path, json.dumps(value, indent=1) + "\n", what)


def write_npz(path: Path, arrays: Mapping[str, Any], what: str = "out", *, compressed: bool = False) -> Path:
    """Write arrays by their names. Raises InputError as `replacing` does."""
    with replacing(path, what) as partial, partial.open("wb") as file:
        (np.savez_compressed if compressed else np.savez)(file, **arrays)
    return path


def _check_format(path: Path, format: str, what: str) -> None:
    """Versions of a format, after the slash, may replace each other."""
    kind = format.partition("/")[0]
    try:
        if not path.is_file() or not path.stat().st_size:
            return
        found = parse_json(read_text(path, JSON_LIMIT)) if path.stat().st_size <= JSON_LIMIT else None
        own = isinstance(found, dict) and str(found.get("format")).partition("/")[0] == kind
    except (OSError, ValueError):
        own = False
    if not own:
        raise InputError(f"{what}: {path} is there already, and no {kind} file: remove it, or choose another place")


def check_writable(path: Path, what: str = "out", *, suffix: str = "", format: str = "", source: str = "") -> None:
    """Make the folder of `path`, and make sure that a file can be written there; what it holds is left alone. Raises
    InputError, which calls it `what`; also for another ending than `suffix`, for a file that is no JSON of `format`,
    and for one that `source` (DATA[:SPLIT] or a path) is or holds."""
    try:
        if path.is_dir():
            raise InputError(f"{what}: {path} is a folder, expected a file such as {path / 'NAME'}")
        if suffix and path.suffix.lower() != suffix:
            raise InputError(f"{what}: {path} should end in {suffix}")
        if format:
            _check_format(path, format, what)
        for one in {source, source.rpartition(":")[0]} - {""}:
            if path.exists() and path.resolve().is_relative_to(Path(one).resolve()):
                raise InputError(f"{what}: {path} is read by this command and would be overwritten: expected another")
        _check_replaceable(path, what)
        path.parent.mkdir(parents=True, exist_ok=True)
        probe = path.with_name(f".{path.name}.{os.getpid()}.partial")
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InputError(f"{what}: cannot write {path} ({error.strerror or error})") from error


def sha256(path: Path) -> str:
    """The hash of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
