"""A recipe's nouns as objects."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from jaxtyping import UInt8
from torch import nn

from trilemma.data import ImageSet, Outline, open_data, parse_reference, to_model
from trilemma.errors import InputError
from trilemma.process import Denoiser, Schedule
from trilemma.recipes import DenoisingSettings, Images, Recipe, component, construct
from trilemma.runs.estimate import check_network
from trilemma.training import Affine, ClassifierLearner, DenoisingLearner, Learner


def open_images(recipe: Recipe, split: str | None = None) -> ImageSet:
    """The recipe's data: its training split, or another."""
    data = recipe.data
    return open_data(data.name, split=split or data.split, root=data.root, size=data.size, channels=data.channels)


def completed(recipe: Recipe, data: ImageSet | Outline) -> Recipe:
    """The recipe with what its images turned out to be written in. Raises InputError if it says otherwise already, or
    asks for classes of unlabelled data."""
    channels, height, width = data.shape
    classes = None if data.classes is None else list(data.classes)
    found = Images(channels=channels, height=height, width=width, classes=classes)
    if recipe.images is not None and recipe.images != found:
        raise InputError(
            f"data {data.name!r} has images {found.shape} with {len(classes or [])} classes, but the recipe's images "
            f"are {recipe.images.shape} with {len(recipe.images.classes or [])}"
        )
    needs_classes = not isinstance(recipe.learner, DenoisingSettings) or recipe.learner.conditional
    if needs_classes and not classes:
        what = "learner.conditional true" if isinstance(recipe.learner, DenoisingSettings) else "a classifier"
        raise InputError(f"{what} needs labelled data, and {data.name!r} has no labels")
    return recipe.model_copy(update={"images": found})


def classes_of(recipe: Recipe) -> list[str]:
    """The classes the recipe's model is conditioned on; none for an unconditional one."""
    assert recipe.images is not None
    conditional = isinstance(recipe.learner, DenoisingSettings) and recipe.learner.conditional
    return list(recipe.images.classes or []) if conditional else []


def build_denoiser(recipe: Recipe) -> Denoiser:
    """The denoiser of a completed recipe, its weights as initialised. Raises InputError if the recipe trains no
    denoiser."""
    learner, images = recipe.learner, recipe.images
    if not isinstance(learner, DenoisingSettings) or images is None:
        raise InputError(f"recipe {recipe.name!r} trains a {learner.name}, which does not generate images")
    schedule = construct("schedule", recipe.schedule or {})
    network = build_network(recipe)
    parameterization = construct("parameterization", learner.parameterization)
    return Denoiser(network, schedule, parameterization, learner.variance, recipe.data.range)


def build_network(recipe: Recipe) -> nn.Module:
    """The network of a completed recipe, alone. Raises InputError for one that memory could not hold, unbuilt."""
    learner, images = recipe.learner, recipe.images
    assert images is not None
    if not isinstance(learner, DenoisingSettings):
        return build_classifier(recipe)
    if recipe.network.get("upsampler"):
        raise InputError("network.upsampler: nothing trains or samples one yet; in Python, `networks.UNet` takes it")
    outputs = images.channels * (2 if learner.variance == "learned_range" else 1)
    size = (images.height, images.width)
    return _built(recipe, images.channels, outputs, size, len(classes_of(recipe)))


def build_classifier(recipe: Recipe) -> nn.Module:
    """The classifier network of a completed recipe."""
    assert recipe.images is not None and recipe.images.classes is not None
    return _built(recipe, recipe.images.channels, len(recipe.images.classes))


def _built(recipe: Recipe, *dependencies: Any) -> nn.Module:
    make = partial(construct, "network", recipe.network, *dependencies)
    check_network(make)
    return make()


def build_learner(recipe: Recipe) -> Learner:
    """The learner of a completed recipe."""
    settings = recipe.learner
    if isinstance(settings, DenoisingSettings):
        denoiser = build_denoiser(recipe)
        times = construct("times", settings.times, denoiser.schedule)
        return DenoisingLearner(denoiser, construct("objective", settings.objective), times)
    augment = Affine(settings.rotate, settings.shift, settings.scale)
    return ClassifierLearner(build_classifier(recipe), augment, settings.label_smoothing)


def schedule_of(text: str) -> Schedule:
    """The schedule `NAME` or `NAME,key=value,…`, as recipes name it."""
    name, *rest = text.split(",")
    arguments = dict(part.partition("=")[::2] for part in rest)
    return construct("schedule", component("schedule", {"name": name, **arguments}, f"schedule {name!r}"))


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
