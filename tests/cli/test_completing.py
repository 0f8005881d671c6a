"""What a shell completes, and that it does not wait for torch."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from trilemma.cli.completing import sampling_names
from trilemma.cli.options import sampling_options

Command = Callable[..., Any]


def environment(line: str) -> dict[str, str]:
    """What a shell says of a line with the cursor at its end."""
    return {"_TRILEMMA_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}


@pytest.mark.parametrize(
    ("line", "there"),
    [
        ("trilemma tr", ["train"]),
        ("trilemma train mnist-cond", ["mnist-conditional"]),
        ("trilemma network demo-g", ["demo-guide"]),
        ("trilemma sample runs/mine --surr", ["--surrogate"]),
        ("trilemma sample runs/mine --sampler dd", ["ddim"]),
        ("trilemma evaluate runs/mine --metrics kid,precisio", ["kid,precision"]),
        ("trilemma evaluate runs/mine --features digit", ["digits"]),
        ("trilemma list samp", ["samplers"]),
    ],
)
def test_completes(command: Command, monkeypatch: pytest.MonkeyPatch, line: str, there: list[str]) -> None:
    for key, value in environment(line).items():
        monkeypatch.setenv(key, value)
    code, out, _ = command()
    assert code == 0 and out.split() == there


def test_without_torch() -> None:
    """Sampling's options too, which are read off the samplers where a command runs."""
    line = "trilemma sample runs/mine --sampler an"
    code = "import sys; sys.argv = ['trilemma']\ntry:\n    from trilemma.cli import main; main()\n"
    code += "finally:\n    print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment(line)}, capture_output=True, text=True
    )
    assert done.stdout.split() == ["ancestral", "False"], done.stderr


def test_knows_every_option_of_sampling() -> None:
    known, options = dict(sampling_names()), {option.name: option for option in sampling_options()}
    assert known.keys() == options.keys()
    flags = {name for name, option in options.items() if "bool" in str(option.annotation)}
    assert {name for name, flag in known.items() if flag} == flags


def test_version(command: Command) -> None:
    import torch

    import trilemma

    code, out, err = command("--version")
    assert code == 0 and err == "" and out.startswith(f"trilemma {trilemma.__version__}, PyTorch {torch.__version__}, ")
