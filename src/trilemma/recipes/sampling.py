"""Sampling settings: one typed value, from the command line and the recipe to the record of what was made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Annotated, Any, Literal, get_args, get_origin

from annotated_types import Ge, Le
from pydantic import AfterValidator, BeforeValidator, InstanceOf, model_serializer
from typing_extensions import Doc

from trilemma.errors import InputError, shown, unknown
from trilemma.guidance import ClassifierFree, Guide, Interval
from trilemma.guidance.guides import check_interval
from trilemma.process import Denoiser
from trilemma.recipes.components import Section, checked, component, construct, section
from trilemma.registry import registry
from trilemma.samplers import Ancestral, Kernel, Sampler, Stage, Surrogate, check_spacing

RENAMED = {"name": "sampler", "grid": "spacing"}
"""What earlier recipes and records called two of the settings."""

FOLLOWED = ("times_sha256", "network_evaluations", "surrogate", "guide", "low")
"""What stands in a record beside the settings, because it followed from them or was given with them."""


def _numbers(value: Any) -> Any:
    """Numbers with commas between, as the command line has them."""
    try:
        return [float(part) for part in value.split(",")] if isinstance(value, str) else value
    except ValueError as error:
        raise ValueError("expected numbers with commas between") from error


class SamplingSettings(Section):
    """How images are sampled: `kernel`, the sampler with its own arguments, and what all samplers share. A recipe, the
    command line and a record have it flat: `sampler`, the kernel's name, its arguments, and the rest beside them."""

    kernel: InstanceOf[Kernel] = Ancestral()
    steps: Annotated[
        int | None, Ge(1), Le(1_000_000), Doc("Grid intervals, 1 to T; every step unless given here or in the recipe.")
    ] = None
    spacing: Annotated[
        str,
        AfterValidator(check_spacing),
        Doc("Of the grid: even, uniform, quadratic, log_snr, karras, or counts by section such as 10,10,15."),
    ] = "even"
    skip: Annotated[int, Ge(0), Doc("Leave so many of the grid's noisiest times out.")] = 0
    times: Annotated[
        list[float] | None,
        BeforeValidator(_numbers),
        Doc("A grid written out, noisiest first: 1000,600,200. Instead of steps, spacing and skip."),
    ] = None
    weights: Annotated[Literal["ema", "raw"], Doc("The averaged weights, or those that were trained.")] = "ema"
    batch: Annotated[int, Ge(1), Doc("Images at once in one process. Changes speed, not the images.")] = 64
    guidance: Annotated[
        float,
        Ge(0),
        Doc("Scale of guidance, 0 for none: classifier-free unless a classifier or a weaker run is named."),
    ] = 0.0
    guidance_interval: Annotated[
        Interval | None,
        BeforeValidator(_numbers),
        AfterValidator(lambda value: value if value is None else check_interval(value)),
        Doc("Guide at times t from, to alone: 10,80."),
    ] = None
    low_noise: Annotated[
        float,
        Ge(0),
        Doc("Of an upsampler: the time that its low images are noised to, up to what it was trained on."),
    ] = 0.0
    precision: Annotated[Literal["fp32", "bf16"], Doc("What the network is computed in.")] = "fp32"
    compile: Annotated[bool, Doc("Compile the network for the batch, once: for large sets of a large network.")] = False

    @property
    def sampler(self) -> str:
        """The name that the kernel is registered by."""
        return next(name for name, kind in registry("sampler").items() if kind is type(self.kernel))

    @model_serializer
    def flat(self) -> dict[str, Any]:
        """As recipes have it: what `parse_sampling` reads back to the same settings."""
        own = {field.name: getattr(self.kernel, field.name) for field in fields(self.kernel)}
        return {"sampler": self.sampler, **own, **{name: getattr(self, name) for name in SHARED}}

    def recorded(self) -> dict[str, Any]:
        """What of them images depend on."""
        idle = {"batch"} if self.guidance else {"batch", "guidance_interval"}
        return {key: value for key, value in self.flat().items() if key not in idle}

    def changed(self, **changes: Any) -> SamplingSettings:
        """These with those changes that are not None. Another sampler begins from its own defaults: every step, an even
        grid; the steps and the arguments that were there belong to the sampler that was. Raises InputError."""
        given = {key: value for key, value in changes.items() if value is not None}
        base = self.flat()
        if "times" in given:
            base |= {"steps": None, "skip": 0}
        elif given.keys() & {"steps", "spacing", "skip"}:
            base |= {"times": None}
        if given.get("sampler", self.sampler) != self.sampler:
            kept = {*SHARED, *(field.name for field in fields(Kernel))} - {"steps", "spacing", "skip", "times"}
            base = {key: value for key, value in base.items() if key in kept}
        return parse_sampling(base | given)

    def build(
        self,
        denoiser: Denoiser,
        shape: tuple[int, int, int],
        surrogate: Surrogate | None = None,
        guide: Callable[..., Guide] = ClassifierFree,
        low: Stage | None = None,
    ) -> Sampler:
        """The sampler of images of this shape (c, h, w), of an upsampler from those of `low`. `guide`: what makes the
        guide of a scale and an interval. Raises InputError as it does."""
        guides = [guide(self.guidance, interval=self.guidance_interval)] if self.guidance else []
        shared = {name: getattr(self, name) for name in SHARED if name not in ("weights", *GUIDANCE)}
        return Sampler(denoiser, self.kernel, shape=shape, surrogate=surrogate, guides=guides, low=low, **shared)


GUIDANCE = ("guidance", "guidance_interval")
"""The settings that a guide is made of."""

SHARED = tuple(name for name in SamplingSettings.model_fields if name != "kernel")
"""The settings that are not the kernel's."""


LISTS = tuple(
    name
    for name, field in SamplingSettings.model_fields.items()
    if {list, tuple} & {get_origin(part) for part in get_args(field.annotation)}
)
"""The settings whose value is itself several numbers."""


def said(settings: Mapping[str, Any]) -> str:
    """Settings in words, as in: ddim, 10 steps, eta 0.5."""
    words = []
    for name, value in settings.items():
        text = f"{value:g}" if isinstance(value, float) else str(value)
        word = name.replace("_", " ")
        words.append(text if name == "sampler" else f"{text} {word}" if name == "steps" else f"{word} {text}")
    return ", ".join(words)


def renamed(values: Mapping[str, Any]) -> dict[str, Any]:
    """A sampling section, or the like in a record, under today's names."""
    return {RENAMED.get(key, key): value for key, value in values.items()}


def parse_sampling(values: Any) -> SamplingSettings:
    """The settings from their flat form. Raises InputError with the key, and whose it is where it is another
    sampler's."""
    values = section(values, "sampling", "sampler")
    name = values.pop("sampler", "ancestral")
    if not isinstance(name, str):
        raise InputError(f"sampling: {shown(repr(name))} names no sampler: expected a name")
    known = {other: {field.name for field in fields(kind)} for other, kind in registry("sampler").items()}
    if name not in known:
        raise registry("sampler").unknown(name, "sampling.sampler")
    own = {key: value for key, value in values.items() if key not in SHARED}
    for key in own.keys() - known[name]:
        takers = [other for other, arguments in known.items() if key in arguments]
        if takers:
            raise InputError(f"sampling: {name} takes no {key} ({', '.join(takers)} do)")
        if key in RENAMED:
            raise InputError(f"sampling.{key}: did you mean {RENAMED[key]}?")
        raise unknown("key in sampling", key, {"sampler", *SHARED}.union(*known.values()))
    kernel = construct("sampler", component("sampler", {"name": name, **own}, "sampling"))
    if values.get("times") is not None and (values.get("steps") is not None or values.get("skip")):
        raise InputError("sampling.times is a whole grid: steps and skip have no say beside it")
    shared = {key: value for key, value in values.items() if key in SHARED}
    return checked(SamplingSettings, {**shared, "kernel": kernel}, "sampling")


def sampling_words(recorded: Mapping[str, Any], seeds: str | None, classes: str | None) -> list[str]:
    """The command line's words for what a record says: settings under `sampler`, seeds, and the class that was asked
    for. Every setting is written out, so that a run's own say nothing."""
    recorded, words = given(renamed(recorded)), []
    for key, value in recorded.items():
        if key in FOLLOWED or value is None:
            continue
        option = key.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{option}" if value else f"--no-{option}")
        else:
            text = ",".join(map(repr, value)) if isinstance(value, list | tuple) else str(value)
            words += [f"--{option}", text]
    begun = recorded.get("surrogate")
    words += ["--surrogate", str(begun["name"]), "--t-mid", str(begun["t_mid"])] if begun else []
    words += ["--handover", str(begun["handover"])] if begun and begun.get("handover") else []
    words += [f"--{guide['kind']}", str(guide["name"])] if (guide := recorded.get("guide")) else []
    words += ["--seeds", seeds] if seeds else []
    return [*words, "--class", classes] if classes not in (None, "balanced") else words


def given(recorded: Mapping[str, Any]) -> dict[str, Any]:
    """What may have been given, of a record: of a cascade, whose options act on every stage, what its stages have in
    common; of guidance and surrogate what the base has, of the noise on low images what the upsamplers have. What they
    differ in is each one's own."""
    stages: list[Mapping[str, Any]] = [recorded]
    while "sampler" in (low := stages[-1].get("low") or {}):
        stages.append(renamed(low["sampler"]))
    if not recorded.get("low"):
        return dict(recorded)
    finished = "sampler" not in low and bool(low)
    upsamplers, base = stages if finished else stages[:-1], {} if finished else stages[-1]
    whose = {"low_noise": upsamplers, **{key: [base] for key in (*GUIDANCE, "surrogate", "guide")}}
    found = {}
    for key in dict.fromkeys(key for stage in stages for key in stage):
        values = [stage.get(key) for stage in whose.get(key, stages) if key != "low_noise" or key in stage]
        if values and all(value == values[0] for value in values):
            found[key] = values[0]
    return found
