"""A metric."""

from __future__ import annotations

from typing import Any

from trilemma.metrics import Inputs, metric


@metric(
    "brightness",
    "how far the mean of the features is from the reference's, root mean square",
    axis="quality",
    better="lower",
)
def brightness(inputs: Inputs) -> dict[str, Any]:
    difference = inputs.fake.pooled.mean(0) - inputs.real.statistics.mean
    return {"brightness": float((difference**2).mean() ** 0.5)}
