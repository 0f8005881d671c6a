"""What may be said of two figures: which is better, whether they are level, or why they cannot be compared.

The one place that decides: tables, verdicts, reports and `compare` say what it says.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from trilemma.evaluations.record import Evaluation
from trilemma.metrics import METRICS

LIMIT = 2.0
"""Figures fewer standard errors of their difference apart than this are level."""

Outcome = Literal["better", "worse", "level", "not comparable"]

NOUNS = {
    "samples.count": "N",
    "samples.classes": "classes asked for",
    "neighbours": "k (nearest neighbours)",
    "metrics.speed_batch": "batch",
    "metrics.peak_memory_kind": "kind of memory",
    "reference.holdout": "held-out images",
}


@dataclass(frozen=True)
class Judgement:
    """How one figure stands to another: `difference` is the first less the second, `error` its standard error, `z` the
    difference in such errors (None where the error is 0 or not known); `reason` says why they don't compare."""

    outcome: Outcome
    difference: float | None = None
    error: float | None = None
    z: float | None = None
    reason: str = ""


def judge(name: str, a: Evaluation, b: Evaluation) -> Judgement:
    """How the metric's figure in `a` stands to that in `b`: better or worse by `LIMIT` standard errors of their
    difference, √(se_a² + se_b²), or more, or level.

    Not comparable are figures that depended on other things (both are named), those of the same samples (they are not
    independent), and those without a known standard error. A count is exact, and needs none; equal figures are
    level."""
    metric, first, second = METRICS[name], a.figure(name), b.figure(name)
    if first is None or second is None:
        lacking = a if first is None else b
        return Judgement("not comparable", reason=f"“{lacking.label}” has no {metric.title}")
    if reasons := unlike(name, a, b):
        return Judgement("not comparable", reason="; ".join(reasons))
    difference = first - second
    better: Outcome = "better" if (difference < 0) == (metric.better == "lower") else "worse"
    if difference == 0:
        return Judgement("level", 0.0)
    if metric.exact:
        return Judgement(better, difference, 0.0)
    if same_samples(a, b):
        return Judgement("not comparable", difference, reason="of the same samples, so not independent")
    errors = a.error(name), b.error(name)
    if errors[0] is None or errors[1] is None:
        return Judgement("not comparable", difference, reason="no standard error known")
    error = math.hypot(errors[0], errors[1])
    z = difference / error if error else None
    return Judgement("level" if z is not None and abs(z) < LIMIT else better, difference, error, z)


def leaders(name: str, evaluations: Sequence[Evaluation]) -> list[int]:
    """Which of several evaluations have the metric's best figure or one level with it.

    None do where one cannot be compared with the best: then it is undecided."""
    if len(evaluations) < 2 or any(evaluation.figure(name) is None for evaluation in evaluations):
        return []
    sign = 1 if METRICS[name].better == "lower" else -1
    best = min(evaluations, key=lambda evaluation: sign * (evaluation.figure(name) or 0.0))
    outcomes = ["level" if one is best else judge(name, one, best).outcome for one in evaluations]
    return [] if "not comparable" in outcomes else [i for i, outcome in enumerate(outcomes) if outcome == "level"]


def beats(names: Sequence[str], a: Evaluation, b: Evaluation) -> bool:
    """Whether `a` leaves no reason to choose `b`: by these metrics its figures are all as good or better, and the judge
    calls one of them better. Never so where one of them cannot be compared: it may be the reason."""
    for name in names:
        first, second = a.figure(name), b.figure(name)
        if first is None or second is None:
            return False
        if first != second and (first < second) != (METRICS[name].better == "lower"):
            return False
    judged = [judge(name, a, b) for name in names if not unlike(name, a, b)]
    return len(judged) == len(names) and any(one.outcome == "better" for one in judged)


def front(names: Sequence[str], evaluations: Sequence[Evaluation]) -> list[int]:
    """Which evaluations are on the Pareto front of these metrics: those with all the figures that no other `beats`.

    A point is thus off the front only for one that is at least as good in every figure and better beyond the standard
    errors in one; where the errors are 0 it is the usual front."""
    whole = [i for i, one in enumerate(evaluations) if all(one.figure(name) is not None for name in names)]
    return [i for i in whole if not any(beats(names, evaluations[j], evaluations[i]) for j in whole if j != i)]


def unlike(name: str, a: Evaluation, b: Evaluation) -> tuple[str, ...]:
    """What the metric's figure depends on that is not in `a` as it is in `b`, each naming both."""
    found = []
    for path in METRICS[name].basis:
        mine, other = a.fact(path), b.fact(path)
        if not _alike(path, mine, other):
            words = [_words(fact) for fact in (mine, other)]
            if words[0] == words[1]:
                words = [f"{text} ({_digest(fact)})" for text, fact in zip(words, (mine, other), strict=True)]
            found.append(f"other {NOUNS.get(path, path.split('.')[-1])}: {words[0]} against {words[1]}")
    return tuple(found)


def same_samples(a: Evaluation, b: Evaluation) -> bool:
    """Whether two evaluations measured the very same samples, by hash."""
    return a.samples.sha256 is not None and a.samples.sha256 == b.samples.sha256


def _alike(path: str, a: Any, b: Any) -> bool:
    if path in ("samples.classes", "neighbours") and None in (a, b):
        return True  # not every file has always said so
    one, other = (getattr(fact, "identity", fact) for fact in (a, b))
    return bool(one == other)


def _words(fact: Any) -> str:
    return "not recorded" if fact is None else str(fact)


def _digest(fact: Any) -> str:
    digest = getattr(fact, "sha256", None)
    return f"sha256 {digest[:12]}" if digest else "sha256 not recorded"
