"""Hostile files by class: each function damages one thing in the attempt's folder and gives the command that reads it.

The folder holds what `__main__.prepared` makes: recipe.yaml, data.npz, run/, set.npz, evaluation.json, statistics.npz.
"""

from __future__ import annotations

import io
import json
import os
import random
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

Damage = tuple[list[str], Callable[[Path], None]]


def spoilt(rng: random.Random, content: bytes) -> bytes:
    """The bytes of a file, damaged."""
    at = rng.randrange(len(content) + 1)
    flipped = bytearray(content)
    for _ in range(rng.choice([1, 1, 3, 30])):
        flipped[rng.randrange(len(flipped))] ^= 1 << rng.randrange(8)
    return rng.choice(
        [
            b"",
            content[:at],
            content[:at] + rng.randbytes(rng.choice([1, 8, 4096])) + content[at:],
            bytes(flipped),
            bytes(flipped),
            rng.randbytes(rng.choice([1, 100, 10_000])),
            content[:8] + rng.randbytes(64) + content[72:],
            content + content,
            bytes(len(content)),
        ]
    )


def replaced(path: str, seed: int) -> Callable[[Path], None]:
    """Spoil a file of the folder."""

    def damage(folder: Path) -> None:
        place = folder / path
        place.write_bytes(spoilt(random.Random(seed), place.read_bytes()))

    return damage


def arrays(rng: random.Random) -> Damage:
    """An .npz of images: bytes spoilt, or a header, labels or members that promise what is not there."""

    def header(shape: str, descr: str = "|u1") -> bytes:
        text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
        return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()

    def zipped(name: str, content: bytes) -> Callable[[Path], None]:
        def write(folder: Path) -> None:
            with zipfile.ZipFile(folder / "data.npz", "w", zipfile.ZIP_DEFLATED) as file:
                file.writestr(name, content)

        return write

    def labelled(labels: np.ndarray) -> Callable[[Path], None]:
        return lambda folder: np.savez(folder / "data.npz", arr_0=np.zeros((24, 8, 8, 1), np.uint8), arr_1=labels)

    size = rng.choice(["(1000000000000, 8, 8, 1)", "(-1, 8, 8, 1)", "(24, 8, 8, 1000000000)", "()", "(0, 0, 0, 0)"])
    damage = rng.choice(
        [
            replaced("data.npz", rng.randrange(1 << 30)),
            replaced("data.npz", rng.randrange(1 << 30)),
            zipped("arr_0.npy", header(size) + b"\0" * 64),
            zipped("arr_0.npy", header("(24, 8, 8, 1)", rng.choice(["|O", "<f8", "|V8", "|S1000000000"])) + b"\0" * 64),
            zipped(rng.choice(["../arr_0.npy", "/arr_0.npy", "arr_0"]), header("(1,)") + b"\0"),
            zipped("arr_0.npy", header("(2000000000, 1, 1, 1)") + bytes(100_000_000)),
            labelled(np.full(24, rng.choice([10**9, -1, 2**62]), np.int64)),
            labelled(np.array([rng.choice([np.nan, np.inf, 0.5])] * 24)),
        ]
    )
    return rng.choice([["train", "recipe.yaml", "--dry-run"], ["data", "check", "data.npz"], TRAIN]), damage


def images(rng: random.Random) -> Damage:
    """A folder of image files: spoilt, enormous by their header, of other formats and modes."""

    def damage(folder: Path) -> None:
        (folder / "tree" / "a").mkdir(parents=True)
        pixels = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8))
        for i in range(4):
            pixels.save(folder / "tree" / "a" / f"{i}.png")
        file = io.BytesIO()
        pixels.convert(rng.choice(["L", "RGB", "1", "I", "F"])).save(file, "TIFF")
        good = (folder / "tree" / "a" / "0.png").read_bytes()
        huge = good[:16] + struct.pack(">II", rng.choice([30_000, 2**31 - 1]), 30_000) + good[24:]
        name = rng.choice(["x.png", "x.jpg", "\udcff.png", "x" * 200 + ".png", "a\nb.png"])
        content = rng.choice([spoilt(rng, good), spoilt(rng, good), huge, file.getvalue(), b"GIF89a", b"\xff\xd8\xff"])
        (folder / "tree" / "a" / name).write_bytes(content)

    return ["data", "check", "tree"], damage


def trees(rng: random.Random) -> Damage:
    """A folder with links that loop or dangle, pipes, sockets, no permission, depth."""

    def damage(folder: Path) -> None:
        inner = folder / "tree" / "a"
        inner.mkdir(parents=True)
        Image.new("L", (8, 8)).save(inner / "0.png")
        match rng.randrange(7):
            case 0:
                (inner / "loop").symlink_to("..")
            case 1:
                (inner / "1.png").symlink_to(rng.choice(["nothing", "1.png", "/dev/zero", "/dev/stdin"]))
            case 2:
                os.mkfifo(inner / "1.png")
            case 3:
                inner.chmod(rng.choice([0, 0o111, 0o444]))
            case 4:
                deep = inner
                for _ in range(200):
                    deep = deep / "ddd"
                    deep.mkdir(parents=True)
            case 5:
                (inner / "1.png").mkdir()
            case 6:
                (inner / "0.png").chmod(0)

    return rng.choice([["data", "check", "tree"], [*TRAIN, "--set", "data.name=tree"]]), damage


def archives(rng: random.Random) -> Damage:
    """A zip of images: spoilt, with names that lead out, or that grows a thousandfold."""

    def damage(folder: Path) -> None:
        file = io.BytesIO()
        Image.new("L", (8, 8)).save(file, "PNG")
        with zipfile.ZipFile(folder / "images.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(rng.choice(["a/0.png", "../0.png", "/0.png", "a/\\0.png"]), file.getvalue())
            if rng.random() < 0.5:
                archive.writestr("a/1.png", file.getvalue() + bytes(rng.choice([1000, 200_000_000])))
        if rng.random() < 0.5:
            replaced("images.zip", rng.randrange(1 << 30))(folder)

    return ["data", "check", "images.zip"], damage


def recipes(rng: random.Random) -> Damage:
    """A recipe that is no YAML, nests, refers to itself, asks for code, or is of other types."""
    bomb = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 30))
    text = rng.choice(
        [
            "[" * rng.choice([100, 10_000]),
            "{a: " * 3000,
            bomb,
            "a: &a [*a]",
            "!!python/object/apply:os.system ['touch hacked']",
            "training: !!python/name:os.system",
            "data: {name: !!binary aGk=}",
            "base: [" + "demo, " * rng.choice([2, 500]) + "demo]",
            "base: recipe.yaml",
            "- 1",
            "1e999",
            "? [a]\n: b",
            "training: {steps: 2001-01-01}",
            "\ufeffname: x",
            "name: \x07",
            "'': {}",
        ]
    )

    def damage(folder: Path) -> None:
        (folder / "recipe.yaml").write_text(text, encoding="utf-8")

    spoil = replaced("recipe.yaml", rng.randrange(1 << 30))
    return [*TRAIN, *(["--dry-run"] if rng.random() < 0.5 else [])], rng.choice([damage, spoil])


def checkpoints(rng: random.Random) -> Damage:
    """A run one of whose files is spoilt, or whose JSON says other types."""
    last = "run/checkpoints/step-00000002"
    files = [f"{last}/{name}" for name in ("model.safetensors", "ema.safetensors", "optimizer.safetensors")]
    path = rng.choice([*files, f"{last}/state.json", f"{last}/recipe.json", "run/recipe.yaml", "run/log.jsonl"])
    command = rng.choice(
        [
            ["sample", "run", "-n", "2", "--out", "new.npz"],
            ["train", "recipe.yaml", "--out", "run", "--resume", "--set", "training.steps=3"],
            ["export", "run", "--format", "weights", "--out", "exported"],
        ]
    )
    return command, replaced(path, rng.randrange(1 << 30))


def evaluations(rng: random.Random) -> Damage:
    """An evaluation whose JSON is spoilt, nests, or says other types."""

    def damage(folder: Path) -> None:
        place = folder / "evaluation.json"
        values = json.loads(place.read_text())
        if rng.random() < 0.4:
            key = rng.choice(sorted(values))
            values[key] = rng.choice([None, -1, "x", [], {}, float("nan"), 10**400, {"": {"": []}}])
            place.write_text(json.dumps(values))
        else:
            content = rng.choice([b"[" * 100_000, b'{"a":' * 50_000, spoilt(rng, place.read_bytes())])
            place.write_bytes(content)

    return rng.choice([["compare", "evaluation.json", "other.json"], ["report", "evaluation.json"]]), damage


def statistics(rng: random.Random) -> Damage:
    """A file of statistics, or of samples, that is spoilt."""
    name = rng.choice(["statistics.npz", "set.npz"])
    words = ["evaluate", "set.npz", "--reference", "statistics.npz", "--features", "pixels", "--out", "new.json"]
    return words, replaced(name, rng.randrange(1 << 30))


TRAIN = ["train", "recipe.yaml", "--out", "new"]
CLASSES = (arrays, images, trees, archives, recipes, checkpoints, evaluations, statistics)
