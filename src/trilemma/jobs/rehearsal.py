"""A training in small: the loop that `train` runs, on the data and the machine that it will run on, for some steps."""

from __future__ import annotations

import signal
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, repeat

import numpy as np
import torch
from accelerate import Accelerator

from trilemma.data import ImageSet
from trilemma.errors import InputError
from trilemma.jobs.watching import batches_of
from trilemma.machine.devices import accelerator
from trilemma.metrics import peak_memory
from trilemma.process import Codec
from trilemma.recipes import CompletedRecipe
from trilemma.runs.build import build_learner
from trilemma.runs.latents import Latents, codec_of, some_latents
from trilemma.runs.logs import Window
from trilemma.training import Report, Trainer

FEW = 2
"""Images that one process begins with: one alone has no variance for batch normalisation at 1×1."""

LEAST, MOST, SECONDS = 2, 40, 4.0
"""Of each kind of step at least so many are timed, and at most so many, in about so many seconds."""

LIMIT = 3.0
"""Seconds of a step, or of one of each kind, beyond which fewer images than a batch are timed."""

KINDS = 4096
"""Steps of a training that are looked at for what kinds there are, and how many of each."""


@dataclass(frozen=True)
class StepTime:
    """`seconds` of a training step, over the kinds there are; timed over so many `images`, all of a batch unless that
    would take minutes; and `warming`: the seconds that the first steps take beyond that."""

    seconds: float
    images: int
    warming: float


@contextmanager
def rehearsal(
    recipe: CompletedRecipe,
    data: ImageSet,
    *,
    process: Accelerator | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Iterator[Rehearsal]:
    """A training that leaves nothing behind: no file, no run, and the random generators as they were."""
    if process is None:
        process = accelerator(recipe.training.precision)
    cuda = [process.device] if process.device.type == "cuda" else []
    with torch.random.fork_rng(cuda):
        yield Rehearsal(recipe, data, process, clock)


class Rehearsal:
    """See `rehearsal`. `building`: the seconds it took to build what is trained. `memory`: what says how many bytes it
    has taken at most."""

    def __init__(
        self,
        recipe: CompletedRecipe,
        data: ImageSet,
        process: Accelerator,
        clock: Callable[[], float],
    ):
        self.recipe, self.process, self.clock = recipe, process, clock
        if process.device.type == "cuda":
            torch.cuda.init()  # or its memory would not be looked at
        self.memory = peak_memory()
        began = clock()
        self.codec = _codec(recipe)
        self.source = data if recipe.codec is None else _latents(recipe, data, self.codec)
        # Compiling takes longer than all that is timed here.
        endless = {"steps": 10**9, "checkpoint_every": 10**9, "skip_limit": 10**9, "compile": False}
        settings = recipe.training.model_copy(update=endless)
        self.trainer = Trainer(build_learner(recipe, self.codec), settings, process, None)
        self.building = clock() - began

    def step(self) -> StepTime:
        """How long a training step takes: the loop's own, with loading, micro-batches, updates, averages and what the
        log keeps of it. The median of each kind of step, weighted by how many there are of it."""
        batch, few = self.recipe.training.batch, FEW * self.process.num_processes
        few = min(batch, few)
        cold, tried = self._timed(few, 1)
        images = batch
        if (each := cold / few) * batch > LIMIT:  # or so it seems: the first of all takes longer than others
            again, tried = self._timed(few, 1)
            each = again / few
            images = min(batch, max(few, int(LIMIT / each) // few * few))
        warm, seconds = self._timed(images, LEAST)
        if images < batch:
            slope = (seconds - tried) / (images - few) if images > few else tried / few
            seconds += max(slope, 0.0) * (batch - images)
        return StepTime(seconds, images, cold + max(0.0, warm - seconds))

    def _timed(self, images: int, least: int) -> tuple[float, float]:
        """Seconds of the first round of steps, and of a step once it is warm, at so many images a step. A round has one
        of each kind; at least so many are timed."""
        settings = self.recipe.training
        small = settings.model_copy(update={"batch": images})
        batches = batches_of(self.recipe.model_copy(update={"training": small}), self.source, self.process)
        kinds = self._kinds()
        # What loading processes have ready before the first step says nothing of how fast they load.
        ahead = 0 if batches.source.in_memory or least < LEAST else 2 * settings.workers
        reports, window = self.trainer.run(batches), Window(images)

        def timed(step: int) -> float:
            began, self.trainer.step = self.clock(), step
            window.add(self._next(reports))
            return self.clock() - began

        try:
            first = self._agreed(sum(timed(step) for step, _ in kinds.values()))
            rounds = min(max(int(SECONDS / max(first, 1e-9)), least), MOST if least > 1 else 1)
            for step, _ in chain.from_iterable(repeat(kinds.values(), min(ahead, rounds))):
                timed(step)
            took = [[timed(step) for step, _ in kinds.values()] for _ in range(rounds)]
        finally:
            reports.close()
        shares = [share for _, share in kinds.values()]
        medians = [statistics.median(each) for each in zip(*took, strict=True)]
        return first, self._agreed(sum(share * each for share, each in zip(shares, medians, strict=True)))

    def _kinds(self) -> dict[tuple[object, ...], tuple[int, float]]:
        """A step of each kind, and the share of them in all of the recipe's steps."""
        steps, learner = self.recipe.training.steps, self.trainer.learner
        looked = range(steps) if steps <= KINDS else np.random.default_rng(0).integers(steps, size=KINDS).tolist()
        found = {learner.kind(step): step for step in looked}
        counts = Counter(learner.kind(step) for step in looked)
        return {kind: (step, counts[kind] / len(looked)) for kind, step in found.items()}

    def _next(self, reports: Iterator[Report]) -> Report:
        report = next(reports)
        if self.trainer.stopped == signal.SIGINT:
            raise KeyboardInterrupt
        if self.trainer.stopped is not None:
            raise SystemExit(128 + self.trainer.stopped)
        return report

    def _agreed(self, seconds: float) -> float:
        """The slowest process's: they all wait for it, and have to make the same steps."""
        if self.process.num_processes == 1:
            return seconds
        told = torch.tensor([seconds], device=self.process.device)
        return float(self.process.gather(told).max())


def _codec(recipe: CompletedRecipe) -> Codec | None:
    """The recipe's codec, if it has one and that is there."""
    try:
        return codec_of(recipe)
    except InputError:
        return None


def _latents(recipe: CompletedRecipe, data: ImageSet, codec: Codec | None) -> Latents:
    """As many latents as a batch has; of a codec that is still to be trained, noise of their shape."""
    count = recipe.training.batch
    if codec is not None:
        return some_latents(data, recipe, codec, count)
    labels = None if data.labels is None else np.resize(data.labels, count)
    return Latents(
        np.random.default_rng(0).standard_normal((count, *recipe.space), np.float32), labels, recipe.space[0]
    )
