"""From images to a recipe: what is chosen for them on this machine, and why."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from trilemma.data import DataReport, available_splits, check, outline
from trilemma.errors import InputError
from trilemma.jobs.network_costs import machine
from trilemma.jobs.sizes import SIDES, by, nearest_side, patch_for, size_for
from trilemma.machine.devices import faster_in_bf16, process_state
from trilemma.recipes import Recipe, load, put, values_of
from trilemma.runs.names import run_name


@dataclass(frozen=True)
class Tier:
    """What a kind of machine is given: recipes NAME-SIDE for these `sides`, the last of them the longest shorter side
    that is trained unasked; and the `seconds` that training takes unasked (None: as long as the recipe's steps)."""

    name: str
    where: str
    sides: tuple[int, ...]
    seconds: float | None


CPU = Tier("small", "CPU cores", SIDES[:4], 20 * 60.0)
GPU = Tier("images", "a GPU", SIDES, None)

PASSES = 1000
"""Over the training images, beyond which a network sooner copies them than learns from them. A rule of thumb: copies
begin where images are few for the parameters and passes are many (Gu et al. 2023; Somepalli et al. 2023), which
`memorisation` measures."""

FEWEST = 500
"""Steps below which there is nothing to look at, however few the images."""

HELD_OUT = 5000
"""Held-out images that are enough to be measured against."""

ENOUGH = 5
"""Images below which none are held out."""


@dataclass(frozen=True)
class Choice:
    """A recipe's values for images, without defaults; and what was chosen, each with its reason."""

    values: dict[str, Any]
    reasons: tuple[tuple[str, str], ...]

    @property
    def recipe(self) -> Recipe:
        return load(self.values)

    def text(self) -> str:
        """The recipe as YAML to edit, the reasons at its head."""
        name = self.values["name"]
        told = [f"{name}, as chosen for these images and this machine.", "", f"  trilemma train {name}.yaml", ""]
        told += [f"{what}: {why}" for what, why in self.reasons]
        return "".join(f"# {line}".rstrip() + "\n" for line in told) + as_yaml(self.values)


def as_yaml(values: Mapping[str, Any]) -> str:
    """A recipe's values as a person writes them."""
    return yaml.safe_dump(dict(values), sort_keys=False, default_flow_style=None, width=120, allow_unicode=True)


def choose(
    data: str,
    *,
    base: str | None = None,
    size: int | tuple[int, int] | None = None,
    time: float | None = None,
    steps: int | None = None,
    overrides: Sequence[str] = (),
    pace: Callable[[Recipe], float] | None = None,
) -> Choice:
    """A recipe for the images of a folder, zip, .npz, tar or the hub.

    Args:
        base: a packaged recipe or a YAML file to stand on; by the size and this machine unless given.
        size: side, or (height, width), of the images; theirs unless given, where that is one and not too large.
        time: seconds that training may take; steps: how many, instead.
        overrides: `a.b=VALUE`, put over what is chosen, and heeded in choosing.
        pace: seconds a step of a recipe; measured unless given.

    Raises:
        InputError: for no images, damaged ones, and for a recipe that does not go with them.
    """
    splits = available_splits(data)
    unseen = next((split for split in ("test", "val", "valid", "validation") if split in splits), None)
    found = check(data, split="train" if unseen else "all")
    if found.damaged:
        file, reason = found.damaged[0]
        raise InputError(
            f"{data}: {len(found.damaged)} of {len(found.damaged) + found.count} files cannot be read, such as {file} "
            f"({reason}); remove or replace them (trilemma data check {data} lists them)"
        )
    chosen = _Choosing(data, found, CPU if process_state().device.type == "cpu" else GPU)
    chosen.images(size, unseen)
    chosen.network(base)
    chosen.classes()
    chosen.batch_and_precision()
    for override in overrides:
        put(chosen.values, override)
    chosen.length(time, steps or _steps_in(overrides, chosen.values), pace)
    for override in overrides:
        put(chosen.values, override)
    return Choice(chosen.values, tuple(chosen.reasons))


def _steps_in(overrides: Sequence[str], values: Mapping[str, Any]) -> int | None:
    """The training steps, if an override says them."""
    said = any(override.partition("=")[0].strip() == "training.steps" for override in overrides)
    return int(values["training"]["steps"]) if said else None


class _Choosing:
    """What has been chosen so far: a recipe's values, and the reasons."""

    def __init__(self, data: str, found: DataReport, tier: Tier):
        self.data, self.found, self.tier = data, found, tier
        self.values: dict[str, Any] = {}
        self.reasons: list[tuple[str, str]] = []
        self.size, self.trained = (0, 0), found.count
        self.device = process_state().device
        self._say("machine", machine())

    def _say(self, what: str, why: str) -> None:
        self.reasons.append((what, why))

    def images(self, size: int | tuple[int, int] | None, unseen: str | None) -> None:
        """Size, channels, and what is held out."""
        found, sizes = self.found, list(self.found.sizes)
        many = f"{len(sizes)} sizes, such as {by(sizes[0])}" if len(sizes) > 1 else by(sizes[0])
        kinds = f"{len(found.classes)} classes ({_some(list(found.classes))})" if found.classes else "no classes"
        self._say("images", f"{found.count:,} {'RGB' if found.channels == 3 else 'grey'}, {many}, {kinds}")
        if size is None:
            self.size, why = size_for(found.sizes, self.tier.sides[-1])
        else:
            self.size, why = (size, size) if isinstance(size, int) else size, "as asked"
        self._say("size", f"{by(self.size)}: {why}")
        data: dict[str, Any] = {"name": self.data, "split": "train", "channels": found.channels}
        if sizes != [self.size]:
            data["size"] = self.size[0] if self.size[0] == self.size[1] else list(self.size)
        if unseen is not None:
            data["validation_split"] = unseen
            self._say("held out", f"the split {unseen!r}, for validation and as the yardstick")
        elif found.count >= ENOUGH:
            share = 0.2 if found.count < 1000 else min(0.1, HELD_OUT / found.count)
            data |= {"holdout": round(share, 3), "validation_split": "test"}
            self.trained = round(found.count * (1 - share))
            why = "for validation and as the yardstick: there is no test split, and a folder that grows keeps its sides"
            self._say("held out", f"{share:.0%} by the images' hash, {why}")
        else:
            self._say("held out", f"none of {found.count} images: nothing is validated")
        self.values = {"name": run_name(self.data), "data": data}

    def network(self, base: str | None) -> None:
        """The recipe to stand on, fitted to the size."""
        name = base or f"{self.tier.name}-{nearest_side(self.size, self.tier.sides)}"
        under = values_of(name)
        own = under.pop("data")
        data = {"range": own["range"]} if "range" in own else {}
        kept = {key: value for key, value in under.items() if key not in ("name", "source", "images", "requires")}
        self.values = {"name": self.values["name"], **kept, "data": {**self.values["data"], **data}}
        why = "as asked" if base else f"the nearest of the recipes for {self.tier.where}"
        self._say("network", f"{name}, {why}")
        if not isinstance(network := self.values["network"], dict):
            return
        patch = network.get("patch", 1)
        if (fitting := patch_for(patch, self.size)) != patch:
            network["patch"] = fitting
            self._say("network.patch", f"{fitting}, as {patch} does not divide {by(self.size)} into seven or more")
        asked = network.get("attention", ())
        if any(side > 0 for side in asked):
            shape = outline(own["name"], size=own.get("size"), channels=own.get("channels")).shape
            sides = _sides(min(shape[1:]) // patch, len(network.get("multipliers", (1, 2, 2, 2))))
            levels = [side if side < 0 else sides.index(side) - len(sides) for side in asked]
            network["attention"] = levels
            self._say("network.attention", f"at levels {levels}, where the recipe has {asked} at its own size")

    def classes(self) -> None:
        """Conditional where there are classes, unconditional where there are none."""
        learner, kinds = self.values.setdefault("learner", {}), self.found.classes
        if not learner.get("conditional"):
            return
        if kinds:
            dropped = learner.get("label_dropout", 0)
            part = f", {dropped:.0%} of the labels dropped, so that it can be guided" if dropped else ""
            self._say("classes", f"conditioned on {len(kinds)}{part}")
            return
        learner["conditional"] = False
        learner.pop("label_dropout", None)
        if isinstance(sampling := self.values.get("sampling"), dict):
            sampling.pop("guidance", None)
        self._say("classes", "none, so unconditional: folders of classes would condition it")

    def batch_and_precision(self) -> None:
        training, sampling = self.values["training"], self.values.get("sampling")
        fits = 2 ** int(math.log2(max(1, self.trained)))
        training["batch"] = batch = min(training.get("batch", 64), fits)
        self._say("batch", f"{batch}" + (f", no more than the {self.trained} training images" if batch == fits else ""))
        fast = faster_in_bf16(self.device)
        precision = "bf16" if fast else "fp32"
        for part in (training, sampling):
            if isinstance(part, dict) and part.get("precision", "fp32") != precision:
                part["precision"] = precision
        self._say("precision", f"{precision}: matrix products are {'' if fast else 'not '}faster in bf16, measured")
        if not training.get("flip"):
            self._say("flip", "false: mirrored letters are wrong; where mirrors are as good, --set training.flip=true")

    def length(self, time: float | None, steps: int | None, pace: Callable[[Recipe], float] | None) -> None:
        """Steps, and what goes by them: warm-up, the average's decay, how often things are done."""
        training = self.values["training"]
        if steps is not None:
            why = "as asked"
        else:
            most = max(FEWEST, int(PASSES * self.trained / training["batch"]))
            time = time or self.tier.seconds
            own = most if time is not None else int(training["steps"])
            steps, why = min(own, most), "as many as the recipe has"
            if steps == most:
                passes = most * training["batch"] / self.trained
                why = f"{passes:,.0f} passes over {self.trained:,} images; more would copy them"
            if time is not None:
                each = (pace or measured_pace)(load(self.values))
                reached, said = rounded(time / each), f"at {each:.3g} s a step, measured"
                if reached < steps:
                    steps, why = reached, f"what {duration(time)} allow {said}"
                else:
                    why = f"{why}; {duration(steps * each)} {said}"
        self._say("steps", f"{steps:,}: {why}")
        training["steps"] = steps
        training["warmup"] = min(training.get("warmup", 0), steps // 9)
        # Some fifth of the run is in the average, as in the demo's 900 steps at 0.995, or less.
        average = training.get("ema", 0.9999)
        training["ema"] = average and min(average, round(max(0.9, 1 - 5 / steps), 5))
        for what, often in (("log", 40), ("validate", 20), ("grid", 5), ("checkpoint", 5)):
            own = training.get(f"{what}_every", steps)
            training[f"{what}_every"] = own and max(1, min(own, steps // often))


def measured_pace(recipe: Recipe) -> float:
    """Seconds a step on this machine."""
    from trilemma.jobs.estimating import seconds_per_step
    from trilemma.runs.build import completed, open_images

    data = open_images(recipe)
    return seconds_per_step(completed(recipe, data), data)


def rounded(count: float) -> int:
    """Down to two significant digits, at least 1."""
    whole = max(1, int(count))
    unit = 10 ** max(0, len(str(whole)) - 2)
    return whole // unit * unit


def duration(seconds: float) -> str:
    """In the unit of which there are two or more."""
    units = (("days", 86400), ("hours", 3600), ("minutes", 60), ("seconds", 1))
    unit, length = next((one for one in units if seconds >= 2 * one[1]), units[-1])
    return f"{seconds / length:.0f} {unit}"


def _sides(side: int, levels: int) -> list[int]:
    """The resolutions of a network of so many levels, finest first."""
    found = [side]
    while len(found) < levels:
        found.append((found[-1] + 1) // 2)
    return found


def _some(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 6 else f"{', '.join(names[:5])}, … {names[-1]}"
