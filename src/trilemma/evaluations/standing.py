"""Where a run stands, and what to try next: each sentence and each piece of advice with the figures that it rests on.

What may be said of two figures the judge says; of a figure over the steps, `trend`. Where a figure is missing nothing
is said of it, and the command that gives it is the advice (`advice`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from trilemma.evaluations.facts import Facts, few_samples, few_trained
from trilemma.evaluations.judge import LIMIT
from trilemma.evaluations.record import Evaluation
from trilemma.evaluations.statements import Figure, Statement, called, grouped, listed, of_metric, said
from trilemma.metrics import METRICS, absent
from trilemma.metrics.metric import in_words

COPIED = 0.01
"""The share of images that counts as memorised where nothing is."""

BEGUN = 1000
"""Steps below which a run has hardly begun, where no validation loss says otherwise."""

FEW_HELD_OUT = 100
"""Held-out images below which the nearest 1 % of them is less than one."""


def sentences(facts: Facts) -> Iterator[Statement]:
    """Where the run stands, as far as the figures are there; that it copies, before what copies make look good."""
    found = memorised(facts)
    said_of = [] if found is None else [found[0]]
    copies = found is not None and found[1]
    yield from _diverged(facts)
    yield from said_of if copies else ()
    for part in (_distance, _learning):
        yield from part(facts)
    yield from said_of if not copies else ()
    for part in (_covering, _few):
        yield from part(facts)


def skipped(facts: Facts) -> Figure:
    """The non-finite steps that were skipped."""
    return Figure("skipped", facts.skipped, 0.0, "log.jsonl")


def trained(facts: Facts) -> Figure:
    """The steps trained."""
    return Figure("step", facts.steps, 0.0, "log.jsonl")


def slope(facts: Facts) -> Figure:
    """That of the validation loss, a share of it per 1 000 steps; missing where there are too few points."""
    found = facts.trend
    value, error = (None, None) if found is None else (found.slope, found.error)
    return Figure("validation_loss, slope per 1 000 steps", value, error, "log.jsonl")


def slope_words(facts: Facts) -> str:
    """The slope's size in words."""
    assert facts.trend is not None
    return f"{in_words(100 * abs(facts.trend.slope), 100 * facts.trend.error)} % per 1 000 steps"


def _diverged(facts: Facts) -> Iterator[Statement]:
    if facts.unstable:
        what = "Diverged" if facts.diverged else "Unstable"
        text = f"{what}: {grouped(facts.skipped)} of {grouped(facts.steps)} steps were not finite."
        yield Statement(text, (skipped(facts),))


def _distance(facts: Facts) -> Iterator[Statement]:
    if facts.distance is None:
        return
    name, run, real, judged = facts.distance
    a, b = of_metric(run, name), of_metric(real, name)
    if judged.outcome == "level":
        text = "As near the training images as held-out images are"
    elif judged.outcome == "better":
        text = "Suspiciously near: nearer the training images than held-out images are, as copies would be"
    elif (times := multiple(a, b)) is not None:
        text = f"{in_words(*times)} times as far from the training images as held-out images are"
    else:
        text = "Farther from the training images than held-out images are"
    way = f" by “{run.label}”" if len(facts.models) > 1 else ""
    yield Statement(f"{text}: {called(run, name)} {said(run, name)}{way}, against {said(real, name)}.", (a, b))


def multiple(a: Figure, b: Figure) -> tuple[float, float] | None:
    """How many times one distance is another, with its standard error to first order; None where the other is not
    known to be more than 0, as an unbiased distance may not be."""
    if not a.value or not b.value or a.error is None or b.error is None or b.value < LIMIT * b.error:
        return None
    times = a.value / b.value
    return times, abs(times) * math.hypot(a.error / a.value, b.error / b.value)


def _learning(facts: Facts) -> Iterator[Statement]:
    found = facts.trend
    if facts.diverged or not facts.steps:
        return
    if found is None:
        if facts.steps < BEGUN:
            yield Statement(
                f"Only {grouped(facts.steps)} steps trained: it has hardly begun to learn.", (trained(facts),)
            )
        return
    figures, words = (slope(facts),), slope_words(facts)
    if found.outcome == "falling":
        yield Statement(f"Still learning: the validation loss falls by {words}.", figures)
    elif found.outcome == "level":
        change = in_words(100 * found.slope, 100 * found.error)
        text = f"No longer learning: the validation loss is level since step {grouped(found.since)}"
        yield Statement(f"{text} ({change} % per 1 000 steps).", figures)
    else:
        lowest = Figure("validation_loss, lowest", found.low, None, f"log.jsonl, step {found.lowest}")
        text = f"Overfitting: the validation loss has been rising since step {grouped(found.lowest)}, by {words}."
        yield Statement(text, (*figures, lowest))


def memorised(facts: Facts) -> tuple[Statement, bool] | None:
    """What is to be said of memorisation, and whether there is any; None where it was not measured.

    Of real images the share nearer than 1 % of h held-out ones is itself a draw: a Beta's, with the mean (1 + 0.01
    (h − 1))/(h + 1), whose variance counts beside the share's."""
    run = facts.holder("memorisation")
    if run is None:
        return None
    figure = of_metric(run, "memorisation")
    assert figure.value is not None
    usual, spread = COPIED, 0.0
    if run.reference.holdout is not None and (held := run.reference.holdout.count):
        usual = (1 + COPIED * (held - 1)) / (held + 1)
        spread = math.sqrt(usual * (1 - usual) / (held + 2))
    error = math.hypot(figure.error or 0.0, spread)
    copies = figure.value - usual >= LIMIT * error and figure.value > usual
    share = in_words(100 * figure.value, None if figure.error is None else 100 * figure.error)
    than = f"{share} % of the samples are nearer to a training image than 99 % of held-out images are"
    if copies:
        text = f"Memorising: {than}, against {100 * usual:.2g} % where nothing is copied."
    else:
        shows = 100 * _shows(usual, spread, run.samples.count)
        text = f"No sign of memorising: {than} (less than {shows:.2g} % would not show)."
    return Statement(text, (figure,)), copies


def _shows(usual: float, spread: float, count: int) -> float:
    """The least share of so many samples that is `LIMIT` errors more than the usual one: s of (s − u)² = LIMIT² (s (1 −
    s)/n + spread²)."""
    a, b, c = 1 + LIMIT**2 / count, 2 * usual + LIMIT**2 / count, usual**2 - (LIMIT * spread) ** 2
    return min(1.0, (b + math.sqrt(b * b - 4 * a * c)) / (2 * a))


def missing(facts: Facts) -> tuple[list[str], Evaluation] | None:
    """The classes, by name, that are `absent`: no sample is taken for them, which is no chance; and where that is
    recorded. None where it was not measured."""
    run = facts.holder("class_counts")
    counts = None if run is None else _counts(run)
    if run is None or counts is None:
        return None
    found = absent(counts, facts.shares(run, len(counts)))
    return [facts.class_name(int(i), len(counts)) for i in found], run


def _counts(run: Evaluation) -> np.ndarray | None:
    held = run.metrics.get("class_counts")
    return np.array(held, dtype=float) if isinstance(held, Sequence) and len(held) and any(held) else None


def uneven(facts: Facts) -> bool | None:
    """Whether the classes are found in other shares than in the reference beyond what chance does to both: balance KL
    above its mean where they are equal, (k − 1)/2 (1/m + 1/n), by `LIMIT` errors; None where that is not known."""
    run = facts.holder("balance_kl")
    if run is None or (counts := _counts(run)) is None or not run.reference.count:
        return None
    value, error = run.figure("balance_kl"), run.error("balance_kl")
    chance = (len(counts) - 1) / 2 * float(1 / counts.sum() + 1 / run.reference.count)
    return None if value is None or error is None else value - chance >= LIMIT * error > 0


def _covering(facts: Facts) -> Iterator[Statement]:
    parts, figures = [], []
    lacking = missing(facts)
    if lacking is not None and lacking[0]:
        parts.append(f"no sample is taken for {listed(lacking[0])}")
        figures.append(Figure("class_counts", 0.0, None, of_metric(lacking[1], "balance_kl").where))
    elif (off := uneven(facts)) is not None and (run := facts.holder("balance_kl")) is not None:
        words = f"balance KL {said(run, 'balance_kl')}"
        parts.append(f"the classes are {'not ' * off}as frequent as in the training images ({words})")
        figures.append(of_metric(run, "balance_kl"))
    if (found := facts.against_held_out("recall")) is not None:
        run, real, judged = found
        than = {"worse": "less varied than", "level": "as varied as", "better": "more varied than"}[judged.outcome]
        parts.append(
            f"the samples are {than} held-out images (recall {said(run, 'recall')} against {said(real, 'recall')})"
        )
        figures += [of_metric(run, "recall"), of_metric(real, "recall")]
    if parts:
        text = "; ".join(parts)
        yield Statement(f"{text[0].upper()}{text[1:]}.", tuple(figures))


def _few(facts: Facts) -> Iterator[Statement]:
    """What few images leave open."""
    run, parts, figures = facts.chosen, [], []
    if run is None:
        return
    where = of_metric(run, "frechet_distance").where
    counts = {"samples.count": run.samples.count, "reference.count": run.reference.count or 0}
    kind = "reference.count" if few_trained(run) else "samples.count" if few_samples(run) else None
    if kind is not None:
        name = METRICS["kid"].title if facts.distance is not None and facts.distance[0] == "kid" else None
        what = "training images" if few_trained(run) else "samples"
        parts.append(
            f"{grouped(counts[kind])} {what} are few for {called(run, 'frechet_distance')}, which has "
            f"{grouped(run.features.dim or 0)} features" + (f": judged by {name} instead" if name else "")
        )
        figures.append(Figure(kind, counts[kind], 0.0, where))
    held = facts.held_out
    if held is not None and held < FEW_HELD_OUT:
        parts.append(f"only {held} held-out images stand for all others, so this is rough")
        figures.append(Figure("held-out images", held, 0.0, where))
    if parts:
        text = "; ".join(parts)
        yield Statement(f"{text[0].upper()}{text[1:]}.", tuple(figures))
