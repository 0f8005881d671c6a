"""What jobs measure of a run: images as its own are, and what their files say of it."""

from __future__ import annotations

from typing import Any

from trilemma.data import ImageSet, parse_reference
from trilemma.errors import InputError
from trilemma.machine.files import sha256
from trilemma.runs.run import Run


def open_like(run: Run, reference: str, root: str | None) -> ImageSet:
    """The images DATA:SPLIT as the run's own were opened. Raises InputError where they have another shape."""
    name, split = parse_reference(reference)
    data = run.recipe.data.opening(name, root)(name, split)
    if data.shape != run.recipe.images.shape:
        raise InputError(f"reference {reference!r}: its images are {data.shape}, the run's {run.recipe.images.shape}")
    return data


def subject(run: Run, weights: str) -> dict[str, Any]:
    """Which run was measured, at which step and by which weights."""
    return {
        "path": str(run.path),
        "recipe": run.recipe.name,
        "checkpoint_step": run.step,
        "weights": weights,
        "weights_sha256": sha256(run.weights_file(weights)),
    }
