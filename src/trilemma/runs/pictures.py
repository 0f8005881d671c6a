"""Pictures of samples: a grid, and the strip from noise to image."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from trilemma.data import image_grid, write_png
from trilemma.errors import InputError
from trilemma.machine.files import check_writable
from trilemma.runs.run import Run
from trilemma.runs.sample_sets import Samples


@dataclass(frozen=True)
class Pictures:
    """PNG files to write of a sampling: `grid` of the first 100 samples, `strip` of the way of the first ten seeds.

    Raises InputError at once, before anything is sampled, for a path that cannot be written or is no .png."""

    grid: Path | None = None
    strip: Path | None = None

    def __post_init__(self) -> None:
        for name, path in (("grid", self.grid), ("strip", self.strip)):
            if path is None:
                continue
            if path.suffix.lower() != ".png":
                raise InputError(f"{name}: {path} should end in .png")
            check_writable(path, name)

    def write(self, run: Run, samples: Samples, settings: dict[str, Any]) -> list[Path]:
        """Write them; returns what was written."""
        written = []
        if self.grid is not None:
            written.append(write_png(self.grid, grid_of(samples)))
        if self.strip is not None:
            images, _ = run.reverse_strip(samples.seeds[:10], samples.labels, **settings)
            rows, columns = images.shape[:2]
            written.append(
                write_png(self.strip, image_grid(images.reshape(rows * columns, *images.shape[2:]), columns))
            )
        return written


def grid_of(samples: Samples) -> UInt8[np.ndarray, "h w c"]:
    """The first 100 samples, ten a row: of a balanced model of ten classes each column is a class."""
    return image_grid(samples.images[:100], min(10, len(samples)))
