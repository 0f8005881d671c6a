"""One command in a fork of this process, in a folder of its own, as nobody where that can be had, under limits."""

from __future__ import annotations

import os
import re
import resource
import select
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from trilemma import cli

NOBODY = 65534
MEMORY = 3 << 30
"""Bytes of address space beyond what the imported packages take."""

SECONDS = 20.0
"""After so many a command is asked to stop (SIGTERM); it has `GRACE` more to do so."""
GRACE = 10.0

CHANGES = {"os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.symlink", "os.truncate", "os.chmod", "open"}
ALLOWED = ("/dev/null", "/dev/full", "/dev/tty", "/dev/shm", "/proc/self")


@dataclass(frozen=True)
class Attempt:
    """A command line, what is done in its folder before it, its limits, and what has to hold of the folder after it
    (None, or what is wrong). `kill_at`: the change to the file system before which it is killed. `teaches`: run as who
    this is, and tell the modules it imported: nobody may not be let to read them later."""

    words: list[str]
    prepare: Callable[[Path], None] = lambda folder: None
    check: Callable[[Path, Outcome], str | None] = lambda folder, outcome: None
    file_bytes: int | None = None
    kill_at: int = 0
    teaches: bool = False


@dataclass
class Outcome:
    """`code`: the exit status, negative for a signal; `stopped`: whether it had to be asked; `changes`: how often it
    changed the file system; `outside`: the changes beyond its folder."""

    code: int
    said: str
    stopped: bool
    changes: int
    outside: list[str] = field(default_factory=list)
    modules: list[str] = field(default_factory=list)

    def fault(self) -> str | None:
        """What is wrong with how it ended, if anything."""
        if self.outside:
            return f"touched {self.outside[0]}"
        if "Traceback (most recent call last)" in self.said:
            lines = [line for line in self.said.splitlines() if re.match(r"[\w.]*(Error|Exception|Interrupt)\b", line)]
            return f"traceback: {(lines or ['?'])[-1][:200]}"
        if self.stopped:
            return (
                None if self.code in (-signal.SIGTERM, 128 + signal.SIGTERM) else f"asked to stop: status {self.code}"
            )
        if self.code == 2 and len(re.findall("(?im)^error:", self.said)) != 1:
            return f"exit 2 without its one line: {self.said.strip()[-200:]!r}"
        return None if self.code in (0, 1, 2) else f"exit status {self.code}"


def address_space() -> int:
    """Bytes that this process has mapped."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def _watch(folder: Path, attempt: Attempt, told: int) -> None:
    numbers, inside = count(1), os.path.realpath(folder)

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event in ("socket.connect", "socket.getaddrinfo"):
            raise OSError("no network here")
        if event not in CHANGES or (event == "open" and not args[2] & (os.O_WRONLY | os.O_RDWR)):
            return
        paths = [os.path.realpath(os.fsdecode(arg)) for arg in args[:2] if isinstance(arg, (str, bytes, os.PathLike))]
        if event == "open":
            paths = paths[:1]
        if "tensorboard" in str(paths):  # it writes from a thread of its own, at its own times
            return
        for path in paths:
            if not path.startswith((inside, *ALLOWED, f"/proc/{os.getpid()}/")):  # /proc/self, resolved
                os.write(told, f"{event} {path}\n".encode(errors="replace"))
        if paths and paths[0].startswith(inside):
            os.write(told, b"+\n")
            if next(numbers) == attempt.kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def _child(attempt: Attempt, folder: Path, said: int, told: int) -> None:
    os.setsid()
    sys.dont_write_bytecode = True
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream, target in enumerate((nowhere, nowhere, said)):
        os.dup2(target, stream)
    # This process's may be of a file, which can be sought in; a pipe cannot.
    sys.stdout, sys.stderr = open(1, "w", encoding="utf-8"), open(2, "w", encoding="utf-8")  # noqa: SIM115
    os.umask(0)
    if os.geteuid() == 0 and not attempt.teaches:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    os.chdir(folder)
    (folder / "tmp").mkdir(exist_ok=True)
    tempfile.tempdir = str(folder / "tmp")
    os.environ.update(HOME=str(folder), TMPDIR=tempfile.tempdir, TRILEMMA_CACHE=str(folder / "cache"), COLUMNS="160")
    attempt.prepare(folder)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (address_space() + MEMORY,) * 2)
    if attempt.file_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (attempt.file_bytes,) * 2)
    _watch(folder, attempt, told)
    sys.argv = ["trilemma", *attempt.words]
    cli.main()


def run(attempt: Attempt, folder: Path) -> Outcome:
    """Make the attempt in this folder, which anybody may write to."""
    (hears, said), (learns, told) = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 70
        try:
            _child(attempt, folder, said, told)
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
        except BaseException:
            os.write(
                said, f"Traceback (most recent call last):\n{traceback.format_exc()[-4000:]}".encode(errors="replace")
            )
        finally:
            with suppress(OSError, ValueError):
                sys.stderr.flush()
            if attempt.teaches:
                os.write(told, "".join(f"import {name}\n" for name in list(sys.modules)).encode())
            os._exit(code & 255)
    os.close(said)
    os.close(told)
    texts: dict[int, bytearray] = {hears: bytearray(), learns: bytearray()}
    open_, until, asked = [hears, learns], time.monotonic() + SECONDS, False
    while open_:
        ready = select.select(open_, [], [], max(0.0, until - time.monotonic()))[0]
        for pipe in ready:
            text = os.read(pipe, 1 << 16)
            texts[pipe] += text
            if not text:
                open_.remove(pipe)
        if time.monotonic() >= until:
            os.killpg(pid, signal.SIGKILL if asked else signal.SIGTERM)
            asked, until = True, time.monotonic() + GRACE
    for pipe in texts:
        os.close(pipe)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    changes = texts[learns].decode(errors="replace").splitlines()
    modules = [change.removeprefix("import ") for change in changes if change.startswith("import ")]
    outside = [change for change in changes if change != "+" and not change.startswith("import ")]
    return Outcome(code, texts[hears].decode(errors="replace"), asked, changes.count("+"), outside, modules)
