"""One writer to a place: a lock beside it that names its holder, and outlives no holder.

A holder on this machine is looked up among the processes. One elsewhere, on a file system that is shared, cannot be:
its lock counts up while it lives, and one whose count stands still while it is watched is stale. No two clocks are
compared.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from trilemma.errors import InputError
from trilemma.machine.untrusted import parse_json, read_text

BEAT = 2.0
"""Seconds between two counts of a lock."""

WATCHED = 5
"""Beats for which a lock from elsewhere is watched before it is taken for stale."""


@contextmanager
def locked(place: Path) -> Iterator[None]:
    """Hold the lock of `place` (the file PLACE.lock) while the block runs.

    Raises InputError, which names the process that holds it, if another one does; a lock whose holder is gone is taken
    over. Where no file can be written there is nothing to protect: the writing itself will say so. SIGTERM, if nobody
    else heeds it, raises SystemExit meanwhile, so that the lock is given back."""
    whole = place.resolve()
    path = whole.with_name(f"{whole.name}.lock")
    mine = _me()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _take(path, mine, place)
    except OSError:
        yield
        return
    over = threading.Event()
    beat = threading.Thread(target=_count, args=(path, mine, over), daemon=True)
    beat.start()
    try:
        with _terminable():
            yield
    finally:
        over.set()
        beat.join()
        if (found := _read(path)) is not None and found.get("token") == mine["token"]:
            path.unlink(missing_ok=True)


@contextmanager
def _terminable() -> Iterator[None]:
    mine = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    if mine:
        signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        if mine:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _me() -> dict[str, Any]:
    """What tells this process from any other, at any time, on any machine."""
    pid = os.getpid()
    return {**_here(), "pid": pid, "started": _started(pid), "token": uuid.uuid4().hex, "count": 0}


def _here() -> dict[str, Any]:
    """The machine since it was started, and the processes that this one sees (a container has its own)."""
    boot, space = "", 0
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        space = os.stat("/proc/self/ns/pid").st_ino
    return {"host": socket.gethostname(), "boot": boot, "space": space}


def _started(pid: int) -> str | None:
    """When a process began, in the kernel's ticks, by which a number used again is told apart; None: there is none."""
    try:
        # The command's name, in parentheses, may hold anything: what follows it is counted.
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        pass
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except OSError:
        pass
    return ""


def _take(path: Path, mine: dict[str, Any], place: Path) -> None:
    own = path.with_name(f".{path.name}.{mine['token']}")
    try:
        own.write_text(json.dumps(mine), encoding="utf-8")
        while True:
            try:
                os.link(own, path)  # unlike a check before it, this either makes the lock or fails, for one of any many
                return
            except FileExistsError:
                held = _read(path)
            if held is not None and _alive(path, held):
                raise InputError(
                    f"{place} is being written by another process ({held.get('pid')} on {held.get('host')}): wait for "
                    f"it, or choose another place (its lock is {path})"
                )
            _remove_stale(path, held)
    finally:
        own.unlink(missing_ok=True)


def _remove_stale(path: Path, held: dict[str, Any] | None) -> None:
    """Away with a lock that was found stale, unless somebody else was faster, and the lock there now is theirs.

    Who removes a lock holds the kernel's own on that very file: of many who found the same one, the first removes it,
    and the rest see that what they opened is no longer there."""
    with suppress(FileNotFoundError):
        file = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))  # a named pipe would be waited for
        try:
            with suppress(ImportError, OSError):  # a system without such locks leaves the moment below to chance
                import fcntl

                fcntl.flock(file, fcntl.LOCK_EX)
            if os.path.samestat(os.fstat(file), path.stat()) and _read(path) == held:
                path.unlink()
        finally:
            os.close(file)


def _read(path: Path) -> dict[str, Any] | None:
    """What a lock says; None where there is none, or one that was broken off."""
    try:
        found = parse_json(read_text(path))
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _alive(path: Path, held: dict[str, Any]) -> bool:
    here = _here()
    if all(held.get(key) == value for key, value in here.items()):
        return held.get("started") is not None and _started(int(held.get("pid", 0))) == held["started"]
    if held.get("host") == here["host"] and held.get("space") == here["space"]:
        return False  # this machine, before it was started anew
    for _ in range(WATCHED):
        time.sleep(BEAT)
        now = _read(path)
        if now is None or now.get("token") != held.get("token"):
            return now is not None and _alive(path, now)
        if now.get("count") != held.get("count"):
            return True
    return False


def _count(path: Path, mine: dict[str, Any], over: threading.Event) -> None:
    """Count up in the lock until all is over, or the lock is another's."""
    while not over.wait(BEAT):
        mine["count"] += 1
        with suppress(OSError):
            if (found := _read(path)) is None or found.get("token") != mine["token"]:
                return
            partial = path.with_name(f".{path.name}.{mine['token']}.beat")
            partial.write_text(json.dumps(mine), encoding="utf-8")
            partial.replace(path)
