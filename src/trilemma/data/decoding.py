"""Image files to uint8 arrays: every kind of pixel becomes grey or RGB, or is refused with its name."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from trilemma.errors import InputError, shown
from trilemma.process.pixels import reduced, to_model, to_uint8

Size = int | tuple[int, int]
"""A square's side, or (height, width)."""

Resize = Literal["bicubic", "area"]
"""How images become of another size: see `fit`."""

_GREY = {"1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B", "I;16N"}
_FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "PPM")  # no EPS, which Pillow would have Ghostscript run
_TURNED = {5, 6, 7, 8}  # EXIF orientations that swap height and width
_ORIENTATION = 0x0112

PIXEL_LIMIT = 1024**3 // 4 // 3
"""Pixels of an image, 89 million, from which on Pillow warns of a decompression bomb: a quarter of a GiB in RGB."""


class DamagedImageError(InputError):
    """A file that cannot be read as an image: `file` and the `reason` it gave."""

    def __init__(self, file: str, reason: str) -> None:
        super().__init__(f"{file}: cannot be read as an image ({reason})")
        self.file, self.reason = file, reason


@contextmanager
def blaming(file: str) -> Iterator[None]:
    """Turn whatever goes wrong while `file` is read into a `DamagedImageError` that names it."""
    try:
        yield
    except DamagedImageError:
        raise
    except UnidentifiedImageError as error:
        raise DamagedImageError(file, "its content is no known image format") from error
    except Exception as error:  # Pillow, zipfile and zlib raise all there is over damaged files
        reason = " ".join(str(error).split()).removeprefix(f"{file} ")
        raise DamagedImageError(file, reason or type(error).__name__) from error


@contextmanager
def _opened(data: io.BufferedIOBase | io.BytesIO, file: str) -> Iterator[Image.Image]:
    """The image, nothing of it decoded yet but its header."""
    with blaming(file), warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(data, formats=_FORMATS) as image:  # type: ignore[arg-type]
            if image.width * image.height > PIXEL_LIMIT:
                raise ValueError(f"{image.width}x{image.height} pixels, expected at most {PIXEL_LIMIT:,}")
            yield image


def check_size(size: Size | None) -> tuple[int, int] | None:
    """`size` as (height, width).

    Raises:
        InputError: it is not a whole number or a pair of them, each at least 1, or more than `PIXEL_LIMIT` together.
    """
    if size is None:
        return None
    pair = tuple(size) if isinstance(size, list | tuple) else (size, size)
    if len(pair) != 2 or not all(isinstance(side, int) and side >= 1 for side in pair):
        raise InputError(f"data.size: {shown(size)}, expected a whole number >= 1 or a pair (height, width)")
    if pair[0] * pair[1] > PIXEL_LIMIT:
        raise InputError(f"data.size: {shown(size)}, expected at most {PIXEL_LIMIT:,} pixels an image")
    return pair[0], pair[1]


def check_channels(channels: int | None) -> None:
    """Refuse a channel count that is neither 1 (grey) nor 3 (RGB) nor None (as stored).

    Raises:
        InputError: naming the value.
    """
    if channels not in (None, 1, 3):
        raise InputError(f"data.channels: {channels!r}, expected 1 (grey) or 3 (RGB)")


def header(data: io.BufferedIOBase | io.BytesIO, file: str) -> tuple[str, tuple[int, int]]:
    """Pillow's mode and the upright (height, width) of an image, from its header alone.

    Raises:
        DamagedImageError: the header cannot be read.
    """
    with _opened(data, file) as image:
        width, height = image.size
        if _orientation(image) in _TURNED:
            width, height = height, width
        return image.mode, (height, width)


def native_channels(mode: str) -> int:
    """1 for the modes that hold grey values, 3 for all others, palettes among them."""
    return 1 if mode in _GREY else 3


def decode(
    data: bytes,
    file: str,
    *,
    size: tuple[int, int] | None = None,
    channels: int | None = None,
    resize: Resize = "bicubic",
) -> UInt8[np.ndarray, "h w c"]:
    """One image file as uint8 (height, width, 1 or 3).

    Grey and two-valued files give 1 channel, all others 3, unless `channels` asks for one of them (RGB to grey is
    ITU-R 601 luma). Transparency is composited over white. 16-bit grey is rescaled to 8 bits (v / 257, rounded);
    of 16-bit colour Pillow keeps the high byte. EXIF orientation is applied. Of an animation, the first frame is read.
    With `size`, see `fit`.

    Raises:
        DamagedImageError: the file is truncated, is no image, has more than `PIXEL_LIMIT` pixels, or holds values
            without a known range (float, 32 bits).
    """
    with _opened(io.BytesIO(data), file) as image:
        turned = _orientation(image) != 1
        image.load()
        pixels = _eight_bits(ImageOps.exif_transpose(image) if turned else image, image.format, file)
        return _array(fit(_with_channels(pixels, channels), size, resize))


def fit(image: Image.Image, size: tuple[int, int] | None, resize: Resize = "bicubic") -> Image.Image:
    """The largest centred part of `image` with the proportions of `size` (height, width), resampled to it.

    `bicubic` is Pillow's filter, which averages over more than the covered area when it reduces (antialiased); `area`
    the mean of what each pixel covers (`process.reduced`), as an upsampler is trained on.
    An image that has the size already is returned as it is.
    """
    if size is None or (image.height, image.width) == size:
        return image
    height, width = size
    scale = min(image.height / height, image.width / width)
    crop_height = min(image.height, max(1, round(height * scale)))
    crop_width = min(image.width, max(1, round(width * scale)))
    top, left = (image.height - crop_height) // 2, (image.width - crop_width) // 2
    cropped = image.crop((left, top, left + crop_width, top + crop_height))
    if resize == "area":
        levels = (0.0, 255.0)
        found = to_uint8(reduced(to_model(_array(cropped)[None], levels), size, levels), levels)[0]
        return Image.fromarray(found[:, :, 0] if found.shape[2] == 1 else found)
    return cropped.resize((width, height), Image.Resampling.BICUBIC)


def adapt(
    images: UInt8[np.ndarray, "n h w c"],
    *,
    size: tuple[int, int] | None = None,
    channels: int | None = None,
    resize: Resize = "bicubic",
) -> UInt8[np.ndarray, "n g v d"]:
    """Decoded images at another size or channel count, converted as `decode` converts files."""
    count, height, width, depth = images.shape
    if (size is None or size == (height, width)) and channels in (None, depth):
        return images
    out = np.empty((count, *(size or (height, width)), channels or depth), dtype=np.uint8)
    for i, pixels in enumerate(images):
        image = Image.fromarray(pixels[:, :, 0] if depth == 1 else pixels)
        out[i] = _array(fit(_with_channels(image, channels), size, resize))
    return out


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 (upright) to 8, from the header: a PNG that states it after its pixels counts as upright."""
    if image.format == "PNG" and "exif" not in image.info:
        return 1  # asking would decode the whole file
    return int(image.getexif().get(_ORIENTATION) or 1)


def _eight_bits(image: Image.Image, format: str | None, file: str) -> Image.Image:
    """`image` in mode L or RGB."""
    mode = image.mode
    if mode.startswith("I"):
        # Pillow reads 16-bit PNG and PGM as 32-bit "I" in some versions; elsewhere "I" has no known range.
        if mode == "I" and format not in ("PNG", "PPM"):
            raise DamagedImageError(file, "32-bit pixels without a known range, expected 8 or 16 bits")
        values = np.asarray(image, dtype=np.int64)
        return Image.fromarray(((values + 128) // 257).clip(0, 255).astype(np.uint8))
    if mode == "F":
        raise DamagedImageError(file, "floating-point pixels without a known range, expected 8 or 16 bits")
    if mode in ("LA", "La", "RGBA", "RGBa", "PA") or "transparency" in image.info:
        grey = native_channels(mode) == 1
        front = image.convert("RGBA")
        over = Image.alpha_composite(Image.new("RGBA", front.size, "white"), front)
        return over.convert("RGB").getchannel(0) if grey else over.convert("RGB")
    return image.convert("L" if native_channels(mode) == 1 else "RGB")


def _with_channels(image: Image.Image, channels: int | None) -> Image.Image:
    if channels is None or native_channels(image.mode) == channels:
        return image
    return image.convert("L" if channels == 1 else "RGB")


def _array(image: Image.Image) -> UInt8[np.ndarray, "h w c"]:
    pixels = np.array(image)
    return pixels[:, :, None] if pixels.ndim == 2 else pixels
