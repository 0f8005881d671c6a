"""The simple gradient noise scale of a run's model under an objective (B; McCandlish et al. 2018, appendix A.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich import box
from rich.table import Table
from torch import Tensor

from trilemma.errors import InputError
from trilemma.jobs.watching import tensors_of
from trilemma.machine.environment import environment
from trilemma.machine.files import write_json
from trilemma.machine.progress import progress
from trilemma.process import Importance, Times
from trilemma.recipes import component, construct
from trilemma.runs.build import denoiser_of, open_images
from trilemma.runs.latents import latents_of
from trilemma.runs.run import Run
from trilemma.training import Batches, DenoisingLearner


@dataclass(frozen=True)
class GradientNoise:
    """`scale` = tr(Σ)/‖g‖², in images: the batch at which the gradient's noise equals its signal. `trace` is tr(Σ), the
    variance of one image's gradient, `signal` ‖g‖²; both unbiased. From gradients at batches `small` and `big`."""

    objective: str
    times: str
    trace: float
    signal: float
    small: int
    big: int

    @property
    def scale(self) -> float | None:
        """None where the estimate of ‖g‖² is not positive: the signal is lost in the noise, take more batches."""
        return self.trace / self.signal if self.signal > 0 else None


def gradient_noise(
    run: Run | str | Path,
    objectives: Sequence[str] = ("simple", "hybrid", "vlb"),
    times: Sequence[str] = ("uniform", "importance"),
    *,
    batch: int = 16,
    batches: int = 64,
    bins: int | None = None,
    seed: int = 0,
) -> list[GradientNoise]:
    """The noise scale under each objective with each time sampler, from `batches` gradients of `batch` images each, the
    run's averaged weights held fixed and its training images drawn as in training. An importance sampler's history is
    filled first, with ten losses for every one of its `bins`' groups of times (groups of at least T/100 unless given).

    ‖g‖² and tr(Σ) come from the mean squared norm at batch B and the squared norm of the mean of all (batch B·n):
    ‖g‖² = (B_big ‖G_big‖² − B ‖G‖²)/(B_big − B), tr(Σ) = (‖G‖² − ‖G_big‖²)/(1/B − 1/B_big)."""
    if batches < 2:
        raise InputError(f"batches {batches}: two batch sizes need 2 or more")
    run = run if isinstance(run, Run) else Run(run)
    data = open_images(run.recipe)
    codec = run.denoiser("ema" if run.recipe.training.ema else "raw").codec
    given = data if run.recipe.codec is None else latents_of(data, run.recipe, codec)[0]
    source = Batches(given, tensors_of(run.recipe, given), batch=min(batch, len(data)), seed=seed)
    found = []
    for objective in objectives:
        for sampler in times:
            learner = _learner(run, objective, sampler, bins)
            if isinstance(learner.times, Importance):
                _fill(learner, learner.times, source)
            found.append(_measure(learner, source, objective, sampler, batches))
    return found


def _learner(run: Run, objective: str, sampler: str, bins: int | None) -> DenoisingLearner:
    weights = run.learner("ema" if run.recipe.training.ema else "raw")
    denoiser, conditional = denoiser_of(weights, run.recipe), bool(run.classes)
    denoiser.network.requires_grad_(True)
    steps = denoiser.schedule.steps
    chosen: dict[str, Any] = {"name": sampler}
    if sampler == "importance" and steps is not None:
        chosen["bins"] = bins or next(w for w in range(max(1, steps // 100), steps + 1) if steps % w == 0)
    drawn = construct("times", component("times", chosen, "times"), denoiser.schedule)
    made = construct("objective", component("objective", objective, "objective"))
    return DenoisingLearner(denoiser, made, drawn, conditional, pairs=run.pairs)


def _fill(learner: DenoisingLearner, sampler: Importance, source: Batches) -> None:
    """Ten losses for each group of times, at a time drawn within it."""
    groups, history = sampler.losses.shape
    wanted = torch.arange(groups).repeat(history)
    with progress("filling the history", len(wanted), "losses") as advance, torch.no_grad():
        for index, part in enumerate(wanted.split(source.batch)):
            batch = source[index].split(len(part))[0]
            draw = batch.draw()
            within = torch.floor(draw.uniform() * sampler.width)
            t = 1.0 + part * sampler.width + within
            each = learner.losses_at(batch, Times(t, torch.ones_like(t)), draw).total
            sampler.observe(t, each)
            advance(min((index + 1) * source.batch, len(wanted)), "")


def _measure(learner: DenoisingLearner, source: Batches, objective: str, sampler: str, batches: int) -> GradientNoise:
    parameters = [p for p in learner.network.parameters() if p.requires_grad]
    total: list[Tensor] = [torch.zeros_like(p) for p in parameters]
    squared = 0.0
    with progress(f"{objective}, {sampler}", batches, "batches") as advance:
        for index in range(batches):
            loss = learner.losses(source[1000 + index]).loss
            gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
            for sum_, gradient in zip(total, gradients, strict=True):
                if gradient is not None:
                    sum_ += gradient
                    squared += float(gradient.double().square().sum())
            advance(index + 1, "")
    small, big = source.batch, source.batch * batches
    norm_small = squared / batches
    norm_big = sum(float((g / batches).double().square().sum()) for g in total)
    signal = (big * norm_big - small * norm_small) / (big - small)
    trace = (norm_small - norm_big) / (1 / small - 1 / big)
    return GradientNoise(objective, sampler, trace, signal, small, big)


def noise_table(found: Sequence[GradientNoise]) -> Table:
    """The noise scales as a table."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for head in ("objective", "times", "noise scale (images)", "tr Σ", "‖g‖²"):
        table.add_column(head, justify="left" if head in ("objective", "times") else "right")
    for one in found:
        scale = "not resolved" if one.scale is None else f"{one.scale:.4g}"
        table.add_row(one.objective, one.times, scale, f"{one.trace:.4g}", f"{one.signal:.4g}")
    return table


def write_noise(run: str | Path, found: Sequence[GradientNoise], out: str | Path | None = None) -> Path:
    """Write the noise scales to RUN/evaluations/gradient-noise/gradient-noise.json, or `out`."""
    opened = Run(run)
    place = Path(out) if out is not None else opened.path / "evaluations" / "gradient-noise" / "gradient-noise.json"
    result = {
        "format": "trilemma-gradient-noise/1",
        "subject": {"path": str(opened.path), "recipe": opened.recipe.name, "checkpoint_step": opened.step},
        "noise": [{**asdict(one), "scale": one.scale} for one in found],
        "environment": environment(torch.device("cpu")),
    }
    return write_json(place, result)
