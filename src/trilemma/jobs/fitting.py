"""Training a denoiser of one's own, from Python; with a place for it, as a run like any other."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from trilemma.data import SOURCES, ImageSet, image_set, open_data, parse_reference
from trilemma.errors import InputError
from trilemma.jobs.training import check_unchanged
from trilemma.jobs.watching import batches_of, check_grids, take_up, watched
from trilemma.machine.devices import accelerator
from trilemma.machine.locks import locked
from trilemma.parts import GIVEN, construct, described
from trilemma.process import Denoiser
from trilemma.recipes import CompletedRecipe, Recipe, load
from trilemma.runs.build import completed
from trilemma.runs.run import prepare
from trilemma.training import Batches, DenoisingLearner, Pairs, Report, Trainer, check_pairs


def fit(
    denoiser: Denoiser,
    data: Any,
    objective: Any = "simple",
    *,
    steps: int,
    out: str | Path | None = None,
    times: Any = "uniform",
    conditional: bool | None = None,
    label_dropout: float = 0.0,
    low: int | tuple[int, int] | None = None,
    low_noise: float = 0.0,
    sampling: Any = "ancestral",
    **training: Any,
) -> Iterator[Report]:
    """Train a denoiser on images, giving a report after each of so many steps: the denoiser is trained in place. At the
    end, and where the iteration is left before, it holds the averaged weights (`ema`), in evaluation mode.

    `data`: DATA[:SPLIT] or a path, a data set, or images as an array or tensor (uint8 NHWC, or float NCHW in the
    denoiser's range), or a pair of images and classes. `objective` and `times`: objects, names, or mappings with `name`
    and arguments. `conditional`: on the data's classes; if they have classes and the network takes them, unless given.
    `label_dropout`: this part of the labels is replaced by the denoiser's `no_class`, for classifier-free guidance.
    `low`, `low_noise`: of an upsampler, as the learner `denoising` has them.
    `training`: settings of a recipe's training section, such as `batch` and `learning_rate`; `sampling`: that section.
    No grids of samples are drawn unless `grid_every` says so.

    `out`: a run directory. Called again it goes on from the newest checkpoint there, bit for bit. What has no name in a
    recipe, the network above all, is given again where the run is opened: `Run(out, network=…)`. Raises InputError for
    what cannot be trained, before anything is written; Ctrl-C and SIGTERM finish the step and write a checkpoint."""
    if not denoiser.codec.identity:
        raise InputError("fit: the denoiser diffuses latents, which a recipe's codec makes; expected `trilemma.train`")
    images, source = _images(data, denoiser.data_range)
    if conditional is None:
        conditional = images.classes is not None and denoiser.call.label is not None
    values = {
        "name": re.sub(r"[^\w.-]+", "-", Path(out).name) if out is not None else "fit",
        "learner": {
            "objective": described("objective", objective),
            "times": described("times", times),
            "parameterization": described("parameterization", denoiser.parameterization),
            "variance": denoiser.variance_name,
            "conditional": conditional,
            "label_dropout": label_dropout,
            "low": low,
            "low_noise": low_noise,
        },
        "schedule": described("schedule", denoiser.schedule),
        "network": described("network", denoiser.network),
        "data": {**source, "range": denoiser.data_range},
        "training": {"grid_every": 0, **training, "steps": steps},
        "sampling": sampling,
    }
    recipe, _ = completed(load(values), images).fitted()
    pairs = Pairs.of(recipe.learner["low"], recipe.learner["low_noise"])
    check_pairs(denoiser, pairs, images.shape[1:])
    learner = DenoisingLearner(
        denoiser,
        construct("objective", _part(recipe, "objective", objective)),
        construct("times", _part(recipe, "times", times), denoiser.schedule),
        conditional,
        label_dropout,
        pairs,
    )
    check_grids(learner, recipe, images)
    process = accelerator(recipe.training.precision)
    batches = batches_of(recipe, images, process)
    place = Path(out) if out is not None else None
    with ExitStack() as held:
        if place is not None and process.is_main_process:
            held.enter_context(locked(place))
        if place is not None and (place / "recipe.yaml").exists():
            check_unchanged(load(place / "recipe.yaml"), recipe, f"{place}, ")
        trainer = Trainer(learner, recipe.training, process, place, recipe.model_dump(mode="json"))
        if place is not None:
            if process.is_main_process:
                prepare(place, recipe)
            take_up(trainer)
        return _reports(trainer, batches, recipe, place, held.pop_all())


def _part(recipe: Recipe, key: str, given: Any) -> Any:
    """The object that was given, or what its name and arguments came to in the recipe."""
    return recipe.learner[key] if isinstance(given, str | dict) else given


def _reports(
    trainer: Trainer, batches: Batches, recipe: CompletedRecipe, place: Path | None, held: ExitStack
) -> Iterator[Report]:
    try:
        with held:
            yield from trainer.run(batches) if place is None else watched(trainer, batches, recipe, place, shown=False)
    finally:
        if trainer.ema is not None:
            trainer.ema.module.load_state_dict(trainer.ema.shadow)
        if trainer.updates.shards is not None:
            trainer.updates.shards.gather()
        trainer.network.eval()
    if trainer.stopped == signal.SIGINT:
        raise KeyboardInterrupt
    if trainer.stopped is not None:
        raise SystemExit(128 + trainer.stopped)


def _images(data: Any, low_high: tuple[float, float]) -> tuple[ImageSet, dict[str, Any]]:
    """The images, and what a recipe says of where they are from."""
    if isinstance(data, str | Path):
        name, split = parse_reference(str(data))
        return open_data(name, split=split), {"name": name, "split": split}
    images = image_set(data, GIVEN, low_high)
    if images.name not in SOURCES:
        return images, {"name": GIVEN}
    channels, *size = images.shape
    return images, {"name": images.name, "split": images.split, "size": size, "channels": channels}
