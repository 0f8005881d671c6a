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
from trilemma.jobs.watching import batches_of, validation_of
from trilemma.machine.devices import accelerator, free_memory, give_back
from trilemma.machine.progress import quiet
from trilemma.metrics import peak_memory, resident
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


@dataclass(frozen=True)
class _Timed:
    """Steps of so many `images`: seconds of the `first` round of one step of each kind, of a `round` once it is warm,
    and of a step (`seconds`), over the kinds; and the bytes that have been `taken` until then."""

    images: int
    first: float
    round: float
    seconds: float
    taken: int


@contextmanager
def rehearsal(
    recipe: CompletedRecipe,
    data: ImageSet,
    *,
    process: Accelerator | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Iterator[Rehearsal]:
    """A training that leaves nothing behind, no file, no run, no word, and the random generators as they were."""
    if process is None:
        process = accelerator(recipe.training.precision)
    cuda = [process.device] if process.device.type == "cuda" else []
    with torch.random.fork_rng(cuda), quiet():
        yield Rehearsal(recipe, data, process, clock)


class Rehearsal:
    """See `rehearsal`. `codec`: the recipe's, None also where it is still to be trained. `validation`: held-out images,
    if it looks at some. `building`: the seconds it took to build what is trained. `memory`: what says how many bytes it
    has taken at most, and of which kind, beyond what the process `held` before."""

    def __init__(
        self, recipe: CompletedRecipe, data: ImageSet, process: Accelerator, clock: Callable[[], float]
    ) -> None:
        self.recipe, self.data, self.process, self.clock = recipe, data, process, clock
        if process.device.type == "cuda":
            torch.cuda.init()  # or its memory would not be looked at
        self.memory = peak_memory()
        self.held = (resident() or 0) if process.device.type == "cpu" else 0
        began = clock()
        self.codec = _codec(recipe)
        self.source = data if recipe.codec is None else _latents(recipe, data, self.codec)
        batches_of(recipe, self.source, process)  # or what cannot be had would show after all that is built
        # Compiling takes longer than all that is timed here.
        endless = {"steps": 10**9, "checkpoint_every": 10**9, "skip_limit": 10**9, "compile": False}
        settings = recipe.training.model_copy(update=endless)
        self.validation = None if self.uncoded else validation_of(recipe, self.codec)
        self.trainer = Trainer(build_learner(recipe, self.codec), settings, process, None)
        self.building = clock() - began

    @property
    def uncoded(self) -> bool:
        """Whether latents are learnt from and there is no codec yet."""
        return self.recipe.codec is not None and self.codec is None

    def steps(self) -> Steps:
        """How long a training step takes: the loop's own, with loading, micro-batches, updates, averages and what the
        log keeps of it. The median of each kind of step, weighted by how many there are of it."""
        batch, few = self.recipe.training.batch, FEW * self.process.num_processes
        seen = [self._timed(min(batch, few), 1)]
        # From few images on, so that neither hours nor all memory are gone before that shows; by two sizes, as some of
        # it does not grow with the images.
        while not self._bearable(seen, batch):
            alone = len(seen) == 1
            images = (2 if alone else 4) * seen[-1].images
            if images >= batch or (seen[0].round > LIMIT if alone else not self._bearable(seen, images)):
                break
            seen.append(self._timed(images, 1))
        least = seen[-1].images
        fewer = (n for n in range(batch // few * few, least, -few) if self._bearable(seen, n))
        images = batch if self._bearable(seen, batch) else next(fewer, least)
        seen.append(self._timed(images, LEAST))
        last = seen[-1]
        seconds = last.seconds + _slope(seen, "seconds") * (batch - images)
        warming = seen[0].first + max(0.0, last.first - last.round)
        return Steps(seconds, images, warming, int(self._bytes(seen, batch)))

    def _bearable(self, seen: list[_Timed], images: int) -> bool:
        """Whether steps of so many images take neither too long nor too much memory, by those that were seen."""
        last = seen[-1]
        room = self._agreed(FREE * free_memory(self.process.device), min)
        within = last.round + _slope(seen, "round") * (images - last.images) <= LIMIT
        return within and self._bytes(seen, images) <= room

    def _bytes(self, seen: list[_Timed], images: int) -> float:
        """Beyond those that were taken last, for a batch of so many images: at most, where there was one size alone."""
        sizes = [(0, 0), *((self._at_once(one.images), one.taken) for one in seen)]
        last, taken = sizes[-1]
        less, before = next(size for size in reversed(sizes) if size[0] < last)
        return max(0, taken - before) / (last - less) * max(0, self._at_once(images) - last)

    def _at_once(self, images: int) -> int:
        """How many of a batch of so many images one process takes through the network together."""
        share = images // self.process.num_processes
        return min(self.trainer.updates.micro_batch or share, share)

    def _timed(self, images: int, least: int) -> _Timed:
        """Steps of so many images: at least so many rounds of one of each kind, and no more where one is enough."""
        settings = self.recipe.training
        fewer = settings.model_copy(update={"batch": images})
        batches = batches_of(self.recipe.model_copy(update={"training": fewer}), self.source, self.process)
        kinds = self._kinds()
        # What loading processes have ready before the first step says nothing of how fast they load.
        ahead = 0 if batches.source.in_memory or least < LEAST else 2 * settings.workers
        window = Window(images)
        give_back()  # what other sizes of a batch have left is of no use to this one
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
        medians = [statistics.median(each) for each in zip(*took, strict=True)]
        seconds = sum(share * each for (_, share), each in zip(kinds, medians, strict=True))
        taken = int(self._agreed(self.memory()[0] or 0))
        return _Timed(images, first, self._agreed(sum(medians)), self._agreed(seconds), taken)

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


def _slope(seen: list[_Timed], of: str) -> float:
    """What one more image adds to this figure, by the last size and the one before it; its share, where there was one
    size alone."""
    last = seen[-1]
    before = next((one for one in reversed(seen) if one.images < last.images), None)
    if before is None:
        return float(getattr(last, of)) / last.images
    return max(0.0, getattr(last, of) - getattr(before, of)) / (last.images - before.images)
