"""What is known of a run: its log, its evaluations and its recipe, and which of them its standing rests on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float64

from trilemma.data.catalogue import title
from trilemma.evaluations.judge import Judgement, judge, unlike
from trilemma.evaluations.record import Evaluation, ReferenceRecord
from trilemma.evaluations.trend import Trend, series, trend
from trilemma.metrics.metric import number
from trilemma.parts import GIVEN
from trilemma.registry import registry

SKIPPED = 0.01
"""The share of skipped steps from which a run counts as unstable."""


@dataclass(frozen=True)
class Facts:
    """Lines of a run's log, by step; its evaluations and those of real images, the oldest first; its recipe as plain
    values; the directory as commands name it; and the steps of the checkpoints that are there."""

    log: Sequence[Mapping[str, Any]]
    evaluations: Sequence[Evaluation]
    recipe: Mapping[str, Any]
    path: str
    checkpoints: Sequence[int] = ()

    def setting(self, path: str) -> Any:
        """What the recipe says at a dotted path; None where it says nothing."""
        value: Any = self.recipe
        for part in path.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        return value

    @cached_property
    def classes(self) -> list[str]:
        """The names of the data's classes, empty where there are none."""
        found = self.setting("images.classes")
        return [str(name) for name in found] if isinstance(found, list) else []

    def class_name(self, index: int, count: int) -> str:
        """That of one of so many classes, its number where they are not the data's."""
        return self.classes[index] if len(self.classes) == count else str(index)

    @cached_property
    def generates(self) -> bool:
        """Whether the run makes images, so that it can be measured."""
        found = registry("learner").get(str(self.setting("learner.name") or "denoising"))
        return bool(getattr(found, "generates", True))

    @cached_property
    def steps(self) -> int:
        """Steps trained, as logged."""
        return int(max((step for line in self.log if (step := number(line.get("step"))) is not None), default=0))

    @cached_property
    def skipped(self) -> int:
        """Steps whose loss or gradients were not finite."""
        return int(max(series(self.log, "skipped")[1], default=0))

    @cached_property
    def diverged(self) -> bool:
        """Whether the last step was skipped."""
        trained = [line for line in self.log if "loss" in line]
        return self.skipped > 0 and bool(trained) and trained[-1]["loss"] is None

    @cached_property
    def unstable(self) -> bool:
        """Whether more than a few steps were skipped, or the last one was."""
        return self.diverged or (self.skipped > 0 and self.skipped >= SKIPPED * self.steps)

    @cached_property
    def trend(self) -> Trend | None:
        """Where the validation loss is going; None where it was logged too seldom."""
        return trend(self.log, "validation_loss")

    @cached_property
    def models(self) -> list[Evaluation]:
        """The evaluations of the newest checkpoint that was measured, of samples of every class, against the run's own
        training images."""
        models = [one for one in self.evaluations if one.subject.kind == "run" and self._own(one.reference)]
        whole = [one for one in models if one.samples.classes in (None, "balanced")]
        newest = max((one.subject.checkpoint_step or 0 for one in whole), default=0)
        return [one for one in whole if (one.subject.checkpoint_step or 0) == newest]

    def _own(self, reference: ReferenceRecord) -> bool:
        """Whether these are the images that the run was trained on, as far as the recipe says which."""
        name, split = self.setting("data.name"), self.setting("data.split") or "train"
        if not isinstance(name, str) or name == GIVEN:
            return True
        splits = {split} if self.setting("data.holdout") else {split, "all"}  # data without splits have but one
        return reference.data in (name, title(name)) and reference.split in splits

    @cached_property
    def yardsticks(self) -> list[Evaluation]:
        """The evaluations of real images that are not the reference itself."""
        return [
            one
            for one in self.evaluations
            if one.yardstick and (one.samples.sha256 is None or one.samples.sha256 != one.reference.sha256)
        ]

    @cached_property
    def chosen(self) -> Evaluation | None:
        """What the run is judged by: of the ways it was measured, compared with real images if some were, the one with
        the least distance among those that compare with the newest of them."""
        name = "frechet_distance"
        measured = [one for one in self.models if one.figure(name) is not None]
        beside = [one for one in measured if self._beside(name, one) is not None]
        pool = beside or measured
        if not pool:
            return self.models[-1] if self.models else None
        alike = [one for one in pool if not unlike(name, one, pool[-1])]
        return min(reversed(alike), key=lambda one: one.figure(name) or 0.0)

    def holder(self, *keys: str) -> Evaluation | None:
        """The evaluation whose figures of these names count: the chosen one if it has them, or the newest that has, by
        the same features if there is one."""
        if (chosen := self.chosen) is None:
            return None
        order = [
            chosen,
            *sorted(reversed(self.models), key=lambda one: one.features.identity != chosen.features.identity),
        ]
        return next((one for one in order if all(one.metrics.get(key) is not None for key in keys)), None)

    def _beside(self, name: str, one: Evaluation) -> Evaluation | None:
        fit = (real for real in reversed(self.yardsticks) if real.figure(name) is not None)
        return next((real for real in fit if not unlike(name, one, real)), None)

    def against_held_out(self, name: str) -> tuple[Evaluation, Evaluation, Judgement] | None:
        """The run's figure, that of held-out images, and what the judge says of the two; None where one is missing or
        they do not compare."""
        run = self.holder(name)
        real = run and self._beside(name, run)
        if run is None or real is None:
            return None
        judged = judge(name, run, real)
        return None if judged.outcome == "not comparable" else (run, real, judged)

    @cached_property
    def distance(self) -> tuple[str, Evaluation, Evaluation, Judgement] | None:
        """`against_held_out` of the distance that compares, and its name: the Fréchet distance; or KID, which no number
        of images biases, also where there are no more training images than features, or too few samples."""
        few = self.chosen is not None and (few_trained(self.chosen) or few_samples(self.chosen))
        names = ("kid", "frechet_distance") if few else ("frechet_distance", "kid")
        both = ((name, self.against_held_out(name)) for name in names)
        return next(((name, *found) for name, found in both if found is not None), None)

    @cached_property
    def held_out(self) -> int | None:
        """How many held-out images what is said rests on; None where there are none."""
        found = [self.against_held_out(name) for name in ("frechet_distance", "kid", "recall", "recognised")]
        counts = [one[1].samples.count for one in found if one is not None]
        memorised = self.holder("memorisation")
        if memorised is not None and (held := memorised.reference.holdout) is not None and held.count:
            counts.append(held.count)
        return min(counts, default=None)

    def shares(self, run: Evaluation, count: int) -> Float64[np.ndarray, " k"]:
        """How often each of so many classes is to be expected: as held-out images seen by the same features have them,
        or evenly."""
        for real in reversed(self.yardsticks):
            held = real.metrics.get("class_counts")
            if isinstance(held, list) and len(held) == count and sum(held) and real.features == run.features:
                return np.array(held, dtype=np.float64) / sum(held)
        return np.full(count, 1 / count)


def few_samples(run: Evaluation) -> bool:
    """Whether a Fréchet distance is of no more samples than it has features: their covariance is singular."""
    return run.figure("frechet_distance") is not None and run.samples.count <= (run.features.dim or 0)


def few_trained(run: Evaluation) -> bool:
    """Whether it is against no more images than features: then no number of samples makes it say more."""
    few = run.reference.count is not None and run.reference.count <= (run.features.dim or 0)
    return few and run.figure("frechet_distance") is not None
