"""Where images come from: sources by name or path, their labels, their checks, and sample sets at the edge."""

from __future__ import annotations

from trilemma.data.arrays import image_set
from trilemma.data.catalogue import SOURCES, Opening, available_splits, counted, open_data, outline, parse_reference
from trilemma.data.check import DataReport, check
from trilemma.data.decoding import DamagedImageError, Resize, check_size
from trilemma.data.images import ImageSet, MemorySet, Outline, Spread, outlined, split_parts
from trilemma.data.pack import pack
from trilemma.data.samples import check_out, check_png, read_samples, write_png, write_samples
from trilemma.data.shapes import ShapesSet

__all__ = [
    "SOURCES",
    "DamagedImageError",
    "DataReport",
    "ImageSet",
    "MemorySet",
    "Opening",
    "Outline",
    "Resize",
    "ShapesSet",
    "Spread",
    "available_splits",
    "check",
    "check_out",
    "check_png",
    "check_size",
    "counted",
    "image_set",
    "open_data",
    "outline",
    "outlined",
    "pack",
    "parse_reference",
    "read_samples",
    "split_parts",
    "write_png",
    "write_samples",
]
