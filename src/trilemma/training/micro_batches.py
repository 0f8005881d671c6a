"""How many images at once the memory holds, found out by steps that change nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import torch

from trilemma.errors import InputError
from trilemma.machine.memory import free_memory, peak_of
from trilemma.training.batches import Batch, Batches
from trilemma.training.learners import Losses, Outcome
from trilemma.training.shards import part
from trilemma.training.updates import Updates, weights_of

HEADROOM = 0.9
"""The share of the memory that is free which a step may take: gaps between tensors grow, and others want some too."""

LOOKED = 4096
"""Steps of a training that are looked at for what kinds there are."""


@dataclass(frozen=True)
class Fit:
    """A micro-batch of so many `images` of the `share` that a process has of a batch, and the bytes of memory that it
    takes and that there are for it."""

    images: int
    share: int
    needed: int
    there: int

    def __str__(self) -> str:
        return (
            f"micro_batch {self.images}: {self.needed / 2**30:,.2f} GiB for {self.images} of {self.share} images at "
            f"once, of {self.there / 2**30:,.2f} GiB"
        )


def fitting_micro_batch(
    share: int, taken: Callable[[int], float], there: float, agreed: Callable[[float], float] = float
) -> Fit:
    """The largest of `share`, its half, its quarter, … images that take no more memory than there is. `taken` measures
    what so many take, inf if too much; `agreed` is the largest of a value over all processes. Begins with few and goes
    on as long as the next, by what the last two took, should do: a device's memory is not exhausted to find out, in
    which processes would lose each other.

    Raises:
        InputError: where not one image fits.
    """
    sizes = [share]
    while sizes[-1] > 2:
        sizes.append(-(-sizes[-1] // 2))
    found: list[tuple[int, float]] = []
    for size in reversed(sizes):
        if len(found) > 1:
            (less, little), (more, much) = found[-2:]
            if much + (much - little) / (more - less) * (size - more) > there:
                break
        needed = agreed(taken(size))
        if needed > there:
            break
        found.append((size, needed))
    if not found and share > 1 and (needed := agreed(taken(1))) <= there:  # which batch norm may not take
        found.append((1, needed))
    if not found:
        took = "more than that" if math.isinf(needed) else f"{needed / 2**30:,.2f} GiB"
        raise InputError(
            f"training.micro_batch 'auto': there are {there / 2**30:,.2f} GiB of memory, and a step of one image takes "
            f"{took}: expected training.recompute or training.shard true, training.precision bf16, or a smaller network"
        )
    images, needed = found[-1]
    return Fit(images, share, int(needed), int(there))


def measured_micro_batch(updates: Updates, batches: Batches, steps: Sequence[int]) -> Fit:
    """The micro-batch that fits a process's share of these batches, at any of these steps, measured where training
    runs: over forward and backward passes of each kind of step. They leave nothing behind."""
    accelerator, learner, network = updates.accelerator, updates.learner, updates.network

    def agreed(value: float) -> float:
        return float(accelerator.gather(torch.tensor([value], device=accelerator.device)).max())

    drawn = np.random.default_rng(0).integers(len(steps), size=min(len(steps), LOOKED)).tolist()
    looked = steps if len(steps) <= LOOKED else [steps[i] for i in drawn]
    kinds = {learner.kind(step): step for step in looked}
    sample = batches[steps[0]].to(accelerator.device)
    left = deepcopy(learner.state_dict()), [buffer.clone() for buffer in network.buffers()]

    def taken(images: int) -> float:
        (some, *_) = sample.split(images)

        def tried() -> None:
            for step in kinds.values():
                _Trial(updates, step).run(some)

        return peak_of(tried, accelerator.device) + later

    with torch.random.fork_rng([accelerator.device] if accelerator.device.type == "cuda" else []):
        there = -agreed(-HEADROOM * free_memory(accelerator.device))
        later = _to_come(updates)
        try:
            return fitting_micro_batch(len(sample), taken, there, agreed)
        finally:
            learner.load_state_dict(left[0])
            for buffer, value in zip(network.buffers(), left[1], strict=True):
                buffer.copy_(value)


def _to_come(updates: Updates) -> int:
    """Bytes that are taken with the first update: two moments of each weight, and where processes send whole gradients
    to each other, those once more."""
    weights = [weight for optimizer in updates.optimizers.values() for weight in weights_of(optimizer)]
    moments = sum(2 * _bytes(weight) for weight in weights) * (not any(o.state for o in updates.optimizers.values()))
    sent = sum(map(_bytes, weights)) if updates.shards is None and updates.accelerator.num_processes > 1 else 0
    return moments + sent


def _bytes(weight: torch.Tensor) -> int:
    own = part(weight)
    return own.numel() * own.element_size()


class _Trial:
    """The loop of a step that updates nothing."""

    def __init__(self, updates: Updates, step: int):
        self.updates, self.step = updates, step

    def run(self, some: Batch) -> None:
        network = self.updates.network.train()
        self.updates.learner.begin(self.step)
        try:
            self.updates.learner.step(some, self)
        finally:
            network.zero_grad(set_to_none=True)

    def descend(self, losses: Losses, batch: Batch, optimizer: str = "optimizer") -> Outcome:
        return self.updates.tried(losses, batch, optimizer)

    def unseen(self, losses: Losses, count: int) -> Iterator[Outcome]:
        return iter(())
