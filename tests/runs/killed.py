"""Train in a process that is killed (SIGKILL) at its k-th change of the file system, for every k; then resume.

    python killed.py RECIPE.yaml FOLDER

Leaves FOLDER/whole, the unbroken run, and FOLDER/1, FOLDER/2, … each killed once and resumed to the end; prints what
each of them was about to do, one a line. The processes are forks of this one, which has imported everything and trains
nothing, so each costs a fraction of a second.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch._dynamo  # what an optimiser's first step would import, a second's work, in every fork
import torch.onnx

from trilemma.runs import train

CHANGES = {"os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.symlink", "open", "shutil.rmtree"}


def killer(folder: Path, k: int, told: int) -> Callable[[str, tuple[Any, ...]], None]:
    """An audit hook that ends the process before change number k below `folder`, and says which that is to `told`."""
    count, inside = 0, str(folder)

    def hook(event: str, args: tuple[Any, ...]) -> None:
        nonlocal count
        if event not in CHANGES or inside not in str(args[:2]):
            return
        if event == "open" and not args[2] & (os.O_WRONLY | os.O_RDWR):
            return
        count += 1
        if count == k:
            os.write(told, f"{event} {args[:2]}\n".encode())
            os.kill(os.getpid(), signal.SIGKILL)

    return hook


def child(work: Callable[[], Any]) -> int:
    """Do the work in a fork, silently; gives its exit status, negative for a signal."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            quiet = os.open(os.devnull, os.O_WRONLY)
            os.dup2(quiet, 1)
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def main() -> None:
    recipe, folder = sys.argv[1], Path(sys.argv[2])
    told = os.dup(1)
    assert child(lambda: train(recipe, out=folder / "whole")) == 0
    for k in range(1, 200):
        out = folder / str(k)

        def broken(out: Path = out, k: int = k) -> None:
            sys.addaudithook(killer(out, k, told))
            train(recipe, out=out)

        status = child(broken)
        if status == 0:  # it has fewer changes than that
            return
        assert status == -signal.SIGKILL, f"change {k}: exit status {status}"
        assert child(lambda out=out: train(recipe, out=out, resume=True)) == 0, f"change {k}: cannot be resumed"
    raise AssertionError("never finished")


if __name__ == "__main__":
    main()
