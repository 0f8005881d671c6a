"""What a measure says of itself: how its figure is called, shown and compared; and the decorator that names one."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

from trilemma.metrics.inputs import Inputs, Need
from trilemma.registry import register, registry

Axis = Literal["quality", "coverage", "speed"]
Measure = Callable[[Inputs], dict[str, Any]]

AXES: tuple[Axis, ...] = ("quality", "coverage", "speed")

MACHINE = ("device", "hardware", "threads", "processes")
"""What of an environment a speed depends on."""

FEATURES = ("features", "features.resize")
AGAINST = ("reference", *FEATURES)
TIMED = (*(f"environment.{part}" for part in MACHINE), "metrics.speed_batch")
"""What figures depend on: dotted paths in an evaluation."""


def significant(value: float) -> str:
    """Three significant digits, without an exponent: 0.0123, 1.23, 123, 12 345."""
    if value and abs(value) < 0.001:
        return f"{value:.1e}"
    digits = max(0, 2 - math.floor(math.log10(abs(value)))) if value else 2
    return f"{value:,.{digits}f}".replace(",", " ")


@dataclass(frozen=True)
class Metric:
    """One measure, by the key of its figure in an evaluation's `metrics`.

    `axis`: where it stands among quality, coverage and speed. `measure` may give several metrics' keys at once; it runs
    once. `details`: keys that come with its own; NAME_se, the standard error over draws of the generated images, comes
    unasked where `measure` gives it. `least`: how many generated images it takes, given the number of features and k of
    precision and recall. `basis`: what the figure depends on, dotted paths in an evaluation: figures of other bases
    don't compare. `exact`: a count, which has no error. `estimate`: the standard error where none is recorded, from the
    recorded figures and the number of samples. `column`: whether a table shows it unasked; the first of an axis that
    can be judged decides it. `also`: what else it is called, in small letters and without a number
    of images, for who asks by that. `scale` and `show`: how the figure is written, in `unit`; `heading`: its title
    given the features' name and the number of samples, where these belong to it (FID-50k)."""

    name: str
    description: str
    axis: Axis
    better: Literal["lower", "higher"]
    measure: Measure
    needs: frozenset[Need] = frozenset()
    details: tuple[str, ...] = ()
    least: Callable[[int, int], int] = lambda dim, k: 1
    basis: tuple[str, ...] = (*AGAINST, "samples.count")
    exact: bool = False
    estimate: Callable[[Mapping[str, Any], int], float | None] = lambda figures, count: None
    column: bool = False
    title: str = ""
    also: tuple[str, ...] = ()
    unit: str = ""
    scale: float = 1.0
    show: Callable[[float], str] = significant
    heading: Callable[[str, int], str] | None = None

    def __post_init__(self) -> None:
        # A registry asks this of a part to say whose it is.
        object.__setattr__(self, "__module__", self.measure.__module__)

    @property
    def keys(self) -> tuple[str, ...]:
        """All that it may give."""
        return (self.name, f"{self.name}_se", *self.details)

    @property
    def arrow(self) -> str:
        """The way that is better."""
        return "↓" if self.better == "lower" else "↑"

    def called(self, features: str | None, count: int) -> str:
        """Its title for `count` samples seen by these features."""
        return self.title if self.heading is None else self.heading(features or "", count)

    def error(self, figures: Mapping[str, Any], count: int) -> float | None:
        """The standard error of the figure among `figures` of `count` samples: 0 of an exact count, else the recorded
        or the estimated one; None where it is not known."""
        if self.exact:
            return 0.0
        error = number(figures.get(f"{self.name}_se"))
        return error if error is not None and error >= 0 else self.estimate(figures, count)

    def text(self, value: float, error: float | None = None) -> str:
        """A figure in words; with its standard error, see `in_words`, if there is one."""
        return in_words(self.scale * value, None if error is None or self.exact else self.scale * error, self.show)


def in_words(value: float, error: float | None = None, show: Callable[[float], str] = significant) -> str:
    """A figure as `show` has it, or with its standard error to two digits and as many decimals, if there is one."""
    if value < 0:
        return f"\N{MINUS SIGN}{in_words(-value, error, show)}"
    if error is None:
        return show(value)
    if error == 0:
        return f"{show(value)} ± 0"
    decimals = max(0, 1 - math.floor(math.log10(error)))
    return f"{value:.{decimals}f} ± {error:.{decimals}f}" if decimals < 8 else f"{value:.3g} ± {error:.1e}"


def number(value: Any) -> float | None:
    """`value` if it is a finite number, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def metric(
    name: str, description: str, *, needs: Collection[Need] = (), title: str = "", **more: Any
) -> Callable[[Measure], Measure]:
    """A decorator that registers a measure as the metric NAME, with the fields of `Metric`; one that gives several
    metrics stands under several. Raises InputError for a name that is taken.

        @metric("contrast", "standard deviation of the features", axis="quality", better="higher")
        def contrast(inputs):
            return {"contrast": inputs.fake.pooled.std()}"""

    def keep(measure: Measure) -> Measure:
        title_ = title or name.replace("_", " ")
        part = Metric(name=name, description=description, measure=measure, needs=frozenset(needs), title=title_, **more)
        register("metric", name)(part)
        return measure

    return keep


METRICS = cast(Mapping[str, Metric], registry("metric"))
"""Every measure by name, in the order of the tables' columns on each axis."""
