"""diffusers' DDPM and DDIM schedulers: their settings as sections of a recipe, and a recipe's as theirs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field

from trilemma.errors import InputError
from trilemma.exchange.files import Config, One, Positive
from trilemma.recipes import CompletedRecipe, SamplingSettings, component
from trilemma.samplers import DYNAMIC_QUANTILE, SPACINGS

PredictionType = Literal["epsilon", "sample", "v_prediction"]
Spacing = Literal["leading", "linspace", "trailing"]


class SchedulerConfig(Config):
    """Those of DDPMScheduler's and DDIMScheduler's settings that the schedules and samplers here have as well."""

    class_name: Literal["DDPMScheduler", "DDIMScheduler"] = Field(default="DDPMScheduler", alias="_class_name")
    num_train_timesteps: Positive = 1000
    beta_start: float = 1e-4
    beta_end: float = 0.02
    beta_schedule: Literal["linear", "squaredcos_cap_v2"] = "linear"
    trained_betas: None = None
    # fixed_small_log is fixed_small, computed by way of its logarithm.
    variance_type: Literal["fixed_small", "fixed_small_log", "fixed_large", "learned_range"] = "fixed_small"
    clip_sample: bool = True
    clip_sample_range: One = 1
    prediction_type: PredictionType = "epsilon"
    thresholding: bool = False
    dynamic_thresholding_ratio: float = 0.995
    sample_max_value: float = 1.0
    steps_offset: Literal[0] = 0
    timestep_spacing: Spacing = "leading"
    set_alpha_to_one: Literal[True] = True
    rescale_betas_zero_snr: bool = False


PREDICTION_TYPES: dict[str, PredictionType] = {"epsilon": "epsilon", "x0": "sample", "v": "v_prediction"}
GRIDS: dict[str, Spacing] = {"uniform": "leading", "even": "linspace"}
SAMPLERS = {"DDPMScheduler": "ancestral", "DDIMScheduler": "ddim"}

UNCAPPED = 1e6
"""Their `sample_max_value`, which caps the quantile that dynamic thresholding scales back from, where it caps none: x̂_0
does not come near it. Ours has no cap; theirs is 1 unless set, which leaves plain clipping."""

PIPELINE_STEPS = 1000
"""The steps that DDPMPipeline takes unless told otherwise, whatever the schedule's."""


def sections(config: SchedulerConfig, where: str) -> dict[str, Any]:
    """The sections of a recipe that a scheduler says."""
    if config.beta_schedule == "linear":
        if config.beta_start > config.beta_end:
            raise InputError(f"{where}: beta_start {config.beta_start}: expected at most beta_end, {config.beta_end}")
        schedule: dict[str, Any] = {"name": "linear", "beta_start": config.beta_start, "beta_end": config.beta_end}
    else:
        schedule = {"name": "cosine"}
    schedule["steps"] = config.num_train_timesteps
    schedule["terminal_snr"] = 0.0 if config.rescale_betas_zero_snr else None
    return {
        "learner": {
            "parameterization": next(k for k, v in PREDICTION_TYPES.items() if v == config.prediction_type),
            "variance": config.variance_type.removesuffix("_log"),
        },
        "schedule": schedule,
        "sampling": {
            "sampler": SAMPLERS[config.class_name],
            "clip": _clip(config, where),
            "spacing": next((k for k, v in GRIDS.items() if v == config.timestep_spacing), "even"),
        },
    }


def _clip(config: SchedulerConfig, where: str) -> str:
    """How x̂_0 is held in range; with `thresholding` theirs is cut at its quantile, between 1 and sample_max_value."""
    if not config.thresholding:
        return "static" if config.clip_sample else "none"
    if config.sample_max_value == 1:
        return "static"
    if not config.sample_max_value >= UNCAPPED:
        raise InputError(
            f"{where}: sample_max_value {config.sample_max_value}: supported with thresholding are 1, which is static "
            f"clipping, and {UNCAPPED:.0f} or more, which is no cap"
        )
    if config.dynamic_thresholding_ratio != DYNAMIC_QUANTILE:
        raise InputError(
            f"{where}: dynamic_thresholding_ratio {config.dynamic_thresholding_ratio}: supported is {DYNAMIC_QUANTILE}"
        )
    return "dynamic"


def left_out(config: SchedulerConfig) -> tuple[str, ...]:
    """The defaults of sampling without a counterpart here, a line each."""
    if config.timestep_spacing in GRIDS.values():
        return ()
    return (
        f"timestep_spacing {config.timestep_spacing!r} has no counterpart: sampling.spacing is 'even', which is the "
        f"same for all {config.num_train_timesteps} steps and not for fewer",
    )


def without(key: str, value: Any, *supported: Any) -> InputError:
    return InputError(f"{key} {value!r} has no counterpart in diffusers (supported: {', '.join(map(repr, supported))})")


def lacking_scheduler(recipe: CompletedRecipe) -> Iterator[InputError]:
    """What of a denoising recipe's schedule and parameterisation their schedulers have no counterpart of."""
    learner, schedule = recipe.learner, dict(recipe.schedule or {})
    kind, name = schedule.get("name"), learner["parameterization"]["name"]
    if name not in PREDICTION_TYPES:
        yield without("learner.parameterization.name", name, *PREDICTION_TYPES)
    if learner["parameterization"].get("skip"):
        yield without("learner.parameterization.skip", True, False)
    if recipe.data.range != (-1.0, 1.0):
        yield without("data.range", list(recipe.data.range), [-1.0, 1.0])
    if kind not in ("linear", "cosine"):
        yield without("schedule.name", kind, "linear", "cosine")
        return
    if schedule["network_steps"] not in (None, schedule["steps"]):
        yield without("schedule.network_steps", schedule["network_steps"], None)
    if schedule["terminal_snr"] not in (None, 0.0):
        yield without("schedule.terminal_snr", schedule["terminal_snr"], None, 0.0)
    usual = component("schedule", kind, "schedule")
    for key in ("s", "max_beta"):
        if schedule.get(key) != usual.get(key):
            yield without(f"schedule.{key}", schedule[key], usual[key])


def scheduler_config(recipe: CompletedRecipe) -> SchedulerConfig:
    """A run's schedule, parameterisation and defaults of sampling as the settings of the scheduler that samples so, of
    DDPMScheduler where none does; `lacking_scheduler` finds nothing in the recipe."""
    learner, schedule = recipe.learner, dict(recipe.schedule or {})
    betas = {key: schedule[key] for key in ("beta_start", "beta_end") if key in schedule}
    # DDIMScheduler takes a network's whole output for ε̂, x̂_0 or v̂: it knows no second half for the variance.
    by_ddim = recipe.sampling.sampler == "ddim" and learner["variance"] != "learned_range"
    return SchedulerConfig(
        _class_name="DDIMScheduler" if by_ddim else "DDPMScheduler",
        num_train_timesteps=schedule["steps"],
        beta_schedule="linear" if schedule["name"] == "linear" else "squaredcos_cap_v2",
        variance_type=learner["variance"],
        prediction_type=PREDICTION_TYPES[learner["parameterization"]["name"]],
        clip_sample=recipe.sampling.kernel.clip == "static",
        thresholding=recipe.sampling.kernel.clip == "dynamic",
        dynamic_thresholding_ratio=DYNAMIC_QUANTILE,
        sample_max_value=UNCAPPED if recipe.sampling.kernel.clip == "dynamic" else 1.0,
        timestep_spacing=GRIDS.get(recipe.sampling.spacing, "leading"),
        rescale_betas_zero_snr=schedule["terminal_snr"] == 0.0,
        **betas,
    )


def not_carried(recipe: CompletedRecipe, scheduler: SchedulerConfig) -> list[str]:
    """What of a run's defaults of sampling its folder does not carry, and how their pipeline is told of it."""
    sampling, steps = recipe.sampling, (recipe.schedule or {})["steps"]
    said, pipeline, usual = [], "DDPMPipeline", PIPELINE_STEPS
    if recipe.classes:
        pipeline, usual = "the pipeline", steps
        said.append(
            "DDPMPipeline gives no class: DiffusionPipeline.from_pretrained(FOLDER, custom_pipeline='pipeline', "
            "trust_remote_code=True) runs the folder's pipeline.py, which takes class_labels"
        )
    if recipe.learner.get("label_dropout"):
        said.append(f"class_labels {len(recipe.classes)} stands for no class, as learner.label_dropout has trained it")
    if sampling.sampler != SAMPLERS[scheduler.class_name]:
        said.append(f"sampling.sampler {sampling.sampler!r} is not in the folder, which has {scheduler.class_name}")
    elif sampling.sampler == "ddim" and sampling.kernel.clip != "none" and not recipe.classes:
        said.append(
            f"sampling.clip {sampling.kernel.clip!r}: for the noise to follow the clipped image, as here, "
            "DDIMScheduler.step is given use_clipped_model_output=True"
        )
    chosen = {key: value for key, value in sampling.kernel.particulars().items() if key != "clip"}
    for key in ("skip", "times", "precision", "guidance"):
        if (value := getattr(sampling, key)) != SamplingSettings.model_fields[key].default:
            chosen[key] = value
    if sampling.spacing not in GRIDS:
        chosen["spacing"] = sampling.spacing
    said += [f"sampling.{key} {value!r} is not in the folder" for key, value in chosen.items()]
    if sampling.times is not None or (sampling.steps is None and sampling.spacing not in SPACINGS):
        return said
    count = sampling.steps or steps
    if count != usual:
        said.append(
            f"sampling.steps {sampling.steps} is not in the folder: call {pipeline} with num_inference_steps={count} "
            f"(its own default is {usual})"
        )
    # Their leading spacing rounds T/K down before it counts, and DDIMScheduler's steps are so long whatever the
    # spacing; linspace's single time is the table's first, here the last.
    along = scheduler.class_name == "DDPMScheduler" and count > 1
    same = steps % count == 0 if sampling.spacing == "uniform" else along
    if sampling.spacing in GRIDS and count != steps and not same:
        said.append(
            f"sampling.spacing {sampling.spacing!r}: {scheduler.class_name} has other times for {count} of "
            f"{steps} steps"
        )
    return said
