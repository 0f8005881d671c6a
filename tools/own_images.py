"""Images as people have them, each from `train` to `report` by three commands.

    python tools/own_images.py [SET …] [--root own-images] [--time 10m]

Makes what is not there yet in --root: 300 pictures of three classes, grey ones, oblong ones, twenty without classes,
100 000 small files, a zip, a data set of the hub as it lies there, and MNIST's training digits as PNG; runs

    trilemma train DATA, trilemma evaluate runs/NAME, trilemma report runs/NAME

on each with their defaults: the 300 for --time, the digits for as many steps as the demo, measured as that is, the
others, whose point is that they go through, for some steps and images. Writes the seconds of each to
results/own-images/commands.json, beside it the report of the 300 and their recipe, and the evaluations of both.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from kept import HOME
from PIL import Image

from trilemma.data import open_data
from trilemma.machine.devices import process_state
from trilemma.machine.environment import environment
from trilemma.machine.files import write_json

RESULTS = HOME / "results" / "own-images"
KINDS = ("circle", "cross", "star")
MANY = 100_000
FEW = ("--steps", "20")
HOW: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "products": ((), ()),
    # The ImageNet network looks at some 30 images a second of a core: at all that are trained on, for an hour.
    "many": (FEW, ("-n", "100", "--features", "pixels")),
    "digits": (("--steps", "900"), ("--reference", "mnist5k:train", "-n", "500")),
}
"""What the commands of a set are given; of the others, some steps and images."""


def drawn(
    folder: Path, count: int, size: int | tuple[int, int], channels: int = 3, kinds: tuple[str, ...] = KINDS
) -> None:
    """`count` drawn shapes: in a folder a kind, or side by side where none are named."""
    if folder.exists():
        return
    data = open_data("shapes", size=size, channels=channels)
    assert data.labels is not None and data.classes is not None
    labels = [data.classes[k] for k in data.labels]
    chosen = [i for i, kind in enumerate(labels) if kind in kinds or not kinds]
    if kinds:
        each = -(-count // len(kinds))
        chosen = [i for kind in kinds for i in [i for i in chosen if labels[i] == kind][:each]]
    images, _ = data.batch(chosen[:count])
    for n, (i, image) in enumerate(zip(chosen, images, strict=False)):
        save(folder / (labels[i] if kinds else ".") / f"{n:05d}.png", image)


def save(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(path)


def many(folder: Path) -> None:
    """100 000 files of 16×16: two waves that cross, no two alike."""
    if folder.exists():
        return
    draw, (y, x) = np.random.default_rng(0), np.mgrid[:16, :16] / 16 * np.pi
    for i in range(MANY):
        a, b, c, d = draw.uniform(0.5, 4, 4)
        wave = np.sin(a * x + 5 * c) + np.sin(b * y + 5 * d)
        save(folder / f"{i // 1000:03d}" / f"{i:06d}.png", ((wave + 2) / 4 * 255).astype(np.uint8)[..., None])


def parquet(folder: Path, images: Path) -> None:
    """The images as a data set of the hub lies there: parquet with an image column and named classes."""
    import datasets

    if not folder.exists():
        found = datasets.load_dataset("imagefolder", data_dir=str(images), split="train")
        found.to_parquet(folder / "data" / "train-00000-of-00001.parquet")


def digits(folder: Path, root: str | None) -> None:
    """MNIST's 60 000 training digits, a folder each class."""
    if folder.exists():
        return
    data = open_data("mnist", root=root)
    for start in range(0, len(data), 1000):
        images, labels = data.batch(range(start, min(start + 1000, len(data))))
        assert labels is not None and data.classes is not None
        for i, (image, label) in enumerate(zip(images, labels, strict=True), start):
            save(folder / data.classes[label] / f"{i:05d}.png", image)


def call(*words: str) -> float:
    """Seconds of a command of trilemma's, which has to succeed."""
    print("$ trilemma", *words, flush=True)
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "trilemma", *words], check=True)
    return round(time.perf_counter() - began, 1)


SETS = ("products", "grey", "oblong", "twenty", "many", "zipped.zip", "hub", "digits")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sets", nargs="*", default=SETS, help=f"of {', '.join(SETS)}; all unless named")
    parser.add_argument("--root", type=Path, default=Path("own-images"))
    parser.add_argument("--time", default="10m")
    parser.add_argument("--mnist", help="Where MNIST's files lie; downloaded unless given.")
    asked = parser.parse_args()
    root = asked.root
    drawn(root / "products", 300, 48)
    drawn(root / "grey", 300, 28, channels=1)
    drawn(root / "oblong", 300, (30, 42))
    drawn(root / "twenty", 20, 32, kinds=())
    many(root / "many")
    if not (root / "zipped.zip").exists():
        call("data", "pack", str(root / "products"), "--out", str(root / "zipped.zip"))
    parquet(root / "hub", root / "products")
    if "digits" in asked.sets:
        digits(root / "digits", asked.mnist)
    record = RESULTS / "commands.json"
    found = json.loads(record.read_text())["seconds"] if record.exists() else {}
    for name in asked.sets:
        data = f"hub:{root / name}" if name == "hub" else str(root / name)
        run = root / "runs" / name.partition(".")[0]
        length, n = HOW.get(name, (FEW, ("-n", "100")))
        length = ("--time", asked.time) if name == "products" else length
        found[name] = {
            "train": call("train", data, "--out", str(run), *length),
            "evaluate": call("evaluate", str(run), *n),
            "report": call("report", str(run)),
        }
        print(name, found[name], flush=True)
        write_json(record, {"seconds": found, "environment": environment(process_state().device)})
    for name in {"products", "digits"} & set(asked.sets):
        run, place = root / "runs" / name, RESULTS / name
        place.mkdir(exist_ok=True)
        for file in (run / "evaluations").glob("*.json"):
            shutil.copy(file, place)
        if name == "products":
            for file in (run / "report.html", run / "recipe.yaml"):
                shutil.copy(file, RESULTS)


if __name__ == "__main__":
    main()
