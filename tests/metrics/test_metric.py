"""What a metric says of itself, and that one of a user's own is measured, tabled and compared like any other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from trilemma.errors import InputError
from trilemma.evaluations import measure
from trilemma.evaluations.judge import judge
from trilemma.metrics import METRICS, Inputs, metric
from trilemma.metrics.metric import significant
from trilemma.report.table_views import to_markdown
from trilemma.report.tables import build_table


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0.00"), (0.01234, "0.0123"), (1.234, "1.23"), (12.34, "12.3"), (123.4, "123"), (12345.6, "12 346"),
     (0.00012, "1.2e-04"), (-1.234, "-1.23")],
)  # fmt: skip
def test_three_significant_digits(value: float, text: str) -> None:
    assert significant(value) == text


@pytest.mark.parametrize(
    ("name", "value", "error", "text"),
    [
        ("frechet_distance", 2.345, None, "2.35"),
        ("frechet_distance", 2.345, 0.0312, "2.345 ± 0.031"),
        ("frechet_distance", 123.4, 31.2, "123 ± 31"),
        ("frechet_distance", 1.2, 0.0, "1.20 ± 0"),
        ("recognised", 0.936, 0.011, "93.6 ± 1.1"),
        ("network_evaluations", 128.0, 0.0, "128"),
        ("kid", -0.012, 0.004, "−0.0120 ± 0.0040"),
        ("kid", 1e-9, 3e-10, "1e-09 ± 3.0e-10"),
    ],
)
def test_a_figure_has_two_digits_of_its_error(name: str, value: float, error: float | None, text: str) -> None:
    assert METRICS[name].text(value, error) == text


def test_a_distance_is_called_by_its_features_and_count() -> None:
    called = METRICS["frechet_distance"].called
    assert [called("inception", n) for n in (500, 5000, 50_000, 49_984)] == [
        "FID-500",
        "FID-5k",
        "FID-50k",
        "FID-49984",
    ]
    assert called("digits", 2000) == "FD-2k" and METRICS["recall"].called("digits", 2000) == "recall"


def test_one_of_a_users_own_is_measured_tabled_and_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(METRICS, "_parts", dict(METRICS._parts))  # type: ignore[attr-defined]

    @metric("ink", "mean of the features", axis="quality", better="higher", column=True)
    def ink(inputs: Inputs) -> dict[str, Any]:
        pooled = inputs.fake.pooled
        return {"ink": float(pooled.mean()), "ink_se": float(pooled.mean(1).std() / len(pooled) ** 0.5)}

    rng = np.random.default_rng(0)
    real, dark, light = (rng.integers(0, high, (40, 4, 4, 1), dtype=np.uint8) for high in (256, 64, 256))
    a, b = (
        measure(images, real, ["ink"], features="pixels", label=label) for images, label in ((dark, "a"), (light, "b"))
    )
    assert judge("ink", b, a).outcome == "better"
    assert "| b | **0." in to_markdown(build_table([a, b])) and "ink ↑" in to_markdown(build_table([a, b]))
    assert "ink: 0." in repr(a)
    with pytest.raises(InputError, match="the name is taken by trilemma"):
        metric("recall", "mine", axis="coverage", better="higher")(ink)
