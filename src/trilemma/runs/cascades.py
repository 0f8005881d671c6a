"""Cascades: upsamplers on what makes their low images, chained as one run (B, two stages; Ho et al. 2022)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt8

from trilemma.data import read_samples
from trilemma.errors import InputError
from trilemma.machine.untrusted import kind_of
from trilemma.runs.run import Run, Way
from trilemma.runs.sample_sets import read_record, record_of
from trilemma.samplers import Finished, Stage

AT_BASE = ("guidance", "guidance_interval", "surrogate", "t_mid", "handover", "classifier", "guide")
"""The settings that choose what is seen in the images, which is settled below the upsamplers."""


class Cascade(Run):
    """An upsampler's run on `below`, which makes its low images: a run, itself a cascade perhaps, or finished images.

    It is sampled like one run. Classes, guidance and a surrogate are the base's; how the walk is made (sampler, steps,
    precision, weights, …) is every stage's, each by its own recipe where nothing is given; `low_noise` is that of
    every upsampler that was trained with it. Image i depends on its seed alone, and the base makes the images that it
    makes by itself.

    Raises InputError as `Run` does, and where the run is no upsampler or those below are no low images of its."""

    def __init__(self, path: str | Path, below: Run | Finished, *, verify: bool = True, **own: Any):
        super().__init__(path, verify=verify, **own)
        self.below = below
        if self.pairs is None:
            raise InputError(
                f"{self.spec}: {path} is no upsampler (its recipe has no learner.low), and only one goes last"
            )
        found, channels = self._shape_below, self.recipe.images.channels
        if found != (channels, *self.pairs.size):
            raise InputError(
                f"{self.spec}: {path} starts from images {(channels, *self.pairs.size)} (channels, height, width), "
                f"those below are {found}"
            )

    @property
    def _shape_below(self) -> tuple[int, int, int]:
        return self.below.shape if isinstance(self.below, Finished) else self.below.recipe.images.shape

    @property
    def noised(self) -> bool:
        """Whether an upsampler in it is trained on noised low images."""
        return bool(self.pairs and self.pairs.noise) or (isinstance(self.below, Cascade) and self.below.noised)

    @property
    def spec(self) -> str:
        below = self.below.label if isinstance(self.below, Finished) else self.below.spec
        return f"{below}+{self.path}"

    @property
    def parameters(self) -> int:
        """Of all networks."""
        return super().parameters + (0 if isinstance(self.below, Finished) else self.below.parameters)

    def way(self, **settings: Any) -> Way:
        assert self.pairs is not None
        without = {key: value for key, value in settings.items() if key != "low_noise"}
        noised_below = isinstance(self.below, Cascade) and self.below.noised
        mine = without if noised_below and not self.pairs.noise else settings
        chosen = self.recipe.sampling.changed(**{key: value for key, value in mine.items() if key not in AT_BASE})
        if chosen.low_noise > self.pairs.noise:
            raise InputError(
                f"low_noise {chosen.low_noise:g}: {self.path} is trained on low images noised up to "
                f"{self.pairs.noise:g} (learner.low_noise)"
            )
        low: Stage
        if isinstance(self.below, Finished):
            if given := [key for key in AT_BASE if settings.get(key) is not None]:
                raise InputError(f"{given[0]}: it is the base's, and {self.below.label} holds finished images")
            under, low, classes = None, self.below, self.classes
        else:
            under = self.below.way(**(settings if noised_below else without) | {"batch": chosen.batch})
            low, classes = under.sampler, under.classes
        if self.classes and classes != self.classes:
            raise InputError(
                f"{self.spec}: {self.path} is conditioned on {len(self.classes)} classes, and what lies below has "
                f"{len(classes) or 'none'}" + (" of other names" if len(classes) == len(self.classes) else "")
            )
        sampler = chosen.build(self.denoiser(chosen.weights), self.recipe.images.shape, low=low)
        return Way(chosen, sampler, classes, under.guide if under else None, under)

    def words(self, way: Way) -> list[str]:
        if way.below is None or isinstance(self.below, Finished):
            return [*super().words(way), "over", Path(self.spec.partition("+")[0]).stem]
        return [*super().words(way), "over", self.below.path.name, *self.below.words(way.below)]

    def made(self, way: Way) -> dict[str, Any]:
        """How images are made, and how the low images are, as `low` beside the sampler's settings."""
        own = super().made(way)
        if way.below is None or isinstance(self.below, Finished):
            low = dict(self.below.record) if isinstance(self.below, Finished) else {}
        else:
            low = {"name": self.below.spec} | self.below.made(way.below)
        return own | {"sampler": own["sampler"] | {"low": low}}


def open_run(spec: str | Path, *, verify: bool = True) -> Run:
    """The run at this path; or a cascade, BASE+UPSAMPLER, each a run's path, BASE also finished samples (.npz, folder,
    zip), with further upsamplers behind it. Raises InputError for what is none."""
    parts = split_spec(spec)
    if not all(part.strip() for part in parts):
        raise InputError(f"{spec}: expected BASE+UPSAMPLER, the paths of two runs")
    first, *upsamplers = parts
    if not upsamplers:
        return Run(first, verify=verify)
    for part in parts:
        if not kind_of(part):
            raise InputError(f"{spec}: {part} does not exist, expected BASE+UPSAMPLER, the paths of two runs")
    opened: Run | Finished = Run(first, verify=verify) if is_run(first) else open_finished(Path(first))
    for path in upsamplers:
        opened = Cascade(path, opened, verify=verify)
    assert isinstance(opened, Run)
    return opened


def is_run(spec: str | Path) -> bool:
    """Whether it is a run's path, or a cascade."""
    return (Path(spec) / "recipe.yaml").is_file() or (Path(spec) / "checkpoints").is_dir() or len(split_spec(spec)) > 1


def split_spec(spec: str | Path) -> list[str]:
    """The paths of a cascade's stages; a path that is there is one, whatever it is called."""
    text = str(spec)
    return [text] if kind_of(text) else text.split("+")


def open_finished(path: Path) -> Finished:
    """Samples as a stage: seed i takes image i. Raises InputError where they cannot be read; when they are asked for,
    for a seed beyond them, and for a class that an image is not of."""
    held, known = read_samples(path)
    count, height, width, channels = held.shape

    def images(seeds: Sequence[int], labels: Int64[np.ndarray, "n"] | None) -> UInt8[np.ndarray, "n h w c"]:
        if max(seeds) >= count:
            raise InputError(f"{path}: it has {count} images, none for seed {max(seeds)}")
        for seed, label in zip(seeds, labels if known is not None and labels is not None else (), strict=False):
            if known is not None and known[seed] != label:
                raise InputError(
                    f"{path}: image {seed} is of class {known[seed]}, and class {label} is asked for; expected --class "
                    "as it was when they were made"
                )
        return held[list(seeds)]

    record: dict[str, Any] = {"name": str(path), "sha256": hashlib.sha256(held.tobytes()).hexdigest()}
    stages = 1
    with suppress(InputError):  # they are somebody else's
        stages = stages_in(read_record(record_of(path)))
    if stages > 1:
        record["stages"] = stages  # the streams of what goes on from them depend on it
    return Finished(images, (channels, height, width), str(path), record, stages=stages)


def stages_in(made: Mapping[str, Any]) -> int:
    """The stages by which images were made, as their record says: what goes on from them has to draw from other streams
    than any of those."""
    sampler, stated = made.get("sampler"), made.get("stages")
    if not isinstance(sampler, Mapping):
        return stated if isinstance(stated, int) else 1
    below = (sampler.get(key) for key in ("surrogate", "low"))
    return 1 + sum(stages_in(part) for part in below if isinstance(part, Mapping))
