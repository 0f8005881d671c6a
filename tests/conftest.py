"""What holds for every test: one thread a process, no window, no network, the same examples each time; and tiny runs:
24 images of 8×8 pixels in four classes, a network of 10 000 weights, eight steps of noise."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

# Before the first import of torch, here and in the processes that tests start: the suite runs as several processes
# (`make test`), which would fight for the cores with more threads than one each.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "agg")
os.environ["HF_HUB_OFFLINE"] = "1"
# Commands are checked by what they print: without colours, and not folded to the width of whoever's terminal it is.
os.environ["NO_COLOR"] = "1"
os.environ["COLUMNS"] = "160"
os.environ.pop("FORCE_COLOR", None)

import numpy as np
import pytest
import yaml
from hypothesis import settings

# No deadline, since a test machine may be busy; derandomised, since a suite that fails by luck stops being believed.
settings.register_profile("suite", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("suite")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test finds, or leaves, features in the user's cache."""
    monkeypatch.setenv("TRILEMMA_CACHE", str(tmp_path / "cache"))


class Result(NamedTuple):
    code: int
    out: str
    err: str


Command = Callable[..., Result]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """Run `trilemma ARGUMENTS` in this process (importing torch takes seconds); gives exit code, standard output and
    standard error."""
    from trilemma.cli import main

    def run(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["trilemma", *map(str, arguments)])
        capfd.readouterr()
        code: int | str | None = 0
        try:
            main()
        except SystemExit as end:
            code = end.code
        out, err = capfd.readouterr()
        assert code is None or isinstance(code, int)
        return Result(code or 0, out, err)

    return run


@pytest.fixture
def forget() -> Iterator[Callable[[], None]]:
    """Forget what has been registered since the test began, as a new process would have; done when it ends too."""
    from trilemma import registry as room

    kinds = [room.registry(kind) for kind in room.KINDS]
    names, path = [list(each.items()) for each in kinds], list(sys.path)

    def back() -> None:
        for each, own in zip(kinds, names, strict=True):
            each._parts = dict(own)
            each._elsewhere.clear()
        room._PLUGINS.clear()
        sys.path[:] = path

    yield back
    back()


def recipe_values(data: Path) -> dict[str, Any]:
    return {
        "learner": {"name": "denoising", "parameterization": "v", "variance": "fixed_small", "conditional": True},
        "schedule": {"name": "cosine", "steps": 8},
        "network": {
            **{"name": "unet", "base_channels": 8, "multipliers": [1, 2], "blocks": 1, "attention": []},
            **{"middle_attention": False, "dropout": 0.1},
        },
        "data": {"name": str(data), "validation_split": "train"},
        "training": {
            **{"steps": 6, "batch": 6, "learning_rate": 1.0e-3, "ema": 0.9, "flip": True, "warmup": 2},
            **{"log_every": 1, "validate_every": 3, "validation_images": 6, "grid_every": 0, "checkpoint_every": 2},
        },
        "sampling": {"sampler": "ancestral", "batch": 4},
    }


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An .npz of 24 smooth grey images, 8×8, in four classes."""
    path = tmp_path_factory.mktemp("data") / "ramps.npz"
    x, y, k = np.arange(8)[None, None], np.arange(8)[None, :, None], np.arange(24)[:, None, None]
    images = (x * (k % 4) * 8 + y * (k % 3) * 6 + k).astype(np.uint8)[..., None]
    np.savez(path, arr_0=images, arr_1=np.arange(24) % 4)
    return path


@pytest.fixture
def write_recipe(data: Path, tmp_path: Path) -> Callable[..., Path]:
    """A recipe file, the tiny one with changes such as training={"steps": 3}."""

    def write(name: str = "tiny", **changes: dict[str, Any]) -> Path:
        values = recipe_values(data)
        for section, items in changes.items():
            values[section] = {**values[section], **items}
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(values))
        return path

    return write


@pytest.fixture(scope="session")
def _trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from trilemma.jobs import train

    folder = tmp_path_factory.mktemp("trained")
    (folder / "tiny.yaml").write_text(yaml.safe_dump(recipe_values(data)))
    return train(folder / "tiny.yaml", out=folder / "run").path


@pytest.fixture
def run(_trained: Path, tmp_path: Path) -> Any:
    """A trained run, the test's own copy."""
    from trilemma.runs import Run

    shutil.copytree(_trained, tmp_path / "trained", symlinks=True)
    return Run(tmp_path / "trained")


@pytest.fixture
def half_the_digits(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """`mnist5k` is every second of its digits, for commands that look at all of them; what one process remembers of
    references is of these alone, and forgotten in the end."""
    from trilemma.data import mnist5k
    from trilemma.evaluations import reference

    def forget() -> None:
        for kept in vars(reference).values():
            if hasattr(kept, "cache_clear"):
                kept.cache_clear()

    table = mnist5k._table()[::2]
    monkeypatch.setattr(mnist5k, "_table", lambda: table)
    forget()
    yield
    forget()


@pytest.fixture
def outcome() -> Callable[[Path], dict[str, Any]]:
    """All that a run came to, as plain values: tensors of its newest checkpoint, state, log; less the clock's."""
    from safetensors.torch import load_file

    from trilemma.runs import Run

    def read(path: Path) -> dict[str, Any]:
        last = Run(path).checkpoint
        found: dict[str, Any] = {
            f"{file.stem}/{name}": (str(value.dtype), tuple(value.shape), value.numpy().tobytes())
            for file in last.glob("*.safetensors")
            for name, value in load_file(file).items()
        }
        found["state"] = {
            k: v for k, v in json.loads((last / "state.json").read_text()).items() if k not in ("seconds", "sha256")
        }
        lines = [json.loads(line) for line in (path / "log.jsonl").read_text().splitlines()]
        found["log"] = [{k: v for k, v in line.items() if k not in ("time_s", "images_per_s")} for line in lines]
        return found

    return read


@pytest.fixture
def at_once() -> Iterator[None]:
    """What hangs fails, instead of hanging the suite."""

    def late(*_: object) -> None:
        raise AssertionError("took more than a minute")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)
