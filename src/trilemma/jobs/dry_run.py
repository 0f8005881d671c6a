"""What a recipe would do, without doing it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from trilemma.errors import InputError
from trilemma.exchange import why_not_exported
from trilemma.jobs.choosing import duration
from trilemma.jobs.estimating import Estimate, estimate
from trilemma.jobs.foresight import size, warnings
from trilemma.jobs.network_costs import anatomy, machine
from trilemma.jobs.wanted import wanted
from trilemma.machine.devices import memory_of, process_state
from trilemma.recipes import CompletedRecipe, Recipe, dump, load
from trilemma.runs.build import completed, open_images
from trilemma.runs.latents import codec_of
from trilemma.training import TrainingSettings


class NoMemoryError(InputError):
    """What a recipe trains does not fit the memory there is."""


def dry_run(
    recipe: str | Path | Mapping[str, Any],
    overrides: Sequence[str] = (),
    *,
    out: str | Path | None = None,
    **choice: Any,
) -> str:
    """The resolved recipe, what training it into `out` takes on this machine, measured (see `estimate`), and warnings,
    as text; or that this machine would refuse to train it, and why. `choice`: as `train` takes it, of images."""
    told: list[str] = []
    recipe, overrides = wanted(recipe, overrides, **choice, tell=told.append)
    chosen, note = load(recipe, overrides).fitted()
    data = open_images(chosen)
    chosen = completed(chosen, data)
    state = process_state()
    lines: list[tuple[str, str]] = [] if note is None else [("note", note)]
    try:
        check_memory(chosen, state.device, state.num_processes)
    except NoMemoryError as error:
        lines.append(("refused here", str(error)))
    else:
        found = estimate(chosen, data, place=None if out is None else Path(out))
        lines += _estimated(chosen, found)
        lines += [("source", words) for words in _source(chosen, load(recipe))]
        lines += [("warning", words) for words in warnings(found)]
        if reason := why_not_exported(chosen):
            lines.append(("not exported to diffusers", reason))
    try:
        codec_of(chosen)
    except InputError as error:  # its run has still to be trained
        lines.append(("refused here", str(error)))
    head = "".join(f"# {line}\n" for line in told)
    return head + dump(chosen) + "\n" + "".join(f"# {name}: {value}\n" for name, value in lines)


def _estimated(recipe: CompletedRecipe, found: Estimate) -> Iterator[tuple[str, str]]:
    yield "parameters", f"{found.parameters:,} ({found.parameters / 2**20:.2f} Mi)"
    passes = f"{found.passes:.1f} passes over {found.images:,}"
    yield "steps", f"{found.steps:,} of {found.batch} images: {passes}"
    yield "time", f"{duration(found.seconds)} in all, on {machine()}"
    part = "" if found.timed == found.batch else f" on {found.timed} of its {found.batch} images"
    yield "a step", f"{found.seconds_per_step:.3g} s, measured{part}"
    for name, seconds in found.once.items():
        yield name, f"{seconds:.3g} s, once"
    for name, occasion in found.occasions.items():
        yield name, f"{occasion.times:,}, {occasion.seconds:.3g} s each"
    if found.peak_memory is not None:
        before = f" ({size(found.held)} before it begins)" if found.held else ""
        yield "memory", f"{size(found.held + found.peak_memory)} at the peak{before}, of {size(found.memory)}"
    parts = ", ".join(f"{name} {size(count)}" for name, count in found.disk.items())
    yield "disk", f"{size(sum(found.disk.values()))} ({parts}), of {size(found.free)} that are free"
    for words in found.left_out:
        yield "not counted", words


def _source(recipe: CompletedRecipe, asked: Recipe) -> Iterator[str]:
    """The source's figures that apply, where the recipe `asked` for was changed: those of the network where that and
    what it learns are the source's, those of the training where the steps are, too."""
    source = recipe.source
    if source is None or any(getattr(recipe, key) != getattr(asked, key) for key in ("network", "learner", "schedule")):
        return
    figures = [f"{source.parameters_mi} Mi parameters"] if source.parameters_mi else []
    own, theirs = recipe.training, asked.training
    same = recipe.data == asked.data and (own.steps, own.batch) == (theirs.steps, theirs.batch)
    if same and source.training_hours:
        figures.append(f"{source.training_hours:g} hours on its machine")
    of = f" over {source.samples:,} samples" if source.samples else ""
    for name, value in (("FID", source.fid), ("inception score", source.inception_score)) if same else ():
        figures += [f"{name} {value:g}{of}"] if value else []
    yield f"{source.paper}: {', '.join(figures) or 'none of its figures applies'}"
    if not same:
        yield f"its other figures were for {theirs.steps:,} steps of {theirs.batch} images of {asked.data.name}"


def check_memory(recipe: CompletedRecipe, device: torch.device, processes: int) -> None:
    """Refuse to train a completed recipe's network where memory cannot hold its weights, what the optimiser keeps of
    each, the images of a step, and what the forward pass of one micro-batch keeps for the backward pass. Training takes
    some more, so what is refused could not be done.

    Raises:
        NoMemoryError: with the memory needed and that there is.
    """
    settings, found = recipe.training, anatomy(recipe)
    weights = found.trained * 4 * _copies(settings)
    image = found.activations / (2 if settings.precision == "bf16" else 1)
    images = settings.batch // processes * math.prod(recipe.space) * 4
    weights //= processes if settings.shard else 1
    needed = weights + images + image * (1 if settings.micro_batch == "auto" else _at_once(settings, processes))
    there = memory_of(device)
    if needed > there:
        raise NoMemoryError(
            f"training.batch {settings.batch}: takes {needed / 2**30:,.1f} GiB of memory ({weights / 2**30:,.1f} for "
            f"weights and optimiser, {images / 2**30:,.1f} for images, {image / 2**20:,.1f} MiB for each of those at "
            f"once), and there are {there / 2**30:,.1f} GiB: expected a smaller training.micro_batch, batch or network"
        )


def _copies(settings: TrainingSettings) -> int:
    """Of the weights: themselves, gradients, two moments, the average."""
    return 4 + bool(settings.ema)


def _at_once(settings: TrainingSettings, processes: int = 1) -> int:
    """Images of a forward pass in one process."""
    share = settings.batch // processes
    return min(settings.micro_batch, share) if isinstance(settings.micro_batch, int) else share
