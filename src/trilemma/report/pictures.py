"""Pictures put together from samples and strips, as the page shows them."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64, UInt8
from PIL import Image

from trilemma.evaluations.record import Evaluation
from trilemma.process import image_grid
from trilemma.report.sources import same_seeds
from trilemma.report.tables import Row
from trilemma.samplers import Strip

WIDTH = 1100
"""CSS pixels of a page's content, at most."""

_MOST_WAYS = 6
_PNG, _PIXELS = 60_000, 250_000
"""Pictures of a way are kept to the pixel where they take this many bytes, else they are JPEGs of so many pixels at
most: large colour samples would make pages of many megabytes."""

ClassNames = Callable[[Evaluation], Sequence[str]]
"""The names of the classes that an evaluation's samples are of; empty where they are not known."""


@dataclass(frozen=True)
class Picture:
    """A picture as a data URI, what it shows in words, and its size in CSS pixels."""

    uri: str
    alt: str
    width: int
    height: int

    @staticmethod
    def of(image: UInt8[np.ndarray, "h w c"], alt: str, width: int, *, parts: int = 1) -> Picture:
        """Enlarged by whole pixels to at most `width`; the page shrinks one that is wider. One of so many `parts`."""
        scale = max(1, min(4, width // image.shape[1]))
        return Picture(_uri(image, parts), alt, scale * image.shape[1], scale * image.shape[0])


def _uri(image: UInt8[np.ndarray, "h w c"], parts: int) -> str:
    """A data URI of an image with 1 or 3 channels: a PNG, or a JPEG where that would be large."""
    picture, buffer = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image), io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    if buffer.tell() <= _PNG / parts:
        return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
    buffer, scale = io.BytesIO(), min(1.0, (_PIXELS / parts / (picture.width * picture.height)) ** 0.5)
    picture = picture.resize((round(scale * picture.width), round(scale * picture.height)), Image.Resampling.LANCZOS)
    picture.save(buffer, format="JPEG", quality=85, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


@dataclass(frozen=True)
class Line:
    """Samples side by side: of one class, with its name and the share that is recognised, or of any."""

    picture: Picture
    name: str = ""
    share: str = ""


@dataclass(frozen=True)
class Block:
    """Samples of one way: a line a class, or as many as there is room for. Lines, so that paper can break between."""

    label: str
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Shown:
    """The blocks, how many stand side by side, whether some are by class, have the same seeds, and are not all."""

    blocks: tuple[Block, ...]
    across: int
    labelled: bool
    same_seeds: bool
    more: bool


def sample_blocks(rows: Sequence[Row], names: ClassNames = lambda _: ()) -> Shown:
    """Samples of the first ways whose files are there. Raises InputError for a file that cannot be read."""
    found: list[tuple[Row, np.ndarray, np.ndarray | None]] = []
    whole = [row for row in rows if row.evaluation.samples.cut_from is None]
    for row in whole or rows:
        held = row.evaluation.images() if len(found) < _MOST_WAYS else None
        if held is not None and len(held[0]):
            found.append((row, held[0], held[1]))
    across = min(3, len(found))
    return Shown(
        tuple(_block(*one, names(one[0].evaluation), across=across) for one in found),
        across,
        any(labels is not None for _, _, labels in found),
        same_seeds([row.evaluation for row, _, _ in found]),
        len(found) == _MOST_WAYS < len(rows),
    )


def _block(row: Row, images: np.ndarray, labels: np.ndarray | None, names: Sequence[str], *, across: int) -> Block:
    room = (WIDTH - 20 * (across - 1)) // across - 50
    room -= min(110, 8 * max((len(name) for name in names), default=0))
    cell = images.shape[2] + 2
    columns = max(3, min(12, room // (2 * cell)))
    if labels is None:
        columns = min(columns, len(images))
        down = max(1, min(8, len(images) // columns))
        grid = images[: down * columns].reshape(down, columns, *images.shape[1:])
        said = [f"Samples: {row.label}"] * down
        return Block(row.label, tuple(map(Line, _lines(grid, said, room))))
    grid, classes = by_class(images, labels, columns=columns)
    known = row.evaluation.metrics.get("recognised_by_class")
    found = [known[c] if isinstance(known, list) and c < len(known) else None for c in classes]
    shares = [f"{100 * share:.0f} %" if isinstance(share, int | float) else "" for share in found]
    titles = named(names, classes)
    pictures = _lines(grid, [f"Samples of class {title}: {row.label}" for title in titles], room)
    return Block(row.label, tuple(map(Line, pictures, titles, shares)))


def _lines(grid: UInt8[np.ndarray, "rows columns h w c"], said: Sequence[str], room: int) -> list[Picture]:
    return [Picture.of(tile(one[None]), alt, room, parts=len(grid)) for one, alt in zip(grid, said, strict=True)]


def named(names: Sequence[str], classes: Sequence[int]) -> list[str]:
    """Classes by their names, by their numbers where these are not known."""
    return [names[one] if one < len(names) else str(one) for one in classes]


@dataclass(frozen=True)
class ShownStrip:
    """A strip's picture, the time over each column, and what it shows."""

    caption: str
    note: str
    times: tuple[float, ...]
    picture: Picture


def shown_strip(strip: Strip, caption: str, note: str) -> ShownStrip:
    """As many steps of a strip, evenly chosen, as a page is wide, of up to six rows, one where images are large."""
    height, cell = strip.images.shape[2], strip.images.shape[3] + 2
    rows = max(1, min(6, 420 // (height + 2)))
    images, times = thin_strip(strip.images, strip.times, most=max(4, min(16, WIDTH // (2 * cell))))
    return ShownStrip(caption, note, tuple(times), Picture.of(tile(images[:rows]), f"{caption}, {note}", WIDTH))


def tile(images: UInt8[np.ndarray, "rows columns h w c"], *, gap: int = 2) -> UInt8[np.ndarray, "h w c"]:
    """One picture of a table of images, each in the middle of a cell `gap` pixels larger than itself."""
    rows, columns, height, width = images.shape[:4]
    grid = image_grid(images.reshape(rows * columns, *images.shape[2:]), columns, padding=gap)
    # Half of the outer padding goes, so that equal columns of labels beside the picture line up with its cells.
    start = gap - gap // 2
    return grid[start : start + rows * (height + gap), start : start + columns * (width + gap)]


def by_class(
    images: UInt8[np.ndarray, "n h w c"], labels: Int64[np.ndarray, " n"], *, columns: int, most: int = 20
) -> tuple[UInt8[np.ndarray, "rows columns h w c"], list[int]]:
    """The first `columns` images of each class, in their order, and the classes; at most `most` classes, the first.

    A class with fewer images is filled up with white ones. Raises ValueError where labels and images differ in number.
    """
    if len(images) != len(labels):
        raise ValueError(f"{len(images)} images, but {len(labels)} labels")
    classes = [int(label) for label in np.unique(labels)[:most]]
    table = np.full((len(classes), columns, *images.shape[1:]), 255, dtype=np.uint8)
    for row, label in enumerate(classes):
        found = images[labels == label][:columns]
        table[row, : len(found)] = found
    return table, classes


def thin_strip(
    images: UInt8[np.ndarray, "rows steps h w c"], times: Sequence[float], *, most: int
) -> tuple[UInt8[np.ndarray, "rows steps h w c"], list[float]]:
    """A strip of at most `most` steps, evenly chosen, both ends kept."""
    steps = images.shape[1]
    chosen = np.unique(np.linspace(0, steps - 1, min(most, steps)).round().astype(int))
    return images[:, chosen], [float(times[i]) for i in chosen]
