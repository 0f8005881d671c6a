"""How fast a run's samples were made, and what that took."""

from __future__ import annotations

import statistics
from collections import Counter
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch

from trilemma.guidance import bind
from trilemma.machine.devices import process_state
from trilemma.machine.environment import environment
from trilemma.machine.files import write_json
from trilemma.metrics import Speed, measure, multiply_adds
from trilemma.metrics.metric import MACHINE
from trilemma.process import Condition, Draw, low_condition
from trilemma.runs.run import Way
from trilemma.runs.sample_sets import labels_for, read_record
from trilemma.samplers import HandOver, Sampler


def speed_of(beside: Path, way: Way) -> Speed:
    """The rate of the batches that were made, the first left out as a warm-up; where they are too few, timed once and
    written into the samples' record."""
    record, state = read_record(beside), process_state()
    sampler, batch = way.sampler, way.settings.batch
    here = environment(state.device, state.num_processes)
    same = all(record["environment"].get(key) == here[key] for key in MACHINE)
    full = [count / seconds for count, seconds in record["batches"][1:] if count == batch]
    if len(full) >= 2 and same and state.num_processes == 1:
        rates = (statistics.median(full), min(full), max(full))
        return Speed(*rates, batch, len(full), 1, sampler.evaluations, _multiply_adds(sampler, bool(way.classes)))
    if "speed" not in record or not same:

        def generate(count: int) -> None:
            seeds = range(count)
            sampler.generate(seeds, labels_for(seeds, way.classes, None))

        timed = measure(
            generate,
            batch=min(batch, 16),
            network_evaluations=sampler.evaluations,
            multiply_adds=_multiply_adds(sampler, bool(way.classes)),
        )
        record |= {"speed": asdict(timed), "environment": here}
        if state.is_main_process:
            write_json(beside, record)
    return Speed(**record["speed"])


def _multiply_adds(sampler: Sampler, labelled: bool) -> int:
    """What the networks do for one image, guides' and those of the stages below included, over all evaluations. Each
    is asked with a class if it has any."""
    asked = Counter(sampler.acting(t) for t in sampler.asked)
    once = {sampler.acting(t): t for t in sampler.asked}
    condition = Condition(torch.zeros(1, dtype=torch.int64, device=sampler.device) if labelled else None)
    if sampler.low is not None:
        low, clean = torch.zeros(1, *sampler.low.shape, device=sampler.device), torch.zeros(1, dtype=torch.float64)
        condition = low_condition(sampler.denoiser.schedule, low, clean, Draw([]), condition.label)

    def ask(t: float) -> None:
        denoiser = bind(sampler.denoiser, condition, sampler.guides, Draw.for_seeds([0], "latent"))
        with torch.inference_mode():
            denoiser(torch.zeros(1, *sampler.space, device=sampler.device), torch.tensor(t, dtype=torch.float64))

    def decode() -> None:
        with torch.inference_mode():
            sampler.denoiser.codec.decode(torch.zeros(1, *sampler.space, device=sampler.device))

    own = multiply_adds(decode) + sum(
        count * multiply_adds(partial(ask, once[acting])) for acting, count in asked.items()
    )
    below = [(sampler.low, labelled)]
    if (begun := sampler.surrogate) is not None:
        below.append((begun.stage, labelled if begun.classes is None else bool(begun.classes)))
    walks = [(stage.walked if isinstance(stage, HandOver) else stage, classes) for stage, classes in below]
    return own + sum(_multiply_adds(walk, classes) for walk, classes in walks if isinstance(walk, Sampler))
