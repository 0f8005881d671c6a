"""Checkpoints of other libraries as runs: they sample, resume and are evaluated like any other."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, cast

from trilemma.errors import InputError, unknown
from trilemma.exchange import autoencoders, diffusers, openai
from trilemma.exchange.drafts import Draft
from trilemma.exchange.weights import Known, correspondence, to_ours
from trilemma.machine.devices import accelerator
from trilemma.machine.progress import say
from trilemma.recipes import CompletedRecipe, Images, load
from trilemma.runs.build import build_learner, completed, open_images
from trilemma.runs.run import Run, prepare
from trilemma.training import Trainer

IMPORT_FORMATS = ("diffusers", *openai.ASSUMED)

NO_DATA = "none (import again with --data)"
"""The name of a run's data where none was given: whatever asks for it says so."""

STEPS = 100_000
"""Steps that an imported run trains on for, unless told otherwise."""


def import_run(
    path: str | Path,
    format: str,
    *,
    out: str | Path | None = None,
    name: str | None = None,
    size: tuple[int, int] | None = None,
    data: str | None = None,
    attention_order: str | None = None,
    low: tuple[int, int] | None = None,
    overrides: Sequence[str] = (),
) -> Run:
    """Turn a checkpoint of `format` (`IMPORT_FORMATS`) into the run directory `out` (default runs/NAME), at step 0: its
    weights are both the raw and the averaged ones, the optimiser is new.

    `name`: of the recipe, the file's unless given. `size` (height, width): of the images, where the checkpoint does not
    say. `data`: what it was or shall be trained on, needed to resume and as the default reference; its classes then
    name the model's. `attention_order`: `new` for guided-diffusion's `use_new_attention_order`, which no other format
    has; None is `legacy`. `low`: the size of an upsampler's low images, a quarter of the images' unless given.
    `overrides`: `a.b=VALUE` over the recipe that was read; with `learner.label_dropout` the last of its classes stands
    for none, for classifier-free guidance. A default of sampling without a counterpart is left out and
    said. Raises InputError for what cannot be read or has no counterpart here, before anything is written."""
    source = Path(path)
    draft = _read(source, format, size, attention_order, low)
    name = name or re.sub(r"[^\w.-]+", "-", source.resolve().name.removesuffix(".pt"))
    place = Path(out) if out is not None else Path("runs") / name
    if (place / "recipe.yaml").exists() or (place / "checkpoints").exists():
        raise InputError(f"{place} holds a run already: choose another --out")
    recipe = _recipe(draft, name, data, overrides)
    learner = build_learner(recipe)
    network = learner.averaged
    table = correspondence(cast(Known, network), draft.layout)
    network.load_state_dict(to_ours(table, draft.weights, network.state_dict(), draft.where))
    process = accelerator(recipe.training.precision)
    trainer = Trainer(learner, recipe.training, process, place, recipe.model_dump(mode="json"))
    if trainer.ema is not None:
        # The average is no random beginning that has to be forgotten: it goes on as if its warm-up were over.
        trainer.ema.updates = math.ceil(max(0.0, 10 * trainer.ema.decay - 1) / (1 - trainer.ema.decay))
    if process.is_main_process:
        prepare(place, recipe)
    trainer.save()
    if process.is_main_process:
        for note in draft.notes:
            say(f"note: {note}")
    return Run(place)


def _read(
    path: Path, format: str, size: tuple[int, int] | None, order: str | None, low: tuple[int, int] | None
) -> Draft:
    if format not in IMPORT_FORMATS:
        raise unknown("--format", format, IMPORT_FORMATS)
    if order not in (None, *openai.ORDERS):
        raise InputError(f"--attention-order {order!r}: expected {' or '.join(openai.ORDERS)}")
    if order is not None and format != "guided-diffusion":
        raise InputError(f"--attention-order {order!r}: only --format guided-diffusion has it, not {format}")
    if not path.exists():
        raise InputError(f"{path} does not exist")
    if format != "diffusers":
        return openai.read(path, size, format, order or "legacy", low)
    if low is not None:
        raise InputError("--low: an upsampler's; only --format guided-diffusion and improved-diffusion have it")
    return autoencoders.read(path, size) if autoencoders.holds_autoencoder(path) else diffusers.read(path, size)


def _recipe(draft: Draft, name: str, data: str | None, overrides: Sequence[str]) -> CompletedRecipe:
    """The whole recipe of the draft."""
    channels, height, width = draft.shape
    learner = dict(draft.values["learner"])
    if learner.setdefault("name", "denoising") == "denoising":
        learned = learner["variance"] == "learned_range"
        learner = {"objective": "hybrid" if learned else "simple", "conditional": draft.classes > 0, **learner}
    values: dict[str, Any] = {
        "name": name,
        **deepcopy(draft.values),
        "learner": learner,
        "data": {"name": data or NO_DATA},
        "training": {"steps": STEPS},
        "images": {"channels": channels, "height": height, "width": width},
    }
    if draft.classes:
        values["images"]["classes"] = [str(k) for k in range(draft.classes)]
    for given, other in (("heads", "head_channels"), ("head_channels", "heads")):
        if any(override.startswith(f"network.{given}=") for override in overrides):
            values["network"].pop(other, None)  # a network has the one or the other
    recipe = load(values, overrides)
    network = values["network"]["name"]
    if (recipe.network["name"], recipe.learner["name"]) != (network, learner["name"]) or recipe.images is None:
        raise InputError(f"--set: this run has network {network}, learner {learner['name']}, and the model's images")
    if recipe.learner.get("conditional") != learner.get("conditional"):
        raise InputError(
            f"--set learner.conditional={str(recipe.learner['conditional']).lower()}: expected "
            f"{str(draft.classes > 0).lower()}, for {draft.where} has {draft.classes or 'no'} classes"
        )
    classes, images = draft.classes, recipe.images
    if recipe.learner.get("label_dropout") and images.classes:
        classes -= 1  # the last stands for none
        images = images.model_copy(update={"classes": images.classes[:classes]})
        recipe = recipe.model_copy(update={"images": images})
    if data is None:
        return cast(CompletedRecipe, recipe)
    found = completed(recipe.model_copy(update={"images": None}), open_images(recipe))
    if found.images.shape != images.shape:
        raise InputError(
            f"--data {data}: its images are {found.images.shape}, the model's {images.shape} (channels, height, "
            f"width): {_remedy(found.images, images)}"
        )
    if classes and len(found.images.classes or []) != classes:
        raise InputError(f"--data {data}: it has {len(found.images.classes or [])} classes, the model {classes}")
    return found


def _remedy(found: Images, wanted: Images) -> str:
    """What to set so that the data's images become the model's."""
    settings = []
    if found.channels != wanted.channels:
        if wanted.channels not in (1, 3):
            return f"no data has {wanted.channels} channels (1 or 3)"
        settings.append(f"data.channels={wanted.channels}")
    if (found.height, found.width) != (wanted.height, wanted.width):
        square = wanted.height == wanted.width
        settings.append(f"data.size={wanted.height if square else f'[{wanted.height},{wanted.width}]'}")
    return "make them so with " + " ".join(f"--set {setting}" for setting in settings)
