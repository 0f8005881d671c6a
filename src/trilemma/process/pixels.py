"""Images at the edge are bytes, uint8 NHWC; inside they are a model's floats, NCHW in its range."""

from __future__ import annotations

import io

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor
from torch.nn import functional

from trilemma.errors import InputError


def check_images(images: np.ndarray, what: str) -> None:
    """Refuse anything but uint8 NHWC with 1 or 3 channels.

    Raises:
        InputError: naming `what`, the dtype or shape found, and the one expected.
    """
    if images.dtype != np.uint8:
        raise InputError(f"{what}: images are {images.dtype}, expected uint8 with values 0..255")
    if images.ndim != 4 or images.shape[3] not in (1, 3) or 0 in images.shape[1:3]:
        turned = images.ndim == 4 and images.shape[1] in (1, 3)
        hint = "; it looks like NCHW, so transpose it" if turned else ""
        raise InputError(f"{what}: images have shape {images.shape}, expected (n, height, width, 1 or 3){hint}")


def to_model(
    images: UInt8[np.ndarray, "n h w c"], range: tuple[float, float] = (-1.0, 1.0)
) -> Float[Tensor, "n c h w"]:
    """Bytes to floats: 0 becomes `range[0]`, 255 becomes `range[1]`, linearly. float32 on the CPU.

    Raises:
        InputError: not uint8 NHWC with 1 or 3 channels.
    """
    check_images(images, "to_model")
    low, high = range
    pixels = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2)
    # Divided first, so that 255 becomes `high` exactly.
    return pixels.to(torch.float32, memory_format=torch.contiguous_format).div_(255).mul_(high - low).add_(low)


def to_uint8(
    images: Float[Tensor, "n c h w"], range: tuple[float, float] = (-1.0, 1.0)
) -> UInt8[np.ndarray, "n h w c"]:
    """Floats to bytes: the inverse of `to_model`, rounded to the nearest byte and clamped to 0..255. NaN becomes 0."""
    low, high = range
    pixels = images.detach().to(device="cpu", dtype=torch.float32)
    scaled = ((pixels - low) * (255 / (high - low))).nan_to_num(nan=0.0).round_().clamp_(0, 255)
    return scaled.to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()


def reduced(
    images: Float[Tensor, "n c h w"], size: tuple[int, int], range: tuple[float, float] = (-1.0, 1.0)
) -> Float[Tensor, "n c h2 w2"]:
    """Images at a lower resolution (h2, w2): each pixel the mean of the area it covers (as guided-diffusion's training
    of upsamplers has it), rounded to a grey level, as a finished image's are. `range` and type stay."""
    low, high = range
    # In grey levels sums are exact, so that the mean is the same however the range is written.
    levels = ((images.float() - low) * (255 / (high - low))).round()
    mean = functional.interpolate(levels, size=size, mode="area").round()
    return (mean / 255 * (high - low) + low).to(images.dtype)


def image_grid(
    images: UInt8[np.ndarray, "n h w c"], columns: int, *, padding: int = 2, fill: int = 255
) -> UInt8[np.ndarray, "gh gw c"]:
    """Images side by side, `columns` to a row, row by row, `padding` pixels of grey value `fill` between and around.

    Raises:
        InputError: no images, not uint8 NHWC, or `columns` below 1.
    """
    check_images(images, "image_grid")
    if not len(images) or columns < 1:
        raise InputError(f"image_grid: {len(images)} images in {columns} columns, expected at least one of each")
    count, height, width, channels = images.shape
    columns = min(columns, count)
    rows = -(-count // columns)
    step_y, step_x = height + padding, width + padding
    grid = np.full((rows * step_y + padding, columns * step_x + padding, channels), fill, dtype=np.uint8)
    for i, image in enumerate(images):
        top, left = (i // columns) * step_y + padding, (i % columns) * step_x + padding
        grid[top : top + height, left : left + width] = image
    return grid


def png(image: UInt8[np.ndarray, "h w c"], level: int = 6) -> bytes:
    """One grey or RGB image as a PNG file's bytes; `level`: of compression, 0 (none) to 9.

    Raises:
        InputError: not uint8 HWC with 1 or 3 channels.
    """
    check_images(image[None], "png")
    content = io.BytesIO()
    Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).save(content, format="PNG", compress_level=level)
    return content.getvalue()
