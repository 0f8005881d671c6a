"""The schema of a recipe: one of each noun, the data and the training settings."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field

from trilemma.data import Opening
from trilemma.errors import InputError, an
from trilemma.metrics.computing import check_names
from trilemma.parts import construct
from trilemma.recipes.components import Section, checked, component, section
from trilemma.recipes.requirements import Requirements, expect, required
from trilemma.recipes.sampling import SamplingSettings, parse_sampling
from trilemma.registry import Kind
from trilemma.training import LearnerSettings, TrainingSettings

IDENTITY = "identity"
"""The codec whose latents are the images themselves."""

RANGE_LIMIT = 1e6
"""What a pixel may be as a model sees it: its square, and sums of those over an image, are far from overflow."""


def _ordered(bounds: tuple[float, float]) -> tuple[float, float]:
    if not -RANGE_LIMIT <= bounds[0] < bounds[1] <= RANGE_LIMIT:
        raise ValueError(f"expected two rising numbers, such as [-1, 1], up to ±{RANGE_LIMIT:g}")
    return bounds


class DataSettings(Section):
    """`name`: a source (`trilemma list data`), a path or `hub:NAME`. `size`: a side, or [height, width], that images
    are cropped and resized to, by `resize`. `holdout`: the share of data without splits that is their `test`. `config`,
    `stream`: of `hub:NAME`. See `open_data`. `range`: the numbers that black and white become."""

    name: str
    split: str = "train"
    validation_split: str | None = None
    root: str | None = None
    size: int | tuple[int, int] | None = None
    channels: Literal[1, 3] | None = None
    resize: Literal["bicubic", "area"] = "bicubic"
    holdout: float = Field(0.0, ge=0, lt=1)
    config: str | None = None
    stream: bool = False
    range: Annotated[tuple[float, float], AfterValidator(_ordered)] = (-1.0, 1.0)

    @property
    def unseen(self) -> str | None:
        """The split that training sees nothing of: the one it is validated by, else `test`; None where it trains on
        these images too."""
        found = self.validation_split if self.validation_split not in (None, "all", self.split) else "test"
        return None if self.split in ("all", found) else found

    def opening(self, name: str | None = None, root: str | None = None) -> Opening:
        """How these images are opened, or others (`name`) so as to be like them: what says where these lie is not
        theirs."""
        own = name is None or os.path.realpath(name) == os.path.realpath(self.name)
        like = Opening(root, self.size, self.channels, self.resize)
        if not own:
            return like
        return replace(like, root=root or self.root, holdout=self.holdout, config=self.config, stream=self.stream)


class Images(Section):
    """What the images are: written into the run by `train`, so that a run needs its data no more."""

    channels: int = Field(ge=1)
    height: int = Field(ge=1)
    width: int = Field(ge=1)
    classes: list[str] | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.channels, self.height, self.width


class CodecSettings(Section):
    """What makes latents of the images, which are diffused in their place. `name`: the run of an autoencoder, or
    `identity`; by its `weights`. `scale`: what latents are multiplied by; unless given one over their standard
    deviation, measured on the training data (Rombach et al. 2022, appendix G). `train` writes what was measured, the
    latents' `shape`, and the `sha256` of the codec's weights, by which alone a codec and a run belong together."""

    name: str = Field(min_length=1)
    weights: Literal["ema", "raw"] = "ema"
    scale: float | None = Field(default=None, gt=0)
    shape: tuple[int, int, int] | None = None
    sha256: str | None = None

    @property
    def identity(self) -> bool:
        return self.name == IDENTITY


class EvaluateSettings(Section):
    """Figures of samples during training, into its log. `every`: steps between them, 0 for never; `n`: images, seeds
    0 to n − 1, as the sampling section says. `features` and `metrics`: as `evaluate` takes them, the
    best features at hand unless named. `reference`:
    DATA[:SPLIT] or a file of statistics; the training data unless given."""

    every: int = Field(default=0, ge=0)
    n: int = Field(default=500, ge=2)
    features: str | None = None
    metrics: Annotated[list[str], AfterValidator(check_names)] = Field(
        default=["frechet_distance", "precision", "recall"], min_length=1
    )
    reference: str | None = None


class Source(Section):
    """What a recipe's source printed of it, beside which ours is put. `paper`: document and table; `parameters_mi`: in
    2²⁰; `images_per_second`: sampled, and `training_hours`, on the source's machine; `fid` and `inception_score`: over
    `samples` images. One's own: a recipe that stands on it (`base:`), or is given another network, has none of it."""

    paper: str
    parameters_mi: float | None = Field(default=None, gt=0)
    images_per_second: float | None = Field(default=None, gt=0)
    training_hours: float | None = Field(default=None, gt=0)
    fid: float | None = Field(default=None, ge=0)
    inception_score: float | None = Field(default=None, ge=1)
    samples: int | None = Field(default=None, ge=1)


class Recipe(Section):
    """A whole recipe. `requires`: what it names that is not of this package, see `requirements`. Raises InputError
    (through `parse`) with the place in the recipe and the nearest valid choice."""

    name: str = Field(pattern=r"^[\w.-]+$")
    learner: dict[str, Any]
    schedule: dict[str, Any] | None = None
    network: dict[str, Any]
    data: DataSettings
    codec: CodecSettings | None = None
    training: TrainingSettings
    sampling: SamplingSettings = SamplingSettings()
    evaluate: EvaluateSettings = EvaluateSettings()
    images: Images | None = None
    source: Source | None = None
    requires: Requirements = Field(default_factory=dict)

    def fitted(self) -> tuple[Self, str | None]:
        """This as a run begins with it, and what to say of that; see `TrainingSettings.fitted`."""
        training, note = self.training.fitted()
        return self.model_copy(update={"training": training}), note

    @property
    def space(self) -> tuple[int, int, int]:
        """The (channels, height, width) of what is learnt from, where the recipe says it: the images', or their
        latents'."""
        if self.codec is not None and self.codec.shape is not None:
            return self.codec.shape
        assert self.images is not None
        return self.images.shape


class CompletedRecipe(Recipe):
    """A recipe that says what its images are: as a run holds it."""

    images: Images

    @property
    def classes(self) -> list[str]:
        """The classes the model is conditioned on, if its learner is `conditional`; none otherwise."""
        return list(self.images.classes or []) if self.learner.get("conditional") else []


def parse(values: Any) -> Recipe:
    """A recipe from what its YAML says, every part checked, every default filled in; a completed one if it has
    images."""
    values = section(values, "recipe")
    expect(values.pop("requires", {}))
    learner = section(values.get("learner") or {}, "learner")
    values["learner"] = component("learner", {"name": "denoising", **learner}, "learner")
    settings: LearnerSettings = construct("learner", values["learner"])
    if settings.timed and values.get("schedule") is None:
        raise InputError(f"schedule is missing: {an(values['learner']['name'])} learner needs one")
    if values.get("codec") is not None:
        values["codec"] = section(values["codec"], "codec")
        if not settings.encodes:
            raise InputError(f"codec: {an(values['learner']['name'])} learner learns from images, expected none")
        if values["learner"].get("low") is not None:
            raise InputError("codec: an upsampler's low images are images, and latents are diffused; expected none")
    noun: Kind
    for noun in ("schedule", "network"):
        if values.get(noun) is not None:
            values[noun] = component(noun, values[noun], noun)
    if values.get("sampling") is not None:
        values["sampling"] = parse_sampling(values["sampling"])
    if values.get("source") is not None:
        values["source"] = checked(Source, section(values["source"], "source"), "source")
    recipe = checked(Recipe if values.get("images") is None else CompletedRecipe, values, "")
    return recipe.model_copy(update={"requires": required(recipe.model_dump())})
