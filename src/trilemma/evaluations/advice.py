"""What to try next with a run, each piece of advice tied to the figure it rests on, the most pressing first."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from trilemma.evaluations.commands import run_command, train_command, unseen
from trilemma.evaluations.facts import Facts, few_samples, few_trained
from trilemma.evaluations.judge import judge
from trilemma.evaluations.record import Evaluation
from trilemma.evaluations.standing import (
    BEGUN,
    memorised,
    missing,
    multiple,
    sentences,
    skipped,
    slope,
    slope_words,
    trained,
    uneven,
)
from trilemma.evaluations.statements import Figure, Standing, Statement, called, grouped, listed, of_metric, said
from trilemma.evaluations.trend import FEWEST, series

WORTH = 0.01
"""The share by which as many steps again must promise to lower the validation loss, to be worth them."""

RISEN = 1.5
"""Times its lowest that the training loss may be at a checkpoint which a diverged run is begun from again."""

OFTEN = 20
"""Validations of a run that make a slope."""


def standing(
    log: Sequence[Mapping[str, Any]],
    evaluations: Sequence[Evaluation],
    recipe: Mapping[str, Any],
    path: str,
    checkpoints: Sequence[int] = (),
) -> Standing:
    """Where a run stands and what to try next; the arguments are those of `Facts`, evaluations in any order."""
    facts = Facts(log, sorted(evaluations, key=lambda one: one.created or ""), recipe, path, checkpoints)
    return Standing(tuple(sentences(facts)), tuple(_advice(facts)))


def _advice(facts: Facts) -> Iterator[Statement]:
    parts = (
        _slower, _begun, _measure, _shorter, _longer, _more_samples, _more_steps, _guidance, _classes, _wider,
        _validate, _unmeasured,
    )  # fmt: skip
    for part in parts:
        found = part(facts)
        if found is not None:
            yield found


def _slower(facts: Facts) -> Statement | None:
    if not facts.unstable:
        return None
    rate = float(facts.setting("training.learning_rate") or 2e-4) / 2
    before = [
        loss for step, loss in zip(*series(facts.log, "loss"), strict=True) if step <= max(facts.checkpoints, default=0)
    ]
    # Weights from which the loss had risen already are finite, and no beginning.
    begun = ("--init", facts.path) if before and before[-1] <= RISEN * min(before) else ()
    return Statement(
        f"lower the learning rate, {grouped(facts.skipped)} of {grouped(facts.steps)} steps were not finite",
        (skipped(facts),),
        train_command(facts, f"{facts.path}-slower", {"training.learning_rate": f"{rate:g}"}, *begun),
    )


def _begun(facts: Facts) -> Statement | None:
    """Of a run of too few steps for anything else to be worth a try."""
    near = facts.distance is not None and facts.distance[3].outcome != "worse"
    if not 0 < facts.steps < BEGUN or facts.trend is not None or facts.diverged or near:
        return None
    more = max(_planned(facts), BEGUN) if facts.steps >= _planned(facts) else _planned(facts)
    return Statement(
        f"train longer, {grouped(facts.steps)} {'step is' if facts.steps == 1 else 'steps are'} few",
        (trained(facts),),
        train_command(facts, facts.path, {"training.steps": more}, "--resume"),
    )


def _measure(facts: Facts) -> Statement | None:
    """What has not been measured, or not since."""
    if not facts.generates or facts.diverged or (facts.log and not facts.checkpoints):
        return None
    newest = max((one.subject.checkpoint_step or 0 for one in facts.models), default=None)
    if newest is None:
        absent = Figure("frechet_distance", None, None, "evaluations")
        return Statement("measure its samples", (absent,), run_command(facts, "evaluate"))
    if facts.checkpoints and newest < max(facts.checkpoints):
        text = f"measure it again, it was at step {grouped(newest)} and is at {grouped(max(facts.checkpoints))}"
        return Statement(text, (Figure("checkpoint_step", newest, 0.0, "evaluations"),), run_command(facts, "evaluate"))
    return None


def _shorter(facts: Facts) -> Statement | None:
    """Of what is memorised or fitted beyond what holds for others."""
    found, copies = facts.trend, memorised(facts)
    figures = copies[0].figures if copies is not None and copies[1] else ()
    why = [f"{100 * (figures[0].value or 0):.2g} % of the samples are memorised"] if figures else []
    if found is not None and found.outcome == "rising":
        figures = (*figures, slope(facts))
        why.append(f"the validation loss rises by {slope_words(facts)}")
    if not figures:
        return None
    other = "more images, a smaller network" + (
        "" if facts.setting("training.flip") else ", training.flip where mirrored images are still such images"
    )
    reasons = " and ".join(why)
    if found is not None and found.lowest < facts.steps and found.outcome != "falling":
        text = f"train to step {grouped(found.lowest)}, where the validation loss was lowest, as {reasons}; or {other}"
        out = f"{facts.path}-{found.lowest}"
        return Statement(text, figures, train_command(facts, out, {"training.steps": found.lowest}))
    text = f"fewer steps, as {reasons}; or {other}"
    half = facts.steps // 2
    return Statement(
        text, figures, train_command(facts, f"{facts.path}-{half}", {"training.steps": half}) if half else ""
    )


def _longer(facts: Facts) -> Statement | None:
    found, steps = facts.trend, facts.steps
    if found is None or found.outcome != "falling" or -found.slope * steps / 1000 < WORTH or facts.diverged:
        return None
    text = f"train longer, the validation loss still falls by {slope_words(facts)}"
    if facts.setting("training.decay") not in (None, "none"):
        text += "; the learning rate, which has decayed, rises again"
    more = max(_planned(facts), 2 * steps if steps >= _planned(facts) else 0)
    return Statement(text, (slope(facts),), train_command(facts, facts.path, {"training.steps": more}, "--resume"))


def _planned(facts: Facts) -> int:
    """The steps that the recipe is for."""
    steps = facts.setting("training.steps")
    return steps if isinstance(steps, int) else 0


def _more_samples(facts: Facts) -> Statement | None:
    run = facts.chosen
    if run is None or not few_samples(run) or few_trained(run):
        return None  # of few training images the covariance stays singular, however many samples
    count = 1000 * math.ceil(2 * (run.features.dim or 0) / 1000)
    figure = Figure("samples.count", run.samples.count, 0.0, of_metric(run, "frechet_distance").where)
    text = f"more samples, {grouped(run.samples.count)} are no more than there are features ({run.features.dim})"
    return Statement(text, (figure,), run_command(facts, "evaluate", "-n", str(count)))


def _more_steps(facts: Facts) -> Statement | None:
    name, run, schedule = "frechet_distance", facts.chosen, facts.setting("schedule")
    if run is None or run.figure(name) is None or not (steps := _steps(run)) or schedule is None:
        return None
    how = _but_for_steps(run)
    rivals = [one for one in facts.models if _steps(one) not in (0, steps) and _but_for_steps(one) == how]
    rivals = [one for one in rivals if one.figure(name) is not None]
    beaten = [one for one in rivals if _steps(one) < steps and judge(name, run, one).outcome == "better"]
    figures = tuple(of_metric(one, name) for one in (run, *beaten))
    figure, usual = f"{called(run, name)} {said(run, name)}", facts.setting("sampling.steps")
    every = facts.setting("schedule.steps")
    more = min(2 * steps, every) if isinstance(every, int) else 2 * steps
    command = run_command(facts, "evaluate", "--steps", str(more))
    if beaten and len(beaten) == len(rivals) and more > steps:
        return Statement(f"still more sampling steps, {steps} are better than fewer ({figure})", figures, command)
    if any(_steps(one) == usual for one in beaten):
        text = f"sample in {steps} steps, not in {usual} ({figure})"
        return Statement(text, figures, run_command(facts, "sample", "--steps", str(steps)))
    if rivals or more == steps or facts.distance is None or facts.distance[3].outcome != "worse":
        return None
    name, run, real, _ = facts.distance
    figure = f"{called(run, name)} {said(run, name)}, against {said(real, name)} of held-out images"
    text = f"more sampling steps, measured are only {steps}: {figure}"
    return Statement(text, (of_metric(run, name), of_metric(real, name)), command)


def _steps(one: Evaluation) -> int:
    """The sampler's, 0 where that is not said."""
    return (one.sampler.steps if one.sampler else None) or 0


def _but_for_steps(one: Evaluation) -> dict[str, Any]:
    """How the images were made, whatever the number of steps."""
    made = one.sampler.model_dump(mode="json") if one.sampler else {}
    left = {key: value for key, value in made.items() if key not in ("steps", "network_evaluations", "times_sha256")}
    return {**left, "features": one.features.identity}


def _guidance(facts: Facts) -> Statement | None:
    """Images that are not what was asked for want more of it, images too much alike less."""
    run = facts.chosen
    if run is None or run.sampler is None or not facts.setting("learner.label_dropout"):
        return None
    scale, words, figures = run.sampler.guidance or 0.0, {}, []
    for name in ("recognised", "recall"):
        found = facts.against_held_out(name)
        if found is not None and found[2].outcome == "worse":
            words[name] = f"{name} {said(found[0], name)} against {said(found[1], name)} of held-out images"
            figures += [of_metric(one, name) for one in found[:2]]
    if not words or (list(words) == ["recall"] and not scale):
        return None
    if len(words) == 2 and scale:
        dial = ",".join(f"{value:g}" for value in (0, scale / 2, scale, 2 * scale))
        way, command = "another", run_command(facts, "sweep", "--guidance", dial)
    else:
        more = "recognised" in words
        way = "more" if more else "less"
        command = run_command(facts, "evaluate", "--guidance", f"{(2 * scale or 0.5) if more else scale / 2:g}")
    return Statement(f"{way} guidance, {' and '.join(words.values())}", tuple(figures), command)


def _classes(facts: Facts) -> Statement | None:
    """Of a model that is not asked for its classes and leaves some out."""
    lacking = missing(facts)
    run = facts.holder("balance_kl")
    if run is None or not facts.classes or facts.setting("learner.conditional") is not False:
        return None
    names = lacking[0] if lacking else []
    if not names and not uneven(facts):
        return None
    why = f"no sample is of {listed(names)}" if names else f"balance KL is {said(run, 'balance_kl')}"
    return Statement(
        f"ask for the classes, {why}",
        (of_metric(run, "balance_kl"),),
        train_command(
            facts, f"{facts.path}-conditional", {"learner.conditional": "true", "learner.label_dropout": 0.1}
        ),
    )


def _wider(facts: Facts) -> Statement | None:
    """Of a network that has learnt what it can, and is not there."""
    found, copies, width = facts.trend, memorised(facts), facts.setting("network.base_channels")
    if found is None or found.outcome != "level" or facts.distance is None or (copies is not None and copies[1]):
        return None
    name, run, real, judged = facts.distance
    if judged.outcome != "worse":
        return None
    a, b = of_metric(run, name), of_metric(real, name)
    times = multiple(a, b)
    far = f"{times[0]:.2g} times as far as held-out images" if times else "farther than held-out images"
    wider = {"network.base_channels": 2 * width} if isinstance(width, int) else {}
    return Statement(
        f"a larger network, the validation loss is level and the samples are {far}",
        (slope(facts), a, b),
        train_command(facts, f"{facts.path}-wider", wider) if wider else "",
    )


def _validate(facts: Facts) -> Statement | None:
    """Where there is no slope, what would give one."""
    if facts.trend is not None or facts.diverged or not facts.steps:
        return None
    absent = (slope(facts),)
    if facts.setting("data.validation_split") is None:
        held = unseen(facts)
        command = train_command(facts, f"{facts.path}-validated", held) if held else ""
        return Statement("hold images out, there is no validation loss", absent, command)
    points, steps = len(series(facts.log, "validation_loss")[0]), facts.steps
    every = max(1, 2 * steps // OFTEN)
    if (facts.setting("training.validate_every") or steps) > every:
        text = f"validate more often, {points} validation losses make no slope (at least {FEWEST} in the last half)"
        more = {"training.steps": 2 * steps, "training.validate_every": every}
    else:
        text, more = f"train longer, {points} validation losses make no slope", {"training.steps": 2 * steps}
    return Statement(text, absent, train_command(facts, facts.path, more, "--resume"))


def _unmeasured(facts: Facts) -> Statement | None:
    """What its evaluations lack."""
    if not facts.models or not facts.setting("data.validation_split"):
        return None
    lacking = [] if facts.holder("memorisation") else ["memorisation"]
    if not lacking:
        return None
    absent = Figure("memorisation", None, None, "evaluations")
    return Statement("measure memorisation", (absent,), run_command(facts, "evaluate", "--metrics", "memorisation"))
