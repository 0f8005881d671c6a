"""What to say of a training before hours are spent on it: rules of thumb, each with the figures it rests on."""

from __future__ import annotations

from collections.abc import Iterator

from trilemma.jobs.estimating import Estimate
from trilemma.recipes import load

CAPACITY = 1_000
"""Parameters for each image from which a network is taken to have room for all of them."""

OFTEN = 100
"""Passes over the data from which it is taken to have the time as well."""

DAY = 86_400.0


def warnings(found: Estimate) -> list[str]:
    """What to look at before this is trained, one matter a line.

    A generator that may memorise: its room and its time are above `CAPACITY` and `OFTEN`. That it takes both is known;
    where the limits lie is a rule of thumb, as they depend on data, network and training. A U-Net of 7.6 M parameters
    gives back its training faces below 1 000 of them, at 7 600 parameters each, and no more from 10 000 on, at 760
    (Kadkhodaie et al. 2024, figure 2). Networks memorise where data are few for their capacity, and do not generalise
    there (Yoon et al. 2023); the largest set that is memorised grows with width, epochs and conditioning (Gu et al.
    2023); and the steps until it is, with the number of images, which makes it a number of passes (Bonnaire et al.
    2025). Small sets of faces are copied, large ones hardly (Somepalli et al. 2023). `memorisation` measures it.

    Few steps: less than a pass, so that there are images that are never seen; or, of a generator, fewer images seen
    than half of what the demo takes for its digits, which are easier than most."""
    return [*_machine(found), *_data(found)]


def _machine(found: Estimate) -> Iterator[str]:
    if found.peak_memory is not None and found.held + found.peak_memory > found.memory:
        yield (
            f"memory: {size(found.held + found.peak_memory)} at the peak, and there are {size(found.memory)}: expected "
            "a smaller training.micro_batch, training.recompute true, training.precision bf16 or a smaller network"
        )
    needed = sum(found.disk.values())
    if needed > found.free:
        yield (
            f"disk: {size(needed)} are needed, and {size(found.free)} are free: expected a smaller training.keep, a "
            "larger training.grid_every, or --out elsewhere"
        )
    if found.seconds > DAY:
        yield f"time: {found.seconds / DAY:.1f} days: expected fewer steps, a smaller network or another machine"


def _data(found: Estimate) -> Iterator[str]:
    room = found.sampled_parameters / found.images
    if room > CAPACITY and found.passes > OFTEN:
        yield (
            f"few images for the network: {room:,.0f} parameters for each of the {found.images:,}, which are seen "
            f"{found.passes:,.0f} times; by a rule of thumb over {CAPACITY:,} and {OFTEN} are enough to learn them by "
            "heart: look at memorisation and held-out images, or take a smaller network or fewer steps"
        )
    if found.passes < 1:
        yield f"few steps for the data: {1 - found.passes:.0%} of the {found.images:,} images are never seen"
    demo, seen = load("demo").training, found.steps * found.batch
    if found.sampled_parameters and 2 * seen < demo.steps * demo.batch:
        yield (
            f"few steps: {seen:,} images are seen in all, and the demo takes {demo.steps * demo.batch:,} for its digits"
        )


def size(count: float) -> str:
    """Bytes in words."""
    return f"{count / 2**30:,.1f} GiB" if count >= 2**30 else f"{count / 2**20:,.3g} MiB"
