"""The measures of what sampling takes: time, passes through the network, multiply-adds, memory."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from trilemma.metrics.inputs import Inputs
from trilemma.metrics.metric import TIMED, metric

_cost = partial(metric, axis="speed", better="lower", needs={"sampler"})


def _half_range(figures: Mapping[str, Any], count: int) -> float | None:
    """Half of the range over batches: the batches are few and share a machine that others use."""
    between = figures.get("images_per_second_range")
    return (between[1] - between[0]) / 2 if between else None


@_cost(
    "peak_memory_bytes",
    "bytes at the peak of sampling a batch",
    title="peak memory",
    details=("peak_memory_kind",),
    basis=(*TIMED, "metrics.peak_memory_kind"),
    unit="MiB",
    scale=2**-20,
)
@_cost(
    "multiply_adds",
    "multiply-adds of the networks for one image, over all evaluations",
    title="multiply-adds",
    basis=(),
    exact=True,
    unit="G",
    scale=1e-9,
)
@_cost(
    "network_evaluations",
    "passes through the network for one image",
    basis=(),
    exact=True,
    show="{:g}".format,
    column=True,
)
@_cost(
    "images_per_second",
    "images a second, median after a warm-up, at a stated batch and on a stated machine",
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
