"""What a metric promises: that it gives the keys it says, from what it says it needs and no more."""

from __future__ import annotations

import json
import math
import random
import warnings
from typing import Any

import numpy as np
import pytest
import torch

from tests.contracts.made import names
from trilemma.errors import InputError
from trilemma.metrics import (
    AXES,
    METRICS,
    Features,
    Metric,
    MetricWarning,
    ReferenceFeatures,
    Speed,
    Statistics,
    TooFewError,
    check_enough,
    compute,
)
from trilemma.metrics import metric as metric_of_mine
from trilemma.metrics.inputs import WORDS, Inputs, Need
from trilemma.metrics.metric import Measure

SPEED = Speed(80.0, 70.0, 90.0, batch=16, repeats=3, warmup=1, network_evaluations=10, multiply_adds=5, peak_memory=6)
DIM = 4


def features(seed: int, count: int, there: frozenset[Need], shift: float = 0.0) -> Features:
    rng = np.random.default_rng(seed)
    parts = dict(zip(("logits", "spatial", "classes"), (3, 5, 3), strict=True))
    pooled, *others = (rng.standard_normal((count, dim)).astype(np.float32) + shift for dim in (DIM, *parts.values()))
    return Features(pooled, **{name: part for name, part in zip(parts, others, strict=True) if name in there})


def figures(name: str, there: frozenset[Need], count: int = 120) -> dict[str, Any]:
    """What `compute` gives of a metric where only this is there: 160 real images, so many generated ones."""
    real, fake = features(0, 160, there), features(1, count, there, shift=0.3)
    against = ReferenceFeatures(
        Statistics.of(real.pooled),
        real if "features" in there else None,
        None if real.spatial is None else Statistics.of(real.spatial),
        features(2, 100, there) if "holdout" in there else None,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MetricWarning)  # few images are meant here
        return compute(
            [name],
            real=against,
            fake=fake,
            labels=np.arange(count) % 3 if "labels" in there else None,
            sampler=(lambda: SPEED) if "sampler" in there else None,
            counts=[20, 60] if "counts" in there else None,
        )


@pytest.fixture
def metric(name: str) -> Metric:
    return METRICS[name]


@pytest.mark.parametrize("name", names("metric"))
class TestMetric:
    def test_says_what_it_is(self, metric: Metric, name: str) -> None:
        assert (metric.name, metric.axis in AXES, metric.better in ("lower", "higher")) == (name, True, True)
        assert metric.title and 10 < len(metric.description) < 120 and not metric.description.endswith(".")
        assert metric.needs <= WORDS.keys() and metric.least(DIM, 3) >= 1
        assert metric.text(1.234) and metric.text(1.234, 0.1)

    def test_gives_its_keys_from_what_it_needs(self, metric: Metric, name: str) -> None:
        """As plain JSON, nothing besides, the figure itself finite."""
        found = figures(name, metric.needs)
        assert {name, *metric.details} <= found.keys() <= set(metric.keys)
        assert json.loads(json.dumps(found, allow_nan=False)) == found
        values = np.asarray(found[name], dtype=float)
        assert np.isfinite(values).all()
        error = metric.error(found, 120)
        assert error is None or (math.isfinite(error) and error >= 0)

    def test_each_need_is_one(self, metric: Metric, name: str) -> None:
        for need in metric.needs:
            with pytest.raises(InputError, match=f"metric '{name}' needs "):
                figures(name, metric.needs - {need})

    def test_the_same_images_are_the_same_figures(self, metric: Metric, name: str) -> None:
        """Whatever the process's generators are at, and without moving them."""
        found = []
        for seed in (0, 1):
            random.seed(seed)
            np.random.seed(seed)
            torch.manual_seed(seed)
            before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
            found.append(figures(name, metric.needs))
            assert before == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
        assert found[0] == found[1]

    def test_fewer_images_than_it_takes_are_refused(self, metric: Metric, name: str) -> None:
        least = metric.least(DIM, 3)
        check_enough([name], least, dim=DIM)
        if "counts" not in metric.needs:
            assert name in figures(name, metric.needs, least)
        if least > 1:
            with pytest.raises(TooFewError, match=f"{name}: {least - 1} .* at least {least}"):
                check_enough([name], least - 1, dim=DIM)
            with pytest.raises(InputError, match=r"expected (at least )?\d+"):
                figures(name, metric.needs, least - 1)


def lucky(inputs: Inputs) -> dict[str, Any]:
    return {"broken": np.random.normal()}


def greedy(inputs: Inputs) -> dict[str, Any]:
    """Looks at more of the reference than its statistics."""
    return {"broken": float(inputs.real.features.pooled.mean())}  # type: ignore[union-attr]


def lost(inputs: Inputs) -> dict[str, Any]:
    return {"broken": float("nan")}


@pytest.mark.parametrize("measure", [lucky, greedy, lost])
def test_a_broken_metric_is_noticed(measure: Measure, forget: Any) -> None:
    def held() -> None:
        contract = TestMetric()
        contract.test_gives_its_keys_from_what_it_needs(METRICS["broken"], "broken")
        contract.test_the_same_images_are_the_same_figures(METRICS["broken"], "broken")

    decorate = metric_of_mine("broken", "figures that mean nothing", axis="quality", better="lower")
    decorate(measure)
    with pytest.raises((AssertionError, AttributeError, TypeError)):
        held()
