"""Train in a process that is killed (SIGKILL) just before it changes the file system, then resume: once for each kind
of change that training makes. And as a command that is sent a signal.

    python killed.py RECIPE.yaml FOLDER

Leaves FOLDER/whole, the unbroken run, and FOLDER/1, FOLDER/2, … each killed once and resumed to the end; prints what
each of them was about to do, one a line. The processes are forks of this one, which has imported everything and trains
nothing, so each costs a fraction of a second.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import torch._dynamo  # noqa: F401 — what an optimiser's first step would import, a second's work, in every fork

from trilemma import cli
from trilemma.jobs import train
from trilemma.jobs.network_costs import anatomy, resolve
from trilemma.training import checkpoint

CHANGES = {"os.rename", "os.link", "os.mkdir", "os.remove", "os.rmdir", "os.symlink", "open", "shutil.rmtree"}


def watch(folder: Path, told: int, last: int = 0) -> None:
    """Write each change below `folder` to the descriptor `told` just before it happens; before change number `last`,
    if that is given, end this process."""
    numbers, inside = count(1), str(folder)

    def hook(event: str, args: tuple[Any, ...]) -> None:
        # TensorBoard writes from a thread of its own, at its own times, and so does a lock that counts.
        if event not in CHANGES or inside not in str(args[:2]) or re.search(r"tensorboard|\.beat", str(args[:2])):
            return
        if event == "open" and not args[2] & (os.O_WRONLY | os.O_RDWR):
            return
        number = next(numbers)
        names = [str(arg).removeprefix(inside).lstrip("/") for arg in args[:2] if str(arg).startswith(inside)]
        os.write(told, f"{event} {' -> '.join(names)}\n".encode())
        if number == last:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def child(work: Callable[[int], Any]) -> tuple[int, list[str]]:
    """Do the work in a fork, silently; gives its exit status, negative for a signal, and the lines that it wrote to the
    descriptor it was given."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            work(writing)
            code = 0
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        lines = pipe.read().splitlines()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), lines


def signalled(recipe: str, folder: Path, number: signal.Signals) -> None:
    run = folder / number.name
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.dup2(writing, 1), os.dup2(writing, 2)
        longer = ["training.steps=1000000", "training.checkpoint_every=3"]
        sys.argv = ["trilemma", "train", recipe, "--out", str(run), "--set", longer[0], "--set", longer[1]]
        code: Any = 1
        try:
            cli.main()
        except SystemExit as end:
            code = end.code
        finally:
            sys.stdout.flush()
            os._exit(code or 0)
    os.close(writing)
    while not checkpoint.steps(run / "checkpoints") and os.waitpid(pid, os.WNOHANG) == (0, 0):
        time.sleep(0.02)
    os.kill(pid, number)
    with os.fdopen(reading) as pipe:
        said = pipe.read()
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    run.with_suffix(".json").write_text(json.dumps({"said": said, "code": code}))


def main() -> None:
    recipe, folder = sys.argv[1], Path(sys.argv[2])
    anatomy(resolve(recipe))

    def broken(out: Path, last: int, told: int) -> None:
        watch(out, told, last)
        train(recipe, out=out)

    status, changes = child(lambda told: broken(folder / "whole", 0, told))
    assert status == 0, "the unbroken run"
    # Of changes alike but for a number or a process, the last: there is most to lose then.
    moments = {re.sub(r"\d+", "#", change): k for k, change in enumerate(changes, start=1)}
    for i, k in enumerate(sorted(moments.values()), start=1):
        out = folder / str(i)
        status, before = child(lambda told, out=out, k=k: broken(out, k, told))
        assert status == -signal.SIGKILL and len(before) == k, f"{changes[k - 1]}: exit status {status}"
        print(before[-1], flush=True)
        status, _ = child(lambda told, out=out: train(recipe, out=out, resume=True))
        assert status == 0, f"killed before {before[-1]}, it cannot be resumed"
    for number in (signal.SIGTERM, signal.SIGINT):
        signalled(recipe, folder, number)


if __name__ == "__main__":
    main()
