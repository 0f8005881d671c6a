"""The schema of a recipe: one of each noun, the data and the training settings."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from trilemma.errors import InputError, shown, unknown
from trilemma.metrics.computing import check_names
from trilemma.process import Variance
from trilemma.recipes.components import arguments_model, checked, component
from trilemma.samplers import SAMPLERS, check_spacing
from trilemma.training import TrainingSettings

RANGE_LIMIT = 1e6
"""What a pixel may be as a model sees it: its square, and sums of those over an image, are far from overflow."""


class Section(BaseModel):
    """A part of a recipe: unknown keys are refused, numbers are finite, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _ordered(bounds: tuple[float, float]) -> tuple[float, float]:
    if not -RANGE_LIMIT <= bounds[0] < bounds[1] <= RANGE_LIMIT:
        raise ValueError(f"expected two rising numbers, such as [-1, 1], up to ±{RANGE_LIMIT:g}")
    return bounds


class DataSettings(Section):
    """`name`: a source (`trilemma list data`) or a path. `range`: the numbers that black and white become."""

    name: str
    split: str = "train"
    validation_split: str | None = None
    root: str | None = None
    size: int | tuple[int, int] | None = None
    channels: Literal[1, 3] | None = None
    range: Annotated[tuple[float, float], AfterValidator(_ordered)] = (-1.0, 1.0)


class Images(Section):
    """What the images are: written into the run by `train`, so that a run needs its data no more."""

    channels: int = Field(ge=1)
    height: int = Field(ge=1)
    width: int = Field(ge=1)
    classes: list[str] | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.channels, self.height, self.width


class DenoisingSettings(Section):
    """Train a denoiser. `conditional`: on the data's classes."""

    name: Literal["denoising"] = "denoising"
    objective: dict[str, Any] = Field(default={"name": "simple"})
    times: dict[str, Any] = Field(default={"name": "uniform"})
    parameterization: dict[str, Any] = Field(default={"name": "epsilon"})
    variance: Variance = "fixed_large"
    conditional: bool = False


class ClassifierSettings(Section):
    """Train a classifier of clean images. `rotate`: degrees; `shift`, `scale`: fractions; all ± and random an image."""

    name: Literal["classifier"] = "classifier"
    rotate: float = Field(default=0.0, ge=0, le=180)
    shift: float = Field(default=0.0, ge=0, lt=1)
    scale: float = Field(default=0.0, ge=0, lt=1)
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)


LEARNERS: dict[str, type[Section]] = {"denoising": DenoisingSettings, "classifier": ClassifierSettings}


class SamplingSettings(Section):
    """Defaults of `sample` and `evaluate`. `name`: the sampler; `kernel`: its own arguments. `steps`: grid intervals,
    None for every step; `grid`: their spacing; `skip`: how many of the noisiest to leave out; `times`: a grid written
    out, instead of these. `clip`: hold x̂_0 in the data's range (static), in each image's own (dynamic), or not."""

    name: str = "ancestral"
    steps: int | None = Field(default=None, ge=1, le=1_000_000)
    grid: Annotated[str, AfterValidator(check_spacing)] = "even"
    skip: int = Field(default=0, ge=0)
    times: list[float] | None = None
    clip: Literal["static", "dynamic", "none"] = "static"
    weights: Literal["ema", "raw"] = "ema"
    batch: int = Field(default=64, ge=1)
    precision: Literal["fp32", "bf16"] = "fp32"
    kernel: dict[str, Any] = Field(default={})


class EvaluateSettings(Section):
    """Figures of samples during training, into its log. `every`: steps between them, 0 for never; `n`: images, seeds
    0 to n − 1, as the sampling section says. `features` and `metrics`: as `evaluate` takes them. `reference`:
    DATA[:SPLIT] or a file of statistics; the training data unless given."""

    every: int = Field(default=0, ge=0)
    n: int = Field(default=500, ge=2)
    features: str = "digits"
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
    """A whole recipe. Raises InputError (through `parse`) with the place in the recipe and the nearest valid choice."""

    name: str = Field(pattern=r"^[\w.-]+$")
    learner: DenoisingSettings | ClassifierSettings
    schedule: dict[str, Any] | None = None
    network: dict[str, Any]
    data: DataSettings
    training: TrainingSettings
    sampling: SamplingSettings = SamplingSettings()
    evaluate: EvaluateSettings = EvaluateSettings()
    images: Images | None = None
    source: Source | None = None


def parse(values: Any) -> Recipe:
    """A recipe from what its YAML says, every part checked, every default filled in."""
    values = section(values, "recipe")
    learner = section(values.get("learner") or {}, "learner")
    kind = learner.get("name", "denoising")
    if not isinstance(kind, str) or kind not in LEARNERS:
        raise unknown("learner.name", kind, LEARNERS)
    if kind == "denoising":
        for part, default in (("objective", "simple"), ("times", "uniform"), ("parameterization", "epsilon")):
            learner[part] = component(part, learner.get(part, default), f"learner.{part}")
        if values.get("schedule") is None:
            raise InputError("schedule is missing: a denoising learner needs one")
    values["learner"] = chosen = checked(LEARNERS[kind], learner, "learner")
    if isinstance(chosen, DenoisingSettings):
        _check_variance(chosen)
    for part in ("schedule", "network"):
        if values.get(part) is not None:
            values[part] = component(part, values[part], part)
    if values.get("sampling") is not None:
        values["sampling"] = parse_sampling(values["sampling"])
    if values.get("source") is not None:
        values["source"] = checked(Source, section(values["source"], "source"), "source")
    return checked(Recipe, values, "")


def _check_variance(learner: DenoisingSettings) -> None:
    """A learned variance needs a bound to learn from, and L_hybrid's bound nothing but a variance to teach."""
    learned, objective = learner.variance == "learned_range", learner.objective["name"]
    if learned and objective not in ("hybrid", "vlb"):
        raise InputError(
            f"learner.variance 'learned_range': objective {objective!r} does not train it (hybrid and vlb do)"
        )
    if objective == "hybrid" and not learned:
        raise InputError(
            f"learner.objective 'hybrid': its bound trains only the variance, and {learner.variance!r} is fixed "
            "(expected learner.variance learned_range)"
        )


def section(values: Any, path: str) -> dict[str, Any]:
    """A section's keys and values; a bare name stands for {name: …}. Raises InputError for anything else."""
    values = {"name": values} if isinstance(values, str) else values
    if not isinstance(values, dict):
        raise InputError(f"{path}: expected a mapping of keys and values, got {shown(repr(values))}")
    return {str(key): value for key, value in values.items()}


def parse_sampling(values: Any) -> SamplingSettings:
    """The sampling section: the settings all kernels share, and flat beside them the named kernel's own."""
    values = section(values, "sampling")
    shared = {key: values.pop(key) for key in list(values) if key in SamplingSettings.model_fields and key != "kernel"}
    own = {**section(values.pop("kernel", {}), "sampling.kernel"), **values}
    name = shared.get("name", "ancestral")
    for key in own if isinstance(name, str) and name in SAMPLERS else ():
        takers = [other for other, kind in SAMPLERS.items() if key in arguments_model(kind).model_fields]
        if takers and name not in takers:
            raise InputError(f"sampling: {name} takes no {key} ({', '.join(takers)} do)")
    kernel = component("sampler", {"name": name, **own}, "sampling")
    if shared.get("times") is not None and (shared.get("steps") is not None or shared.get("skip")):
        raise InputError("sampling.times is a whole grid: steps and skip have no say beside it")
    del kernel["name"], kernel["clip"]
    return checked(SamplingSettings, {**shared, "kernel": kernel}, "sampling")
