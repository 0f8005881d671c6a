"""How fast a run's samples were made, and what that took."""

from __future__ import annotations

import statistics
from dataclasses import asdict
from pathlib import Path

import torch

from trilemma.machine.devices import process_state
from trilemma.machine.environment import environment
from trilemma.machine.files import write_json
from trilemma.metrics import Speed, measure, multiply_adds
from trilemma.metrics.metric import MACHINE
from trilemma.process import Condition
from trilemma.runs.run import Run
from trilemma.runs.sample_sets import labels_for, read_record
from trilemma.samplers import Sampler


def speed_of(beside: Path, sampler: Sampler, run: Run, batch: int) -> Speed:
    """The rate of the batches that were made, the first left out as a warm-up; where they are too few, timed once and
    written into the samples' record."""
    record, state = read_record(beside), process_state()
    here = environment(state.device, state.num_processes)
    same = all(record["environment"].get(key) == here[key] for key in MACHINE)
    full = [count / seconds for count, seconds in record["batches"][1:] if count == batch]
    if len(full) >= 2 and same and state.num_processes == 1:
        rates = (statistics.median(full), min(full), max(full))
        return Speed(*rates, batch, len(full), 1, sampler.evaluations, _multiply_adds(sampler, run))
    if "speed" not in record or not same:

        def generate(count: int) -> None:
            seeds = range(count)
            sampler.generate(seeds, labels_for(seeds, run.classes, None))

        each, count = _multiply_adds(sampler, run), sampler.evaluations
        timed = measure(generate, batch=min(batch, 16), network_evaluations=count, multiply_adds=each)
        record |= {"speed": asdict(timed), "environment": here}
        if state.is_main_process:
            write_json(beside, record)
    return Speed(**record["speed"])


def _multiply_adds(sampler: Sampler, run: Run) -> int:
    """What the networks do for one image, over all evaluations."""
    denoiser, t = sampler.denoiser, torch.tensor(sampler.denoiser.schedule.T, dtype=torch.float64)
    label = torch.zeros(1, dtype=torch.int64, device=sampler.device) if run.classes else None
    with torch.inference_mode():
        each = multiply_adds(
            lambda: denoiser(torch.zeros(1, *sampler.shape, device=sampler.device), t, Condition(label))
        )
    return each * sampler.evaluations
