"""A training in small: the loop that `train` runs, on the data and the machine that it will run on, for some steps."""

from __future__ import annotations

import signal
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import chain, repeat

import numpy as np
import torch
from accelerate import Accelerator

from trilemma.data import ImageSet
from trilemma.errors import InputError
from trilemma.jobs.watching import batches_of
from trilemma.machine.devices import accelerator, free_memory
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

FREE = 0.8
"""The share of the memory that is free which a step may be expected to take, or fewer images are timed."""

KINDS = 4096
"""Steps of a training that are looked at for what kinds there are, and how many of each."""


@dataclass(frozen=True)
class Steps:
    """`seconds` of a training step, over the kinds there are; timed over so many `images`, all of a batch unless that
    would take minutes, or more memory than is free; `warming`: the seconds that the first steps take beyond that;
    `unseen`: bytes that a whole batch takes beyond those images."""

    seconds: float
    images: int
    warming: float
    unseen: int


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
    """See `rehearsal`. `codec`: the recipe's, None also where it is still to be trained. `building`: the seconds it
    took to build what is trained. `memory`: what says how many bytes it has taken at most, and of which kind."""

    def __init__(
        self, recipe: CompletedRecipe, data: ImageSet, process: Accelerator, clock: Callable[[], float]
    ) -> None:
        self.recipe, self.data, self.process, self.clock = recipe, data, process, clock
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

    def steps(self) -> Steps:
        """How long a training step takes: the loop's own, with loading, micro-batches, updates, averages and what the
        log keeps of it. The median of each kind of step, weighted by how many there are of it."""
        batch, few = self.recipe.training.batch, FEW * self.process.num_processes
        seen: list[tuple[int, float, int]] = []
        images, cold, slope = min(batch, few), 0.0, 0.0
        while True:  # from few images on, so that neither hours nor all memory are gone before that shows
            first, seconds = self._timed(images, 1)
            cold = cold or first
            seen.append((images, seconds, self._taken()))
            slope = self._slope(seen)
            room = self._agreed(FREE * free_memory(self.process.device), min)
            if 4 * images >= batch or 4 * first > LIMIT or 3 * images * slope > room:
                break
            images *= 4
        fits = self._agreed(images + room / slope, min) if slope else batch
        images = min(batch, max(images, int(min(images * LIMIT / max(first, 1e-9), fits)) // few * few))
        warm, seconds = self._timed(images, LEAST)
        seen.append((images, seconds, self._taken()))
        if images < batch:
            before = seen[-2] if seen[-2][0] < images else seen[0]
            more = images - before[0]
            seconds += (max(0.0, seconds - before[1]) / more if more else seconds / images) * (batch - images)
        unseen = int(self._slope(seen) * (self._at_once(batch) - self._at_once(images)))
        return Steps(seconds, images, cold + max(0.0, warm - seconds), unseen)

    def _slope(self, seen: list[tuple[int, float, int]]) -> float:
        """Bytes that each more image at once takes, by the last two sizes of a batch that there were."""
        (few, _, before), (many, _, taken) = [seen[0], *seen][-2:]
        more = self._at_once(many) - self._at_once(few)
        return max(0, taken - before) / more if more > 0 else 0.0

    def _at_once(self, images: int) -> int:
        """How many of a batch of so many images one process takes through the network together."""
        share = images // self.process.num_processes
        return min(self.recipe.training.micro_batch or share, share)

    def _taken(self) -> int:
        return self.memory()[0] or 0

    def _timed(self, images: int, least: int) -> tuple[float, float]:
        """Seconds of the first round of steps, and of a step once it is warm, at so many images a step. A round has one
        of each kind; at least so many are timed, and no more where one is enough."""
        settings = self.recipe.training
        fewer = settings.model_copy(update={"batch": images})
        batches = batches_of(self.recipe.model_copy(update={"training": fewer}), self.source, self.process)
        kinds = self._kinds()
        # What loading processes have ready before the first step says nothing of how fast they load.
        ahead = 0 if batches.source.in_memory or least < LEAST else 2 * settings.workers
        window = Window(images)
        with closing(self.trainer.run(batches)) as reports:

            def timed(step: int) -> float:
                began, self.trainer.step = self.clock(), step
                window.add(self._next(reports))
                return self.clock() - began

            first = self._agreed(sum(timed(step) for step, _ in kinds))
            rounds = 1 if least < LEAST else min(max(int(SECONDS / max(first, 1e-9)), least), MOST)
            for step, _ in chain.from_iterable(repeat(kinds, min(ahead, rounds))):
                timed(step)
            took = [[timed(step) for step, _ in kinds] for _ in range(rounds)]
        medians = map(statistics.median, zip(*took, strict=True))
        return first, self._agreed(sum(share * each for (_, share), each in zip(kinds, medians, strict=True)))

    def _kinds(self) -> list[tuple[int, float]]:
        """A step of each kind, and the share of its kind in all of the recipe's steps."""
        steps, kind = self.recipe.training.steps, self.trainer.learner.kind
        looked = range(steps) if steps <= KINDS else np.random.default_rng(0).integers(steps, size=KINDS).tolist()
        one = {kind(step): step for step in looked}
        counts = Counter(map(kind, looked))
        return [(step, counts[what] / len(looked)) for what, step in one.items()]

    def _next(self, reports: Iterator[Report]) -> Report:
        report = next(reports)
        if self.trainer.stopped == signal.SIGINT:
            raise KeyboardInterrupt
        if self.trainer.stopped is not None:
            raise SystemExit(128 + self.trainer.stopped)
        return report

    def _agreed(self, value: float, of: Callable[[list[float]], float] = max) -> float:
        """One value for all processes, that of the slowest: they wait for it, and have to make the same steps."""
        if self.process.num_processes == 1:
            return value
        told = torch.tensor([value], device=self.process.device)
        return of(self.process.gather(told).tolist())


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
    noise = np.random.default_rng(0).standard_normal((count, *recipe.space), np.float32)
    return Latents(noise, labels, recipe.space[0])
