"""A recipe's nouns as objects."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import UInt8
from torch import nn

from trilemma.data import ImageSet, Outline, open_data, parse_reference
from trilemma.errors import InputError, an, unknown
from trilemma.parts import GIVEN, construct, make
from trilemma.process import Codec, Denoiser, Schedule, to_model
from trilemma.recipes import CompletedRecipe, Images, Recipe
from trilemma.runs.companions import check_images
from trilemma.runs.estimate import check_network
from trilemma.runs.latents import settled
from trilemma.training import Given, Learner, LearnerSettings


def open_images(recipe: Recipe, split: str | None = None) -> ImageSet:
    """The recipe's data: its training split, or another."""
    data = recipe.data
    if data.name == GIVEN:
        raise InputError(f"data {GIVEN!r}: the images were given in Python; name others, as DATA[:SPLIT]")
    return data.opening()(data.name, split or data.split)


def completed(recipe: Recipe, data: ImageSet | Outline) -> CompletedRecipe:
    """The recipe with what its images, and their latents, turned out to be written in. Raises InputError if it says
    otherwise already, or asks for classes of unlabelled data."""
    channels, height, width = data.shape
    classes = None if data.classes is None else list(data.classes)
    found = Images(channels=channels, height=height, width=width, classes=classes)
    if recipe.images is not None and recipe.images != found:
        raise InputError(
            f"data {data.name!r} has images {found.shape} with {len(classes or [])} classes, but the recipe's images "
            f"are {recipe.images.shape} with {len(recipe.images.classes or [])}"
        )
    conditional = recipe.learner.get("conditional", False)
    if (conditional or settings_of(recipe).labelled) and not classes:
        what = "learner.conditional true" if conditional else an(recipe.learner["name"])
        raise InputError(f"{what} needs labelled data, and {data.name!r} has no labels")
    return settled(CompletedRecipe(**{**dict(recipe), "images": found}))


def with_parts(recipe: CompletedRecipe, own: Mapping[str, Any]) -> CompletedRecipe:
    """The recipe with the parts in it that it says were given as objects: to be built from, not to be written. Raises
    InputError for one that is missing, or that the recipe has a name for."""
    places = {"network": recipe.network, "schedule": recipe.schedule, **recipe.learner}
    wanted = {key: value for key, value in places.items() if isinstance(value, dict) and value["name"] == GIVEN}
    for key, value in wanted.items():
        if key not in own:
            raise InputError(f"{key} {GIVEN!r}: {value['of']} was given in Python; open the run there: Run(…, {key}=…)")
    for key in own:
        if key not in wanted:
            raise unknown("part to be given again:", key, wanted)
    sections = {key: part for key, part in own.items() if key not in recipe.learner}
    learner = recipe.learner | {key: part for key, part in own.items() if key in recipe.learner}
    return recipe.model_copy(update={**sections, "learner": learner})


def settings_of(recipe: Recipe) -> LearnerSettings:
    """The learner section at work."""
    return construct("learner", recipe.learner)


def _given(recipe: CompletedRecipe, codec: Codec | None = None) -> Given:
    """What the recipe's other sections give its learner."""
    return Given(
        recipe.space,
        tuple(recipe.images.classes or ()),
        recipe.data.range,
        partial(_schedule, recipe),
        partial(make, "network", recipe.network, f"{recipe.learner['name']} learner"),
        partial(_classifier, recipe),
        codec,
    )


def _schedule(recipe: Recipe, learned: bool = False) -> Schedule:
    """The recipe's schedule. Raises InputError for a learned one where it is to be `learned` by nobody."""
    schedule: Schedule = construct("schedule", recipe.schedule)
    if schedule.learned and not learned:
        raise InputError(
            f"schedule {schedule!r} is learned, and a {recipe.learner['name']} learner trains none: expected a fixed "
            "one, or learner denoising with objective vdm"
        )
    return schedule


def _classifier(recipe: CompletedRecipe, path: str) -> nn.Module:
    """The classifier that the run at `path` has trained, of images as the recipe's are. Raises InputError for another
    run."""
    from trilemma.runs.run import Run  # which is built by what is here

    opened = Run(path)
    classifier = opened.classifier("ema" if opened.recipe.training.ema else "raw")
    check_images(f"classifier {path}", opened.recipe, recipe)
    return classifier


def build_network(recipe: CompletedRecipe) -> nn.Module:
    """The network of a recipe, alone, its weights as initialised. Raises InputError for one that memory could not hold,
    unbuilt."""
    build = partial(settings_of(recipe).network, _given(recipe))
    check_network(build)
    return build()


def build_learner(recipe: CompletedRecipe, codec: Codec | None = None) -> Learner:
    """The learner of a recipe; `codec`: its codec, without which a model of latents is learnt and not sampled."""
    return settings_of(recipe).learner(build_network(recipe), _given(recipe, codec))


def denoiser_of(learner: Learner, recipe: Recipe) -> Denoiser:
    """The denoiser that a recipe's learner gives. Raises InputError if it gives none."""
    if learner.denoiser is None:
        raise InputError(f"recipe {recipe.name!r} trains {an(recipe.learner['name'])}, which does not generate images")
    return learner.denoiser


def example(spec: str) -> tuple[UInt8[np.ndarray, "h w c"], float]:
    """The middle image of DATA[:SPLIT], and E[x²] of its pixels in [−1, 1]."""
    name, split = parse_reference(spec)
    data = open_data(name, split=split)
    return data.batch([len(data) // 2])[0][0], second_moment(data, (-1.0, 1.0))


def second_moment(data: ImageSet, low_high: tuple[float, float]) -> float:
    """E[x²] of the data's pixels, over at most 1 000 images spread over it."""
    indices = np.unique(np.linspace(0, len(data) - 1, min(len(data), 1000)).astype(int))
    return float(to_model(data.batch(indices)[0], low_high).double().square().mean())


def parameter_count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
