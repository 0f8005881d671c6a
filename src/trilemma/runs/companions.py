"""What a run is sampled with besides itself: a surrogate to begin from, a classifier or a weaker run to guide it. Each
is named in the call, never in the recipe."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from trilemma.errors import InputError
from trilemma.guidance import Autoguidance, ClassifierFree, ClassifierGuidance, Guide
from trilemma.machine.files import sha256
from trilemma.recipes import CompletedRecipe, Recipe

if TYPE_CHECKING:
    from trilemma.runs.run import Run

Handover = Literal["mean", "sample"]


@dataclass(frozen=True)
class Companions:
    """The names of what a run is sampled with. `surrogate` and `t_mid`: begin there from these images, see
    `surrogates.open_source`; `handover`: how a run hands them over, see `surrogates.begin`. `classifier`: the run of a
    classifier of noised images, `guide`: a weaker run of the same images, either as RUN or RUN@STEP; one of them at
    most. A run that is named @STEP is the run's own checkpoint of that step."""

    surrogate: str | Path | None = None
    t_mid: float | None = None
    handover: Handover | None = None
    classifier: str | Path | None = None
    guide: str | Path | None = None

    def __post_init__(self) -> None:
        if self.classifier is not None and self.guide is not None:
            raise InputError(f"classifier {str(self.classifier)!r} and guide {str(self.guide)!r}: expected one of them")
        if self.surrogate is None and self.t_mid is not None:
            raise InputError("t_mid: where a surrogate's images are taken up, and no surrogate is named")
        if self.surrogate is None and self.handover is not None:
            raise InputError("handover: how a surrogate hands its images over, and no surrogate is named")

    @property
    def guided_by(self) -> str:
        """What guides, in words; "" if nothing is named."""
        named = {"classifier": self.classifier, "guide": self.guide}
        return next((f"{kind} {name}" for kind, name in named.items() if name is not None), "")


@dataclass(frozen=True)
class OpenedGuide:
    """What makes the guide of a scale and an interval, the classes that it guides towards if it knows any, and what
    records say of it."""

    make: Callable[..., Guide] = ClassifierFree
    classes: tuple[str, ...] = ()
    record: dict[str, Any] | None = None


def split(settings: Mapping[str, Any]) -> tuple[dict[str, Any], Companions]:
    """Sampling settings and companions, given together by name."""
    named = {field.name: settings[field.name] for field in fields(Companions) if field.name in settings}
    return {key: value for key, value in settings.items() if key not in named}, Companions(**named)


def open_guide(run: Run, companions: Companions) -> OpenedGuide:
    """What guides a run. Raises InputError where its images, classes or pixels' range are not the run's, saying what
    does not match."""
    from trilemma.runs.run import Run  # it is sampled with what is opened here

    if not companions.guided_by:
        return OpenedGuide()
    kind, name = ("guide", companions.guide) if companions.classifier is None else ("classifier", companions.classifier)
    if not str(name):
        raise InputError(f"{kind} {name}: it names no run, expected RUN or RUN@STEP")
    path, step = parse(str(name))
    opened = Run(path or run.path, step)
    weights = opened.recipe.sampling.weights
    what, short = f"{kind} {name}", opened.path.name + ("" if step is None else f"@{step}")
    check_images(what, opened.recipe, run.recipe)
    check_classes(what, opened.recipe.images.classes or (), run.recipe.images.classes or ())
    digest = sha256(opened.weights_file(weights))
    record = {"kind": kind, "name": str(name), "checkpoint_step": opened.step, "weights_sha256": digest}
    if kind == "classifier":
        make: Callable[..., Guide] = partial(ClassifierGuidance, posterior=opened.posterior(weights), name=short)
        return OpenedGuide(make, tuple(opened.recipe.images.classes or ()), record)
    if opened.pairs is not None:
        raise InputError(f"{what}: it is an upsampler, and {run.path} has no low images; expected a weaker run")
    if opened.classes and not run.classes:
        raise InputError(f"{what}: it is conditioned on classes, and {run.path} on none")
    return OpenedGuide(partial(Autoguidance, weaker=opened.denoiser(weights), name=short), (), record)


def parse(name: str) -> tuple[str, int | None]:
    """RUN or RUN@STEP, in two."""
    path, at, step = name.rpartition("@")
    if at and step.isascii() and step.isdigit() and not Path(name).exists():
        return path, int(step)
    return name, None


def check_images(what: str, its: CompletedRecipe, runs: CompletedRecipe) -> None:
    """Raises InputError where their images are of other shapes or ranges."""
    if its.images.shape != runs.images.shape:
        raise InputError(
            f"{what}: its images are {its.images.shape} (channels, height, width), the run's {runs.images.shape}"
        )
    check_codecs(what, its, runs)
    if its.data.range != runs.data.range:
        raise InputError(f"{what}: its pixels lie in {list(its.data.range)}, the run's in {list(runs.data.range)}")


def check_codecs(what: str, its: Recipe, runs: Recipe) -> None:
    """Raises InputError where both do not learn from the same latents: made by the same weights, wherever they lie, at
    the same scale."""

    def known(recipe: Recipe) -> tuple[object, ...]:
        codec = recipe.codec
        return () if codec is None else (codec.sha256 or codec.name, codec.weights, codec.scale)

    def said(recipe: Recipe) -> str:
        codec = recipe.codec
        return "none" if codec is None else f"{codec.name} ({str(codec.sha256)[:12]}…, scale {codec.scale:g})"

    if known(its) != known(runs):
        raise InputError(f"{what}: its codec is {said(its)}, the run's {said(runs)}")


def check_classes(what: str, its: Sequence[str], runs: Sequence[str]) -> None:
    """Raises InputError where both know classes, and others."""
    if its and runs and list(its) != list(runs):
        raise InputError(f"{what}: its {len(its)} classes are {_few(its)}, the run's {len(runs)} are {_few(runs)}")


def _few(classes: Sequence[str]) -> str:
    return ", ".join(classes[:4]) + (", …" if len(classes) > 4 else "")
