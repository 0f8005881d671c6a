"""The yardstick: real images that the run was not trained on, measured as its samples are."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from trilemma.data import ImageSet
from trilemma.evaluations.extractors import extractor_of
from trilemma.evaluations.files import default_out, written_in
from trilemma.evaluations.measuring import measured, said, written
from trilemma.evaluations.record import Evaluation, FeaturesRecord, ReferenceRecord
from trilemma.evaluations.reference import Reference
from trilemma.evaluations.subjects import of_data
from trilemma.evaluations.wanted import Wanted
from trilemma.machine.devices import process_state
from trilemma.machine.progress import say
from trilemma.metrics import METRICS, gathered_cautions
from trilemma.metrics.inputs import there
from trilemma.runs.run import Run


@dataclass(frozen=True)
class Yardstick:
    """The images held out of a run's data against the reference that its samples are held against, by the same
    features: what samples as good as real images would come to. `count`: no more images than the samples are, since a
    distance falls with their number. `data`: those held out, None where there are none."""

    run: Run
    against: Reference
    wanted: Wanted
    count: int
    data: ImageSet | None

    def __call__(self) -> Evaluation | None:
        """Its evaluation: as it lies among the run's, where it has all that is wanted, else measured and written there,
        and said. None where no images are held out of the data."""
        began, own, data = time.perf_counter(), self.run.recipe.data, self.data
        if data is None:
            return None
        with gathered_cautions() as warnings:
            subject = of_data(data, f"{own.name}:{data.split}", self.count)
            if not (names := self.names):
                return None
            if (found := self._there(subject.samples.sha256, names)) is not None:
                return found
            wanted = replace(self.wanted, metrics=None if self.wanted.metrics is None else names, counts=None)
            evaluation = measured(subject, self.against, wanted, lenient=True)
        place = default_out(self.run.path, evaluation, self.wanted.features, f"held-out-{evaluation.samples.count}")
        made = written(said(evaluation, warnings, began, None), place)
        if process_state().is_main_process:
            say(f"yardstick: {made.samples.count} held-out images: {made.summary()}; {place}")
        return made

    @property
    def size(self) -> int:
        """How many images it is of."""
        return 0 if self.data is None else min(len(self.data), self.count)

    @property
    def names(self) -> list[str]:
        """The metrics wanted that so many real images can have."""
        real = self.against.features
        if real.features is None or self.data is None:
            return []
        met = there(real, real.features, labels=self.data.labels is not None, sampler=False)
        dim, k = real.statistics.dim, self.wanted.neighbours
        asked = METRICS if self.wanted.metrics is None else self.wanted.metrics
        able = [name for name in asked if METRICS[name].needs <= met and METRICS[name].axis != "speed"]
        return [name for name in able if METRICS[name].least(dim, k) <= self.size]

    def _there(self, sha256: str | None, names: list[str]) -> Evaluation | None:
        """The newest evaluation of these images as they would be measured now that has these metrics."""
        dim = self.against.features.statistics.dim
        features = FeaturesRecord(**extractor_of(self.wanted.features).record(dim))
        reference = ReferenceRecord(**self.against.record)
        for one in written_in(self.run.path / "evaluations"):
            if (
                one.yardstick
                and one.samples.sha256 == sha256
                and one.features == features
                and one.reference.identity == reference.identity
                and one.neighbours == self.wanted.neighbours
                and set(names) <= one.metrics.keys()
            ):
                return one
        return None
