"""Measuring a run or images against a reference."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from trilemma.data import ImageSet, Opening, available_splits, image_set, parse_reference
from trilemma.errors import InputError
from trilemma.evaluations.board import to_board
from trilemma.evaluations.choosing import features_for
from trilemma.evaluations.extractors import extractor_of
from trilemma.evaluations.files import check_out, default_out, is_of_set, written_in
from trilemma.evaluations.measuring import measured, said, seen, written
from trilemma.evaluations.record import NEIGHBOURS, Evaluation, FeaturesRecord, ReferenceRecord
from trilemma.evaluations.reference import FEW, held_out, open_reference
from trilemma.evaluations.subjects import Images, Subject, of_run, subject_of
from trilemma.evaluations.wanted import Wanted, check_measurable
from trilemma.evaluations.yardstick import Yardstick
from trilemma.machine.devices import process_state
from trilemma.machine.untrusted import kind_of
from trilemma.metrics import METRICS, Features, gathered_cautions
from trilemma.runs.cascades import is_run, open_run
from trilemma.runs.run import Run
from trilemma.samplers.samples import check_seeds

SLOW = "imagenet"
"""Features that see some 30 images a second on a CPU core: of more than `FEW` training images, so many are looked at
unless they are asked for by name."""

IMAGES = 1000
"""Images of a run that are measured unless their number is given."""


def evaluate(
    subject: Run | str | Path,
    reference: str | None = None,
    *,
    metrics: Sequence[str] | None = None,
    features: str | None = None,
    neighbours: int = NEIGHBOURS,
    counts: Sequence[int] | None = None,
    n: int | None = None,
    seeds: Sequence[int] | None = None,
    cls: str | int | None = None,
    samples_out: str | Path | None = None,
    out: str | Path | None = None,
    root: str | None = None,
    label: str | None = None,
    verify: bool = True,
    **settings: Any,
) -> Evaluation:
    """Measure a run or a cascade, BASE+UPSAMPLER, (by `n` samples, 1 000 unless given, made or taken up as `Run.sample`
    does) or a set of samples against a reference, into a file.

    `reference`: DATA[:SPLIT] or STATS.npz; a run's own training split unless given. `metrics`, `features`,
    `neighbours`, `counts`, `root`, `label`: see `measure`; memorisation unasked only of a run that was trained on the
    reference, if these are fewer than 10 000 images and some are held out. Held-out images are then measured too, once,
    and left beside the run's evaluations: its yardstick. `out`: where the evaluation is written; RUN/evaluations/…
    unless given. `verify`: hold the checkpoint's files against their hashes. Raises InputError for what cannot be done,
    before anything is sampled."""
    run = subject if isinstance(subject, Run) else _as_run(Path(subject), verify)
    if run is None:
        asked = {**settings, "class": cls, "n": n, "seeds": seeds, "samples": samples_out}
        if given := [key for key, value in asked.items() if value is not None]:
            raise InputError(f"{given[0]}: {subject} holds finished samples, nothing is sampled; give a run instead")
        if reference is None:
            raise InputError("reference: samples need one, DATA[:SPLIT] or STATS.npz")
        check_out(out, Path(str(subject)), reference)
        made = measure(
            Path(str(subject)), reference, metrics,
            features=features, neighbours=neighbours, counts=counts, root=root, label=label,
        )  # fmt: skip
        return written(made, out or default_out(None, made, features))
    check_out(out, run.path, reference or training_split(run))
    count = len(seeds) if seeds is not None else IMAGES if n is None else n
    protocol = Protocol(
        run, reference, metrics, features=features, neighbours=neighbours, counts=counts, count=count,
        labelled=bool(run.way(**settings).classes), root=root,
    )  # fmt: skip
    evaluation = protocol(seeds, cls, samples_out=samples_out, out=out, label=label, **settings)
    protocol.yardstick()
    return evaluation


def training_split(run: Run) -> str:
    """The data that a run was trained on, as a reference."""
    return f"{run.recipe.data.name}:{run.recipe.data.split}"


class Protocol:
    """How sample sets of one run are measured: `count` images each, against a reference that is opened, and held
    against what is asked, once, before anything is sampled. `labelled`: whether classes are asked of the images. The
    other arguments are those of `evaluate`; called with the rest of them it samples and measures one set. Raises
    InputError for what could not be measured."""

    def __init__(
        self,
        run: Run,
        reference: str | None = None,
        metrics: Sequence[str] | None = None,
        *,
        features: str | None = None,
        neighbours: int = NEIGHBOURS,
        counts: Sequence[int] | None = None,
        count: int = IMAGES,
        labelled: bool = False,
        root: str | None = None,
    ) -> None:
        began, data, images = time.perf_counter(), run.recipe.data, run.recipe.images
        self.run, self.count, self._features = run, count, features
        given, reference = reference is not None, reference or training_split(run)
        name, split = parse_reference(reference)
        own, opening = (name, split) == (data.name, data.split), data.opening(name, root)
        with gathered_cautions() as self._warnings:
            chosen = features or features_for(
                images.shape, images.classes if own else None, lambda: opening(name, split), reference=reference
            )
            self.wanted = Wanted.of(metrics, chosen, neighbours, counts)
            self.against = open_reference(
                reference,
                self.wanted.features,
                opening,
                features=self.wanted.reference_features,
                classes=self.wanted.classes,
                holdout=self.wanted.holdout if own or self.wanted.holdout else False,
                unseen=data.unseen if own else "test",
                most=None if given or chosen != SLOW or self.wanted.holdout else FEW,
            )
            if counts is not None and max(counts) > count:
                raise InputError(f"counts: {max(counts)} is more than the {count} images to be sampled")
            self._due = check_measurable(
                images.shape, self.against, self.wanted.features, self.wanted.metrics,
                counts=bool(counts), labels=labelled, sampler=True,
            )  # fmt: skip
        held = held_out(name, opening, data.unseen) if own else None
        self.yardstick = Yardstick(run, self.against, self.wanted, count, held)
        self._opening = time.perf_counter() - began

    def __call__(
        self,
        seeds: Sequence[int] | None = None,
        cls: Any = None,
        *,
        samples_out: str | Path | None = None,
        out: str | Path | None = None,
        label: str | None = None,
        **settings: Any,
    ) -> Evaluation:
        """Sample by these settings, measure, and write the evaluation; of more samples than there are held-out images,
        also what depends on their number of as many as those (the first), beside it."""
        began = time.perf_counter() - self._opening
        with gathered_cautions() as warnings:
            sampled = of_run(self.run, self.count, seeds, cls, samples_out, settings)
            fake = seen(sampled.images, self.wanted)
            evaluation = measured(sampled, self.against, self.wanted, fake)
        evaluation = said(evaluation, [*dict.fromkeys([*self._warnings, *warnings])], began, label)
        found = written(evaluation, out or default_out(self.run.path, evaluation, self._features))
        if process_state().is_main_process:
            to_board(self.run.path, found)
        if 0 < self.yardstick.size < self.count:
            self._cut(sampled.first(check_seeds(self.count, seeds)[: self.yardstick.size]), fake, label)
        return found

    def _cut(self, some: Subject, fake: Features, label: str | None) -> None:
        """The figures of the first samples that compare with the yardstick's of as many images only."""
        names = [name for name in self.yardstick.names if "samples.count" in METRICS[name].basis]
        if not names:
            return
        began, count = time.perf_counter(), some.samples.count
        with gathered_cautions() as warnings:
            wanted = replace(self.wanted, metrics=names, counts=None)
            evaluation = measured(some, self.against, wanted, fake.first(count), lenient=True)
        evaluation = said(evaluation, warnings, began, f"{label}, first {count}" if label else None)
        name = f"{Path(evaluation.samples.file or '').stem}-first-{count}"
        written(evaluation, default_out(self.run.path, evaluation, self._features, name))

    def standing(self, records: Sequence[Mapping[str, Any]]) -> list[Evaluation | None]:
        """For each sample set, by its record (`Run.record`), the newest evaluation among the run's that measured it as
        it would be measured now and has every figure that would be had; None where there is none."""
        dim, k = self.against.features.statistics.dim, self.wanted.neighbours
        due = {name for name in self._due if METRICS[name].least(dim, k) <= self.count}
        features = FeaturesRecord(**extractor_of(self.wanted.features).record(dim))
        reference = ReferenceRecord(**self.against.record)
        usable = [
            one
            for one in written_in(self.run.path / "evaluations")
            if one.samples.cut_from is None
            and one.features == features
            and one.reference.identity == reference.identity
            and one.neighbours == k
            and due <= one.metrics.keys()
        ]
        plain = [json.loads(json.dumps(record)) for record in records]
        return [next((one for one in usable if is_of_set(one, record)), None) for record in plain]


def measure(
    images: Images,
    reference: Images,
    metrics: Sequence[str] | None = None,
    *,
    features: str | None = None,
    neighbours: int = NEIGHBOURS,
    counts: Sequence[int] | None = None,
    root: str | None = None,
    size: int | tuple[int, int] | None = None,
    label: str | None = None,
    out: str | Path | None = None,
) -> Evaluation:
    """Measure images against a reference: arrays, tensors, samples, data sets, or either by name or path; the reference
    may also be a file of statistics.

    `metrics`: names, or all that can be had. `features`: see `open_extractor`, or `classifier:RUN`; the best at hand
    unless given (see `features_for`). `neighbours`: k of precision and recall. `counts`: how many of the images to
    compute the Fréchet distance from, besides from all. `root`: where the files of named data lie. `size`: what both
    are cropped (centred) and resized to, a side or (height, width). `label`: what tables call it. `out`: a file to
    write it to. Raises InputError for what cannot be measured."""
    began = time.perf_counter()
    check_out(out, Path(str(images)) if isinstance(images, str | Path) else None, str(reference))
    for given in (images, reference):
        if isinstance(given, str | Path):
            _check_images(str(given))
    opening = Opening(root, size)
    with gathered_cautions() as warnings:
        subject = subject_of(images, opening)
        _, height, width, channels = subject.images.shape
        named = str(reference) if isinstance(reference, str | Path) else None
        whole = named or opening.fitted(image_set(reference, "reference"))
        chosen = features or features_for(
            (channels, height, width), None, lambda: _opened(whole, opening),
            reference=named,
        )  # fmt: skip
        wanted = Wanted.of(metrics, chosen, neighbours, counts)
        against = open_reference(
            whole, wanted.features, opening,
            features=wanted.reference_features, classes=wanted.classes, holdout=wanted.holdout,
            shape=(channels, height, width),
        )  # fmt: skip
        evaluation = measured(subject, against, wanted)
    evaluation = said(evaluation, warnings, began, label)
    return evaluation if out is None else written(evaluation, out)


def _check_images(name: str) -> None:
    """Raises InputError for a run, and, before anything else is said, for what is not there."""
    if kind_of(name) == "folder" and is_run(name):
        raise InputError(f"{name}: a run, expected images; `trilemma evaluate {name}` samples and measures it")
    if not kind_of(name):
        available_splits(parse_reference(name)[0])


def _opened(reference: str | ImageSet, opening: Opening) -> ImageSet:
    return reference if isinstance(reference, ImageSet) else opening(*parse_reference(reference))


def _as_run(path: Path, verify: bool) -> Run | None:
    if is_run(path):
        return open_run(path, verify=verify)
    if not path.exists():
        raise InputError(f"{path} does not exist: expected a run directory, or samples as an .npz, a folder or a zip")
    return None
