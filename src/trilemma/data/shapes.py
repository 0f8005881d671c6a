"""`shapes`: drawn RGB images of ten classes, any size and number, each a function of (seed, split, index) alone."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int64, UInt8

from trilemma.data.images import MEMORY_LIMIT, ImageSet, outlined, split_parts
from trilemma.errors import InputError
from trilemma.registry import register

CLASSES = ("circle", "ring", "square", "frame", "triangle", "diamond", "cross", "star", "crescent", "bars")
COUNTS = {"train": 10_000, "test": 1_000}
_STREAM = {"train": 0, "test": 1}


@register("data", "shapes")
@outlined((3, 32, 32), CLASSES)
class ShapesSet(ImageSet):
    """Drawn shapes, 3x32x32 or any size, 10 classes, nothing to download (train 10 000, test 1 000).

    One shape an image on a plain ground: random colours that differ clearly, random place, scale and small turn.

    Image i shows class i mod 10, so that classes are balanced. It is drawn when first asked for and, while all of them
    take less than `MEMORY_LIMIT`, kept. Edges are antialiased: a pixel's share of the shape is its signed distance to
    the outline, in pixels, clipped to +-1/2.

    Args:
        split: `train` or `test` (different images), or `all`: `train` followed by `test`.
        count: how many; None takes `COUNTS`. For `all`, it must be None.
        size: (height, width) in pixels, each at least 8.
        seed: another seed (>= 0), other images.

    Raises:
        InputError: no such split, or a count, size or seed out of range.
    """

    def __init__(
        self, split: str = "train", *, count: int | None = None, size: tuple[int, int] = (32, 32), seed: int = 0
    ) -> None:
        parts = split_parts("shapes", split, tuple(COUNTS))
        if count is not None and (count < 1 or len(parts) > 1):
            raise InputError(f"shapes: count {count!r}, expected a whole number >= 1 with the split train or test")
        if seed < 0:
            raise InputError(f"shapes: seed {seed}, expected a whole number >= 0")
        if min(size) < 8:
            raise InputError(f"data.size: {size[0]}x{size[1]} is too small for shapes, expected at least 8x8")
        counts = [count or COUNTS[part] for part in parts]
        self._streams = np.repeat([_STREAM[part] for part in parts], counts)
        self._numbers = np.concatenate([np.arange(n, dtype=np.int64) for n in counts])
        self._seed, self._size = seed, size
        total = len(self._numbers)
        keep = total * size[0] * size[1] * 3 < MEMORY_LIMIT
        super().__init__(
            "shapes",
            split,
            (3, *size),
            count=total,
            labels=self._numbers % len(CLASSES),
            classes=CLASSES,
            in_memory=keep,
        )
        self._drawn = np.zeros(total if keep else 0, dtype=bool)
        self._kept = np.empty((total if keep else 0, *size, 3), dtype=np.uint8)

    def _images(self, indices: Int64[np.ndarray, " n"]) -> UInt8[np.ndarray, "n h w c"]:
        if not self.in_memory:
            return self._draw(indices)
        missing = np.unique(indices[~self._drawn[indices]])
        for start in range(0, len(missing), 256):
            some = missing[start : start + 256]
            self._kept[some] = self._draw(some)
            self._drawn[some] = True
        return self._kept[indices]

    def _draw(self, indices: Int64[np.ndarray, " n"]) -> UInt8[np.ndarray, "n h w c"]:
        seeds = [(self._seed, int(self._streams[i]), int(self._numbers[i])) for i in indices]
        draws = np.array([np.random.default_rng(key).random(10) for key in seeds]).reshape(-1, 10)
        kinds = self._numbers[indices] % len(CLASSES)
        out = np.empty((len(indices), *self._size, 3), dtype=np.uint8)
        for kind in np.unique(kinds):
            at = kinds == kind
            out[at] = _render(CLASSES[kind], draws[at], self._size)
        return out


def _render(kind: str, draws: Float[np.ndarray, "n 10"], size: tuple[int, int]) -> UInt8[np.ndarray, "n h w 3"]:
    height, width = size
    side = min(size)
    radius = side * (0.24 + 0.18 * draws[:, 0])
    # The whole shape stays inside: the centre keeps its radius, and a pixel, away from every edge.
    centre_y = radius + 1 + draws[:, 1] * (height - 2 * radius - 2)
    centre_x = radius + 1 + draws[:, 2] * (width - 2 * radius - 2)
    turn = (draws[:, 3] - 0.5) * (np.pi / 6)
    ground, ink = draws[:, 4:7], draws[:, 7:10]
    # Too close to be told apart: half a turn in each channel is a distance of 0.87.
    close = np.linalg.norm(ground - ink, axis=1) < 0.5
    ink = np.where(close[:, None], (ground + 0.5) % 1.0, ink)

    def column(values: np.ndarray) -> np.ndarray:
        return values[:, None, None]

    y = np.arange(height)[None, :, None] + 0.5 - column(centre_y)
    x = np.arange(width)[None, None, :] + 0.5 - column(centre_x)
    cos, sin, scale = column(np.cos(turn)), column(np.sin(turn)), column(radius)
    distance = _distance(kind, (cos * x + sin * y) / scale, (cos * y - sin * x) / scale) * scale
    share = np.clip(0.5 - distance, 0.0, 1.0)[..., None]
    pixels = ground[:, None, None, :] * (1 - share) + ink[:, None, None, :] * share
    return np.round(pixels * 255).astype(np.uint8)


def _distance(kind: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Signed distance of points to the outline of a shape of radius 1, negative inside; y points down."""
    match kind:
        case "circle":
            return np.hypot(x, y) - 0.9
        case "ring":
            return np.abs(np.hypot(x, y) - 0.72) - 0.2
        case "square":
            return _box(x, y, 0.7, 0.7)
        case "frame":
            return np.abs(_box(x, y, 0.58, 0.58)) - 0.14
        case "triangle":
            return _polygon(x, y, _wheel([1.0] * 3))
        case "diamond":
            return _polygon(x, y, np.array([(0, -1), (0.6, 0), (0, 1), (-0.6, 0)], dtype=float))
        case "cross":
            return np.minimum(_box(x, y, 0.9, 0.26), _box(x, y, 0.26, 0.9))
        case "star":
            return _polygon(x, y, _wheel([1.0, 0.42] * 5))
        case "crescent":
            return np.maximum(np.hypot(x, y) - 0.9, 0.72 - np.hypot(x - 0.5, y))
        case _:  # bars
            return _box(x, np.abs(y) - 0.44, 0.74, 0.22)


def _box(x: np.ndarray, y: np.ndarray, half_width: float, half_height: float) -> np.ndarray:
    across, down = np.abs(x) - half_width, np.abs(y) - half_height
    outside = np.hypot(np.maximum(across, 0), np.maximum(down, 0))
    return outside + np.minimum(np.maximum(across, down), 0)


def _wheel(radii: list[float]) -> Float[np.ndarray, "corners 2"]:
    """Corners at equal angles, the first one on top."""
    angle = 2 * np.pi * np.arange(len(radii)) / len(radii)
    return np.array(radii)[:, None] * np.stack([np.sin(angle), -np.cos(angle)], axis=1)


def _polygon(x: np.ndarray, y: np.ndarray, corners: Float[np.ndarray, "corners 2"]) -> np.ndarray:
    """Distance to the nearest edge; the sign counts the edges that a ray to the right crosses."""
    nearest = np.full(np.broadcast(x, y).shape, np.inf)
    inside = np.zeros(nearest.shape, dtype=bool)
    for (ax, ay), (bx, by) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        ex, ey = bx - ax, by - ay
        along = np.clip(((x - ax) * ex + (y - ay) * ey) / (ex * ex + ey * ey), 0, 1)
        nearest = np.minimum(nearest, (x - ax - along * ex) ** 2 + (y - ay - along * ey) ** 2)
        if ey != 0:
            inside ^= ((ay > y) != (by > y)) & (x < ax + (y - ay) * ex / ey)
    return np.where(inside, -1.0, 1.0) * np.sqrt(nearest)
