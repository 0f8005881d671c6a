"""What a recipe would do, without doing it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from trilemma.errors import InputError
from trilemma.exchange import why_not_exported
from trilemma.jobs.network_costs import anatomy
from trilemma.jobs.wanted import wanted
from trilemma.machine.devices import memory_of, process_state
from trilemma.metrics import kept_for_backward
from trilemma.process import to_model
from trilemma.recipes import CompletedRecipe, Recipe, dump, load
from trilemma.runs.build import build_learner, completed, open_images, parameter_count
from trilemma.runs.latents import codec_of
from trilemma.samplers.estimate import bytes_of_image
from trilemma.training import Batch, Losses, Outcome, TrainingSettings


def dry_run(recipe: str | Path | Mapping[str, Any], overrides: Sequence[str] = (), **choice: Any) -> str:
    """The resolved recipe, the parameters, and the memory and steps it implies, as text; and whether this machine would
    refuse to train it, and why. Memory is measured on one image and multiplied: the tensors that one forward pass keeps
    for the backward one. `choice`: as `train` takes it, of images."""
    recipe, overrides = wanted(recipe, overrides, **choice)
    chosen, note = load(recipe, overrides).fitted()
    data = open_images(chosen)
    chosen = completed(chosen, data)
    learner = build_learner(chosen)
    images, labels = data.batch([0, len(data) - 1])
    x = to_model(images, chosen.data.range)
    batch = Batch(
        x if chosen.codec is None else torch.randn(len(x), *chosen.space),
        None if labels is None else torch.from_numpy(labels),
        [(chosen.training.seed, "train", 0, i) for i in range(2)],
    )
    measured = _Measured(learner.network)
    with torch.autocast("cpu", torch.bfloat16, enabled=chosen.training.precision == "bf16"):
        learner.step(batch, measured)
    lines = _implied(chosen, len(data), parameter_count(learner.network), measured.kept / len(batch))
    if learner.denoiser is not None:
        lines |= _implied_by_sampling(chosen, learner.denoiser.network)
    lines |= {"note": note} if note is not None else {}
    if reason := why_not_exported(chosen):
        lines["not exported to diffusers"] = reason
    state = process_state()
    try:
        check_memory(chosen, state.device, state.num_processes)
        codec_of(chosen)
    except InputError as error:
        lines["refused here"] = str(error)
    return dump(chosen) + "\n" + "".join(f"# {name}: {value}\n" for name, value in lines.items())


class _Measured:
    """The loop of a step that changes nothing: what its largest update keeps for its backward pass, in bytes."""

    step = 0

    def __init__(self, network: nn.Module):
        self.network, self.kept = network, 0

    def descend(self, losses: Losses, batch: Batch, optimizer: str = "optimizer") -> Outcome:
        found: list[Outcome] = []
        self.kept = max(self.kept, kept_for_backward(self.network, lambda: found.append(losses(batch))))
        return found[0]

    def unseen(self, losses: Losses, count: int) -> Iterator[Outcome]:
        return iter(())


def check_memory(recipe: CompletedRecipe, device: torch.device, processes: int) -> None:
    """Refuse to train a completed recipe's network where memory cannot hold its weights, what the optimiser keeps of
    each, the images of a step, and what the forward pass of one micro-batch keeps for the backward pass. Training takes
    some more, so what is refused could not be done.

    Raises:
        InputError: with the memory needed and that there is.
    """
    settings, found = recipe.training, anatomy(recipe)
    weights = found.trained * 4 * _copies(settings)
    image = found.activations / (2 if settings.precision == "bf16" else 1)
    images = settings.batch // processes * math.prod(recipe.space) * 4
    needed = weights + images + image * _at_once(settings, processes)
    there = memory_of(device)
    if needed > there:
        raise InputError(
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
    return min(settings.micro_batch or share, share)


def _implied(recipe: Recipe, images: int, parameters: int, activations: float) -> dict[str, str]:
    settings = recipe.training
    at_once = _at_once(settings)
    return {
        "parameters": f"{parameters:,} ({parameters / 2**20:.2f} Mi)",
        "steps": f"{settings.steps:,} of {settings.batch} images: "
        f"{settings.steps * settings.batch / images:.1f} epochs of {images:,}",
        "memory, weights and optimiser": f"{parameters * 4 * _copies(settings) / 2**20:,.0f} MiB",
        "memory, activations": f"about {activations * at_once / 2**20:,.0f} MiB in one process "
        f"({activations / 2**20:.2f} MiB an image, {at_once} at once)",
        "checkpoints": f"{settings.keep} kept, {parameters * 16 / 2**20:,.0f} MiB each",
    }


def _implied_by_sampling(recipe: CompletedRecipe, network: nn.Module) -> dict[str, str]:
    sampling = recipe.sampling
    image = bytes_of_image(
        network, recipe.space, conditional=bool(recipe.classes), precision=sampling.precision,
        device=torch.device("cpu"),
    )  # fmt: skip
    needed = f"{image * sampling.batch / 2**20:,.0f} MiB ({image / 2**20:.2f} MiB an image, {sampling.batch} at once)"
    return {"memory, sampling": f"at least {needed}, and the weights"}
