"""What watches a training: its log, its validation, figures and grids of samples, its progress."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from jaxtyping import Int64
from torch import Tensor

from trilemma.data import ImageSet, write_png
from trilemma.errors import InputError
from trilemma.evaluations.during_training import EvaluateEvery
from trilemma.machine.devices import process_state
from trilemma.machine.files import keeping
from trilemma.machine.progress import progress, say
from trilemma.process import Codec, Denoiser, image_grid, reduced, stream_seed, to_model, to_uint8
from trilemma.recipes import CompletedRecipe, Recipe
from trilemma.runs.build import open_images
from trilemma.runs.latents import Latents
from trilemma.runs.logs import Log, Window
from trilemma.runs.sample_sets import labels_for
from trilemma.samplers import Finished, Sampler
from trilemma.training import Batch, Batches, Learner, Pairs, Report, Trainer, checkpoint
from trilemma.training.batches import Source

GRID = range(40)
"""The seeds of a grid's images."""

STRIP = 4
"""Those of them whose way from noise is drawn as a strip."""


def batches_of(recipe: Recipe, data: ImageSet | Latents, process: Accelerator) -> Batches:
    """This process's share of the recipe's batches, of images or of latents."""
    settings = recipe.training
    return Batches(
        data,
        tensors_of(recipe, data),
        batch=settings.batch,
        seed=settings.seed,
        flip=settings.flip,
        rank=process.process_index,
        processes=process.num_processes,
    )


def tensors_of(recipe: Recipe, data: Source) -> Callable[[np.ndarray], Tensor]:
    """What makes the tensors that a learner is given of images in the recipe's range, or of latents."""
    return data.tensors if isinstance(data, Latents) else partial(to_model, range=recipe.data.range)


def take_up(trainer: Trainer, verify: bool = True) -> None:
    """Go on from the newest checkpoint, if there is one. Raises InputError where that is beyond the settings' steps."""
    if trainer.checkpoints is None or not checkpoint.steps(trainer.checkpoints):
        return
    trainer.resume(verify)
    steps = trainer.settings.steps
    if trainer.step > steps:
        raise InputError(f"training.steps {steps}: the run is at step {trainer.step} already")


def validation_of(recipe: Recipe, codec: Codec | None = None) -> Batch | None:
    """Fixed held-out images, or their latents, with fixed streams, if the recipe names a split for them."""
    if recipe.data.validation_split is None or not recipe.training.validate_every:
        return None
    data, seed = open_images(recipe, recipe.data.validation_split), recipe.training.seed
    count = min(recipe.training.validation_images, len(data))
    chosen = np.random.default_rng(stream_seed(seed, "validation")).permutation(len(data))[:count]
    images, labels = data.batch(chosen)
    keys: list[tuple[int | str, ...]] = [(seed, "validation", i) for i in range(count)]
    x = to_model(images, recipe.data.range)
    if codec is not None:
        with torch.no_grad():
            x = codec.joined(x.to(process_state().device)).cpu()
    return Batch(x, None if labels is None else torch.from_numpy(labels), keys)


def watched(
    trainer: Trainer,
    batches: Batches,
    recipe: CompletedRecipe,
    path: Path,
    validation: Batch | None = None,
    evaluation: EvaluateEvery | None = None,
    shown: bool = True,
    track: Sequence[str] = (),
) -> Iterator[Report]:
    """The loop's reports, looked at on their way: log (and what it is given to besides, `track`), validation, figures
    of samples, grids, progress if `shown`."""
    settings, main = recipe.training, trainer.accelerator.is_main_process
    window = Window(settings.batch, trainer.watching)
    bar = progress("training", settings.steps, "steps", start=trainer.step, shown=main and shown)
    fit = trainer.fitted(batches)
    if fit is not None and main:
        say(str(fit))
    logged = Log(path, trainer.step, main, track, recipe.model_dump(mode="json"))
    with keeping(lambda: trainer.safe), logged as log, bar as advance:
        if fit is not None:
            log.write({"step": trainer.step, "micro_batch": fit.images})
        for report in trainer.run(batches):
            window.add(report)
            last = report.step == settings.steps
            if report.step % settings.log_every == 0 or last or report.outcome is None:
                log.write(window.line(report, trainer.seconds))
            if validation is not None and (_due(report, settings.validate_every) or last):
                log.write({"step": report.step, **trainer.validate(validation)})
            if evaluation is not None and (_due(report, recipe.evaluate.every) or last):
                figures = evaluation(trainer)
                if figures:
                    log.write({"step": report.step, **figures})
            if _due(report, settings.grid_every) or (last and settings.grid_every):
                pictures = _pictures(trainer, recipe, path / "samples", batches.source)
                for name, file in pictures.items():
                    log.picture(name, file, report.step)
                if shown and pictures:
                    say(f"samples: {pictures['grid']}")
            advance(report.step, f"loss {window.smooth:.4f}")
            yield report


def _due(report: Report, every: int) -> bool:
    return bool(every) and report.step % every == 0


def _pictures(trainer: Trainer, recipe: CompletedRecipe, folder: Path, data: Source) -> dict[str, Path]:
    """A grid of samples from the same noise every time, and the way of the first of them there, a strip: where they
    lie. Of an upsampler, made from the low images of the first data. None where nothing is sampled, or by another
    process."""
    denoiser = trainer.learner.denoiser
    if denoiser is None:
        return {}
    with trainer.averaged():  # for which all processes are needed, if weights lie in parts
        if not trainer.accelerator.is_main_process:
            return {}
        sampler, labels = drawn(denoiser, recipe, data)
        images, strip = sampler.generate_with_strip(GRID, labels, rows=STRIP)
    pictures = {"grid": image_grid(images, 10), "strip": strip.picture()}
    return {name: write_png(folder / f"{name}-{trainer.step:08d}.png", image) for name, image in pictures.items()}


def check_grids(learner: Learner, recipe: CompletedRecipe, data: Source) -> None:
    """Raises InputError where the recipe's sampling section could not draw the grids that training is to draw."""
    if recipe.training.grid_every and learner.denoiser is not None:
        drawn(learner.denoiser, recipe, data)


def drawn(
    denoiser: Denoiser, recipe: CompletedRecipe, data: Source, seeds: range = GRID
) -> tuple[Sampler, Int64[np.ndarray, "n"] | None]:
    """What draws a grid, and the classes of its images."""
    labels, low = labels_for(seeds, recipe.classes, None), None
    if (pairs := Pairs.of(recipe.learner.get("low"))) is not None:
        low, labels = _lows(pairs, recipe, data, len(seeds))
    return recipe.sampling.build(denoiser, recipe.images.shape, low=low), labels


def _lows(
    pairs: Pairs, recipe: CompletedRecipe, data: Source, count: int
) -> tuple[Finished, Int64[np.ndarray, "n"] | None]:
    """The low images of the first `count` data, and the data's classes."""
    images, labels = data.batch([i % len(data) for i in range(count)])
    small = to_uint8(reduced(to_model(images), pairs.size))
    shape = (small.shape[3], *pairs.size)
    return Finished(lambda seeds, _: small[list(seeds)], shape, "data"), labels if recipe.classes else None
