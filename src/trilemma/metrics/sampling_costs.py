"""The measures of what sampling takes: time, passes through the network, multiply-adds, memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trilemma.metrics.inputs import Inputs
from trilemma.metrics.metric import TIMED, metric

_COST: dict[str, Any] = {"axis": "speed", "needs": {"sampler"}}


def _half_range(figures: Mapping[str, Any], count: int) -> float | None:
    """Half of the range over batches: the batches are few and share a machine that others use."""
    between = figures.get("images_per_second_range")
    return (between[1] - between[0]) / 2 if between else None


@metric(
    "peak_memory_bytes",
    "bytes at the peak of sampling a batch",
    **_COST,
    better="lower",
    title="peak memory",
    details=("peak_memory_kind",),
    basis=(*TIMED, "metrics.peak_memory_kind"),
    unit="MiB",
    scale=2**-20,
)
@metric(
    "multiply_adds",
    "multiply-adds of the networks for one image, over all evaluations",
    **_COST,
    better="lower",
    title="multiply-adds",
    basis=(),
    exact=True,
    unit="G",
    scale=1e-9,
)
@metric(
    "network_evaluations",
    "passes through the network for one image",
    **_COST,
    better="lower",
    basis=(),
    exact=True,
    show="{:g}".format,
    column=True,
)
@metric(
    "images_per_second",
    "images a second, median after a warm-up, at a stated batch and on a stated machine",
    **_COST,
    better="higher",
    title="images/s",
    details=("images_per_second_range", "seconds_per_image", "speed_batch"),
    basis=TIMED,
    estimate=_half_range,
    column=True,
)
def _speed(inputs: Inputs) -> dict[str, Any]:
    assert inputs.sampler is not None
    speed = inputs.sampler()
    return {
        "images_per_second": speed.images_per_second,
        "images_per_second_range": [speed.slowest, speed.fastest],
        "seconds_per_image": speed.seconds_per_image,
        "speed_batch": speed.batch,
        "network_evaluations": speed.network_evaluations,
        "multiply_adds": speed.multiply_adds,
        "peak_memory_bytes": speed.peak_memory,
        "peak_memory_kind": speed.memory_kind,
    }
