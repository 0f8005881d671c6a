"""What a training will take, measured on the machine that it will run on, before it is begun."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from accelerate import Accelerator

from trilemma.data import ImageSet
from trilemma.jobs import occasions
from trilemma.jobs.rehearsal import rehearsal
from trilemma.jobs.watching import GRID
from trilemma.machine.devices import memory_of
from trilemma.recipes import CompletedRecipe
from trilemma.runs.build import parameter_count
from trilemma.training import TrainingSettings, sampled

LINE = 1500
"""Bytes of a line of the log and of the same figures for TensorBoard, some twenty of them."""


@dataclass(frozen=True)
class Occasion:
    """What a training does `times` over, `seconds` each."""

    times: int
    seconds: float

    @property
    def total(self) -> float:
        """Seconds in all."""
        return self.times * self.seconds


@dataclass(frozen=True)
class Estimate:
    """What a training takes. `steps` of so many `batch` images (of all processes) out of `images` there are; times in
    seconds, sizes in bytes.

    `seconds_per_step` was timed over `timed` images at once, less than `batch` where that would have taken minutes, or
    more memory than was free. `once`: before the first step; `occasions`: every so often; by name. `peak_memory`: what
    the process takes at its peak beyond what it held before, `held`, of the kind `memory_kind` (see `Speed`); None
    where the system doesn't tell. `memory`: what there is of it. `disk`: what is kept, by name; `free`: what there is.
    `parameters`: of all networks that are trained, `sampled_parameters`: of the one that is sampled, 0 where none is.
    `left_out`: what is not counted, in words."""

    steps: int
    batch: int
    images: int
    parameters: int
    sampled_parameters: int
    seconds_per_step: float
    timed: int
    once: Mapping[str, float]
    occasions: Mapping[str, Occasion]
    peak_memory: int | None
    memory_kind: str | None
    held: int
    memory: int
    disk: Mapping[str, int]
    free: int
    left_out: tuple[str, ...] = field(default=())

    @property
    def seconds(self) -> float:
        """The whole training."""
        every = sum(occasion.total for occasion in self.occasions.values())
        return sum(self.once.values()) + self.steps * self.seconds_per_step + every

    @property
    def passes(self) -> float:
        """Over the data, in all steps."""
        return self.steps * self.batch / self.images


def seconds_per_step(recipe: CompletedRecipe, data: ImageSet, *, process: Accelerator | None = None) -> float:
    """Seconds that a training step of this recipe takes here: a few steps are made, in some ten seconds at most, and
    nothing is kept of them."""
    with rehearsal(recipe, data, process=process) as training:
        return training.steps().seconds


def estimate(
    recipe: CompletedRecipe,
    data: ImageSet,
    *,
    process: Accelerator | None = None,
    place: Path | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Estimate:
    """What training this recipe on this data takes here, by a few real steps of the real batch, a look at held-out
    images, the beginning of a grid of samples, a checkpoint: some ten to twenty seconds. Nothing is kept of it, neither
    files nor what random generators drew. `process`: as it is to be trained, alone unless given; `place`: where.

    Raises InputError for what training would refuse to begin."""
    with rehearsal(recipe, data, process=process, clock=clock) as training:
        steps = training.steps()
        peak, kind = training.memory()
        saving, size = occasions.saving(training)
        encoding, latents = occasions.encoding(training)
        measuring = occasions.evaluation(training)
        once = {
            "building and first steps": training.building + steps.warming,
            "latents": encoding,
            "features of the reference": measuring.once if measuring else 0.0,
        }
        each = {
            "validation": occasions.validation(training),
            "grids": occasions.grid(training),
            "evaluation": measuring.each if measuring else 0.0,
            "checkpoints": saving,
        }
        later, _ = training.memory()
        if peak is not None:
            peak = max(peak + steps.unseen, later or 0)
        times = _times(recipe)
        learner = training.trainer.learner
        where = (place or Path("runs") / recipe.name).absolute()
        return Estimate(
            steps=recipe.training.steps,
            batch=recipe.training.batch,
            images=len(data),
            parameters=parameter_count(learner.network),
            sampled_parameters=0 if learner.denoiser is None else parameter_count(sampled(learner.network)),
            seconds_per_step=steps.seconds,
            timed=steps.images,
            once={name: seconds for name, seconds in once.items() if seconds},
            occasions={name: Occasion(times[name], each[name]) for name in each if each[name]},
            peak_memory=peak,
            memory_kind=kind,
            held=training.held,
            memory=memory_of(training.process.device),
            disk=_disk(recipe, size, times, grids=learner.denoiser is not None)
            | ({"latents": latents} if latents else {}),
            free=shutil.disk_usage(next(folder for folder in (where, *where.parents) if folder.exists())).free,
            left_out=tuple(_left_out(recipe, training.uncoded, measuring is None or measuring.whole)),
        )


def _times(recipe: CompletedRecipe) -> dict[str, int]:
    """How often each occasion comes, as the loop and what watches it have them: the last step is one of each."""
    settings, steps = recipe.training, recipe.training.steps

    def due(every: int) -> int:
        return -(-steps // every) if every else 0

    return {
        "validation": due(settings.validate_every),
        "grids": due(settings.grid_every),
        "evaluation": due(recipe.evaluate.every),
        "checkpoints": due(settings.checkpoint_every),
        "log": due(settings.log_every),
    }


def _disk(recipe: CompletedRecipe, checkpoint: int, times: Mapping[str, int], grids: bool) -> dict[str, int]:
    """Bytes that a run comes to. Of checkpoints there is one more while the last is written; the pixels of a grid are
    taken to be as many bytes, which noise is."""
    settings: TrainingSettings = recipe.training
    channels, height, width = recipe.images.shape
    lines = times["log"] + times["validation"] + times["evaluation"]
    kept = {
        "checkpoints": checkpoint * (min(settings.keep, times["checkpoints"]) + 1),
        "grids": times["grids"] * len(GRID) * channels * height * width if grids else 0,
        "log": lines * LINE,
    }
    return {name: size for name, size in kept.items() if size}


def _left_out(recipe: CompletedRecipe, uncoded: bool, measured: bool) -> list[str]:
    found = []
    if recipe.training.compile:
        found.append("compiling, and what it gains: the steps were timed uncompiled")
    if recipe.codec is not None and uncoded:
        found.append(f"the codec {recipe.codec.name}, which is still to be trained: latents, validation and samples")
    if not measured:
        found.append("the arithmetic of evaluations, beyond samples and features, and its memory")
    return found
