"""Small files to open: images as bytes, folders, zips, IDX files and CIFAR records made on the spot."""

from __future__ import annotations

import gzip
import io
import struct
from collections.abc import Callable
from http.server import SimpleHTTPRequestHandler
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def png_bytes(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    grey = pixels.ndim == 3 and pixels.shape[2] == 1
    Image.fromarray(pixels[:, :, 0] if grey else pixels).save(stream, format="PNG")
    return stream.getvalue()


@pytest.fixture
def png() -> Callable[[np.ndarray], bytes]:
    """Encode a uint8 (h, w), (h, w, 1) or (h, w, 3) array."""
    return png_bytes


@pytest.fixture
def rgb() -> np.ndarray:
    """Six random RGB images, 6x8x10x3."""
    return np.random.default_rng(0).integers(0, 256, (6, 8, 10, 3), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    """Write {name: array or bytes} below a new folder."""

    def write(files: dict[str, np.ndarray | bytes], where: str = "pictures") -> Path:
        for name, content in files.items():
            path = tmp_path / where / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else png_bytes(content))
        return tmp_path / where

    return write


@pytest.fixture
def idx_bytes() -> Callable[[np.ndarray], bytes]:
    def make(values: np.ndarray) -> bytes:
        head = bytes((0, 0, 8, values.ndim)) + struct.pack(f">{values.ndim}I", *values.shape)
        return gzip.compress(head + values.tobytes())

    return make


@pytest.fixture
def quiet() -> type[SimpleHTTPRequestHandler]:
    """A handler that serves files and says nothing of it."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    return Quiet
