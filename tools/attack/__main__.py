"""Attack the commands: kills, full disks, hostile files, settings and command lines of every kind.

    python tools/attack [--share 1.0] [--seed 0] [--minutes 10] [--only kills]

Each attempt is one command in a fork, in a temporary folder of its own, as nobody where this runs as root, with a limit
on its memory and its time, and without a network. It survives if it ends with exit code 0, 1 or 2, with one line that
begins `error:` where it is 2, without a traceback, having changed nothing outside its folder nor what was the user's
in it; a command that goes on for long has to end when it is asked to. Of kills and full disks more is asked, see
`kills` and `left_behind`. Tried and survived by class, and what did not survive, go to
`results/reliability/attack.json`.
"""

from __future__ import annotations

import argparse
import encodings
import json
import os
import pkgutil
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1", MPLBACKEND="agg", NO_COLOR="1")
os.environ["MPLCONFIGDIR"] = tempfile.mkdtemp(prefix="attack-")

import matplotlib.pyplot
import numpy as np
import torch._dynamo  # noqa: F401 — what an optimiser's first step would import, in every fork
import yaml
from hostile import CLASSES
from sandbox import NOBODY, Attempt, Outcome, run
from words import GIVEN, command_lines, setting_lines

from trilemma import cli, exchange, jobs, report  # noqa: F401 — imported once, here
from trilemma.training import checkpoint

HOME = Path(os.environ["MPLCONFIGDIR"])
ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "results" / "reliability" / "attack.json"
MINE = "what the user wrote\n"
RECIPE = {
    "schedule": {"name": "cosine", "steps": 8},
    "network": {"name": "unet", "base_channels": 8, "multipliers": [1, 2], "blocks": 1, "groups": 4, "attention": []},
    "data": {"name": "data.npz"},
    "training": {
        **{"steps": 2, "batch": 6, "ema": 0.9, "log_every": 1, "validate_every": 0, "grid_every": 0},
        **{"checkpoint_every": 1},
    },
    "sampling": {"sampler": "ancestral", "batch": 2},
}


def prepared(base: Path) -> None:
    """What attempts find: a recipe, its data, a trained run, samples, statistics, an evaluation, and the user's own."""
    base.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (24, 8, 8, 1), dtype=np.uint8)
    np.savez(base / "data.npz", arr_0=pixels, arr_1=np.arange(24) % 4)
    (base / "recipe.yaml").write_text(yaml.safe_dump(RECIPE), encoding="utf-8")
    (base / "mine").mkdir(mode=0o777)
    (base / "mine" / "note").write_text(MINE, encoding="utf-8")
    for words in (
        ["train", "recipe.yaml", "--out", "run"],
        ["sample", "run", "-n", "8", "--out", "set.npz"],
        ["stats", "data.npz", "--features", "pixels", "--out", "statistics.npz"],
        ["evaluate", "set.npz", "--reference", "statistics.npz", "--features", "pixels", "--out", "evaluation.json"],
        ["evaluate", "set.npz", "--reference", "data.npz", "--features", "pixels", "--out", "other.json"],
    ):
        outcome = run(Attempt(words, teaches=True), base)
        assert outcome.code == 0, f"{words}: {outcome.code} {outcome.said}"
    subprocess.run(["chmod", "-R", "a+rwX", str(base)], check=True)


def learn(base: Path, room: Path) -> None:
    """Import what commands import as they run: once, and while it can be read."""
    for words in [*([command, *rest] for command, rest in GIVEN.items()), ["train", "recipe.yaml", "--dry-run"]]:
        outcome, fault = attempted(Attempt(words, teaches=True), base, room)
        if fault or (outcome.code and words[0] != "import"):
            print(f"{words}: exit code {outcome.code} {fault or outcome.said}")
        for name in outcome.modules:
            with suppress(Exception):
                import_module(name)
        shutil.rmtree(room)
    for each in pkgutil.iter_modules(encodings.__path__, "encodings."):
        with suppress(ImportError):
            import_module(each.name)


def attempted(attempt: Attempt, base: Path, room: Path) -> tuple[Outcome, str | None]:
    """Make an attempt in a copy of the base; gives what is wrong with it."""

    def prepare(folder: Path) -> None:
        shutil.copytree(base, folder, symlinks=True, dirs_exist_ok=True, copy_function=shutil.copyfile)
        attempt.prepare(folder)

    room.mkdir(exist_ok=True)
    if os.geteuid() == 0:
        os.chown(room, NOBODY, NOBODY)
    outcome = run(replace(attempt, prepare=prepare), room)
    fault = outcome.fault() or attempt.check(room, outcome)
    note = room / "mine" / "note"
    if fault is None and (not note.is_file() or note.read_text(encoding="utf-8") != MINE):
        fault = "the user's folder was changed"
    return outcome, fault


WRITES = {
    "train": ["train", "recipe.yaml", "--out", "disk/run"],
    "sample": ["sample", "run", "-n", "8", "--out", "disk/set.npz"],
    "evaluate": [
        "evaluate",
        "set.npz",
        "--reference",
        "statistics.npz",
        "--features",
        "pixels",
        "--out",
        "disk/e.json",
    ],
    "nll": ["nll", "run", "--reference", "data.npz", "-n", "2", "--out", "disk/nll.json"],
    "export": ["export", "run", "--out", "disk/exported"],
}
"""The commands that write, and where to."""


def left_behind(folder: Path, outcome: Outcome) -> str | None:
    """After a disk that was full: no partial files, and the newest checkpoint opens."""
    disk = folder / "disk"
    partial = [path.name for path in disk.rglob("*.partial")]
    if outcome.code == 2 and partial:
        return f"left {partial[0]}"
    if checkpoint.steps(disk / "run" / "checkpoints"):
        for file in checkpoint.latest(disk / "run" / "checkpoints").glob("*.safetensors"):
            checkpoint.read_tensors(file)
    return None


def full_disks(rng: random.Random, count: int, base: Path, room: Path) -> Iterator[tuple[str, str, str | None]]:
    """Commands that write, where files may not grow beyond a size, or on a small file system if one can be had."""
    for i in range(count):
        words, size = WRITES[sorted(WRITES)[i % len(WRITES)]], int(2 ** rng.uniform(9, 19))
        disk = room / "disk"
        disk.mkdir(parents=True)
        mount = ["mount", "-t", "tmpfs", "-o", f"size={max(size, 4096)}", "none", str(disk)]
        mounted = i % 2 == 0 and not subprocess.run(mount, capture_output=True, check=False).returncode
        disk.chmod(0o777)
        try:
            limit = None if mounted else size
            _, fault = attempted(Attempt(words, check=left_behind, file_bytes=limit), base, room)
        finally:
            if mounted:
                subprocess.run(["umount", str(disk)], check=True)
        yield "full disk", f"{' '.join(words)} ({'file system' if mounted else 'files'} of {size} bytes)", fault


def content(path: Path) -> Any:
    """What a command made, comparably: the tensors of a run's newest checkpoint, or a file's arrays."""
    if path.is_dir():
        newest = checkpoint.latest(path / "checkpoints")
        return {
            f"{file.name}/{name}": value.numpy().tobytes()
            for file in newest.glob("*.safetensors")
            for name, value in checkpoint.read_tensors(file).items()
        }
    with np.load(path) as arrays:
        return {name: arrays[name].tobytes() for name in arrays.files}


def kills(rng: random.Random, count: int, base: Path, room: Path) -> Iterator[tuple[str, str, str | None]]:
    """`train` and `sample`, killed just before a change to the file system, then given again: they come to the same."""
    for name, share in (("train", count // 2), ("sample", count - count // 2)):
        words = WRITES[name]
        whole, fault = attempted(Attempt(words), base, room)
        assert fault is None and whole.code == 0, f"{words}: {fault or whole.said}"
        expected = content(room / words[-1])
        shutil.rmtree(room)
        for at in sorted(rng.sample(range(1, whole.changes + 1), min(share, whole.changes))):
            room.mkdir()
            killed, _ = attempted(Attempt(words, kill_at=at), base, room)
            again = run(Attempt([*words, *(["--resume"] if name == "train" else [])]), room)
            fault = again.fault() or (f"given again: {again.said.strip()}" if again.code else None)
            if fault is None and content(room / words[-1]) != expected:
                fault = "came to something else"
            yield "kill", f"{' '.join(words)} (change {at} of {whole.changes}, {killed.code})", fault


def lines(kind: str, all_words: list[list[str]], base: Path, room: Path) -> Iterator[tuple[str, str, str | None]]:
    for words in all_words:
        yield kind, " ".join(words), attempted(Attempt(words), base, room)[1]


def hostile(rng: random.Random, count: int, base: Path, room: Path) -> Iterator[tuple[str, str, str | None]]:
    for i in range(count):
        make = CLASSES[i % len(CLASSES)]
        words, damage = make(rng)
        yield f"hostile {make.__name__}", " ".join(words), attempted(Attempt(words, prepare=damage), base, room)[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--share", type=float, default=1.0, help="of the attempts: 0.1 is a tenth of each class")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=10.0, help="shared out among the classes; none is begun after")
    parser.add_argument("--only", choices=["kills", "disks", "hostile", "settings", "lines"])
    asked = parser.parse_args()
    rng, base, room = random.Random(asked.seed), HOME / "base", HOME / "room"
    HOME.chmod(0o777)
    matplotlib.pyplot.figure()  # its fonts' list is made once
    prepared(base)
    learn(base, room)
    recipe = str(base / "recipe.yaml")

    def of(count: int) -> int:
        return max(1, round(count * asked.share))

    classes: dict[str, tuple[float, Callable[[], Iterator[tuple[str, str, str | None]]]]] = {
        "kills": (0.15, lambda: kills(rng, of(60), base, room)),
        "disks": (0.1, lambda: full_disks(rng, of(60), base, room)),
        "hostile": (0.2, lambda: hostile(rng, of(320), base, room)),
        "settings": (0.35, lambda: lines("settings", setting_lines(recipe, of(1000), asked.seed), base, room)),
        "lines": (0.2, lambda: lines("command lines", command_lines(of(400), asked.seed), base, room)),
    }
    scores: dict[str, dict[str, Any]] = {}
    failures: list[dict[str, str]] = []
    for name, (part, attempts) in classes.items():
        if asked.only in (None, name):
            until = time.monotonic() + 60 * asked.minutes * part
            for kind, what, fault in attempts():
                score = scores.setdefault(kind, {"class": kind, "tried": 0, "survived": 0})
                score["tried"] += 1
                score["survived"] += fault is None
                if fault is not None:
                    failures.append({"class": kind, "what": what[:300], "fault": fault.replace(str(HOME), "")[:400]})
                    print(f"{kind}: {what[:120]!r}: {failures[-1]['fault']}", flush=True)
                subprocess.run(["chmod", "-R", "u+rwX", str(room)], capture_output=True, check=False)
                shutil.rmtree(room, ignore_errors=True)
                if time.monotonic() > until:
                    print(f"{name}: its time is over", flush=True)
                    break
    for score in scores.values():
        print(f"{score['class']:24} {score['survived']:5} of {score['tried']} survived")
    if asked.only is None:
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        who = "nobody" if os.geteuid() == 0 else "a user"
        made = {"seed": asked.seed, "as": who, "classes": list(scores.values()), "failures": failures}
        text = json.dumps(made, indent=1, ensure_ascii=True)
        RESULTS.write_text(text + "\n", encoding="utf-8")
    sys.exit(bool(failures))


if __name__ == "__main__":
    try:
        main()
    finally:
        shutil.rmtree(HOME, ignore_errors=True)
