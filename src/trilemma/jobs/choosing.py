"""From images to a recipe: what is chosen for them on this machine, and why."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from trilemma.data import available_splits, outline
from trilemma.data.check import DataReport, check
from trilemma.errors import InputError
from trilemma.machine.devices import faster_in_bf16, process_state
from trilemma.machine.environment import environment
from trilemma.recipes import Recipe, load, put, values_of

SIDES = (28, 32, 48, 64, 128, 256)
"""The sizes that there are recipes for, and that images of several sizes are brought to."""

TIERS = {"small": (64, 20 * 60.0), "images": (256, None)}
"""By whether there is a GPU (`images`): the longest shorter side that is trained unasked, and the seconds, if training
is bounded by time and not by its recipe's steps."""

PASSES = 1000
"""Over the training images, beyond which a network sooner copies them than learns from them: a rule of thumb. Copies
begin where images are few for the parameters and passes are many (Gu et al. 2023; Somepalli et al. 2023), which
`memorisation` measures."""

FEWEST = 500
"""Steps, below which there is nothing to look at, however few the images."""

HELD_OUT = 5000
"""Held-out images that are enough to be measured against."""

ENOUGH = 5
"""Images below which none are held out."""

Reasons = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Choice:
    """A recipe's values for images, without defaults; and what was chosen, each with its reason."""

    values: dict[str, Any]
    reasons: Reasons

    @property
    def recipe(self) -> Recipe:
        return load(self.values)

    def text(self) -> str:
        """The recipe as YAML to edit, the reasons at its head."""
        head = "".join(f"# {what}: {why}\n" for what, why in self.reasons)
        name = self.values["name"]
        told = f"# {name}, as chosen for these images and this machine.\n#\n#   trilemma train {name}.yaml\n#\n"
        return told + head + yaml.safe_dump(self.values, sort_keys=False, default_flow_style=None, width=120)


def is_data(name: str) -> bool:
    """Whether a recipe's name is none, but that of images: a path that is no YAML, or data of the hub."""
    from trilemma.inventory import packaged

    if name in packaged() or Path(name).suffix in (".yaml", ".yml"):
        return False
    return name.startswith("hub:") or Path(name).exists() or name.rpartition("/")[2].endswith(".tar")


def run_name(data: str) -> str:
    """What a recipe and a run of these images are called: the last part of their path."""
    stem = Path(data.removeprefix("hub:")).resolve().name if Path(data).exists() else data.rstrip("/").split("/")[-1]
    plain = re.sub(r"[^\w.-]+", "-", re.sub(r"\.(zip|npz|tar)$", "", stem)).strip("-.")
    return plain or "images"


def choose(
    data: str,
    *,
    recipe: str | None = None,
    size: int | tuple[int, int] | None = None,
    time: float | None = None,
    steps: int | None = None,
    overrides: Sequence[str] = (),
    pace: Callable[[Recipe], float] | None = None,
) -> Choice:
    """A recipe for the images of a folder, zip, .npz, tar or the hub.

    Args:
        recipe: a packaged recipe or a YAML file to stand on; chosen by the size and this machine unless given.
        size: side, or (height, width), of the images; theirs unless given, where that is one and not too large.
        time: seconds that training may take; steps: how many, instead.
        overrides: `a.b=VALUE`, put over what is chosen, and heeded in choosing.
        pace: seconds a step of a recipe; measured unless given.

    Raises:
        InputError: for no images, damaged ones, and for a recipe that does not go with them.
    """
    tier = "small" if process_state().device.type == "cpu" else "images"
    parts = available_splits(data)
    held = next((part for part in ("test", "val", "valid", "validation") if part in parts), None)
    found = check(data, split="train" if held else "all")
    if found.damaged:
        file, reason = found.damaged[0]
        raise InputError(
            f"{data}: {len(found.damaged)} of {len(found.damaged) + found.count} files cannot be read, such as {file} "
            f"({reason}); remove or replace them (trilemma data check {data} lists them)"
        )
    chosen = _Choosing(data, found, TIERS[tier][0], tier)
    chosen.of_images(size, held)
    chosen.of_network(recipe)
    chosen.of_learner()
    chosen.of_training()
    for override in overrides:
        put(chosen.values, override)
    chosen.of_length(steps, time or (None if steps else TIERS[tier][1]), overrides, pace)
    return Choice(chosen.values, tuple(chosen.reasons))


class _Choosing:
    """What has been chosen so far: `values` of a recipe, and the reasons."""

    def __init__(self, data: str, found: DataReport, longest: int, tier: str):
        self.data, self.found, self.longest, self.tier = data, found, longest, tier
        self.values: dict[str, Any] = {}
        self.reasons: list[tuple[str, str]] = []
        self.size, self.trained = (0, 0), found.count

    def say(self, what: str, why: str) -> None:
        self.reasons.append((what, why))

    def of_images(self, size: int | tuple[int, int] | None, held: str | None) -> None:
        """Size, channels, and what is held out."""
        found, data = self.found, {"name": self.data, "split": "train"}
        classes = f"{len(found.classes)} classes ({_some(found.classes)})" if found.classes else "no classes"
        kind = "grey" if found.channels == 1 else "RGB"
        self.say("images", f"{found.count:,} {kind}, {_sizes(found.sizes)}, {classes}")
        if size is not None:
            self.size = (size, size) if isinstance(size, int) else size
            self.say("size", f"{_by(self.size)}, as asked")
        else:
            self.size, why = _size(found.sizes, self.longest)
            self.say("size", f"{_by(self.size)}: {why}")
        if len(found.sizes) > 1 or self.size not in found.sizes:
            data["size"] = self.size[0] if self.size[0] == self.size[1] else list(self.size)
        data["channels"] = found.channels
        if held:
            data["validation_split"] = held
            self.say("held out", f"the split {held!r}: what is trained is measured and validated against it")
        elif found.count >= ENOUGH:
            share = 0.2 if found.count < 1000 else 0.1 if found.count < HELD_OUT * 10 else HELD_OUT / found.count
            data |= {"holdout": round(share, 3), "validation_split": "test"}
            self.trained = round(found.count * (1 - share))
            self.say("held out", f"{share:.0%} of the images, by their hash, as there is no test split: a folder that "
                     "grows keeps its sides")  # fmt: skip
        else:
            self.say("held out", f"none of {found.count} images, so nothing is validated or measured against unseen ones")
        self.values = {"name": run_name(self.data), "data": data}

    def of_network(self, recipe: str | None) -> None:
        """The recipe to stand on, fitted to the size."""
        base = recipe or f"{self.tier}-{_nearest(self.size, SIDES[:4] if self.tier == 'small' else SIDES)}"
        under = values_of(base)
        source = under.pop("source", None)
        for key in ("images", "requires"):
            under.pop(key, None)
        own = under.pop("data")
        if (range_ := own.get("range")) is not None:
            self.values["data"]["range"] = range_
        self.values = {"name": self.values["name"], **{k: v for k, v in under.items() if k != "name"}, **self.values}
        if recipe is not None:
            self.say("network", f"{base}, as asked" + (": its source's figures are of other images" if source else ""))
        else:
            where = "a CPU" if self.tier == "small" else "a GPU"
            self.say("network", f"{base}, the nearest of the recipes for {where}")
        network = self.values["network"]
        if isinstance(network, Mapping) and (patch := network.get("patch", 1)) > 1:
            fitting = _patch(patch, self.size)
            if fitting != patch:
                network["patch"] = fitting
                self.say("network.patch", f"{fitting}, as {patch} does not divide {_by(self.size)}")
        if isinstance(network, Mapping) and any(side > 0 for side in network.get("attention", ())):
            self._level_attention(network, own)

    def _level_attention(self, network: dict[str, Any], own: Mapping[str, Any]) -> None:
        """Attention at the levels at which the recipe has it at its own size."""
        levels = len(network.get("multipliers", (1, 2, 2, 2)))

        def sides(size: Sequence[int], patch: int) -> list[int]:
            side, found = min(size) // patch, []
            for _ in range(levels):
                found.append(side)
                side = (side + 1) // 2
            return found

        theirs = sides(outline(own["name"], size=own.get("size"), channels=own.get("channels")).shape[1:], network.get("patch", 1))
        asked = network["attention"]
        found = [side if side < 0 else theirs.index(side) - levels for side in asked if side < 0 or side in theirs]
        if found != asked:
            network["attention"] = found
            self.say("network.attention", f"at levels {found}, the recipe's {asked} at its own size")

    def of_learner(self) -> None:
        """Classes, if there are some and the recipe's learner takes them."""
        learner = self.values.setdefault("learner", {})
        kinds = self.found.classes
        if kinds:
            if learner.get("conditional"):
                self.say("classes", f"the model is conditioned on {len(kinds)}" + (
                    f", {learner['label_dropout']:.0%} of the labels dropped, so that it can be guided"
                    if learner.get("label_dropout") else ""))  # fmt: skip
            return
        if learner.get("conditional"):
            learner["conditional"] = False
            learner.pop("label_dropout", None)
            if isinstance(sampling := self.values.get("sampling"), dict):
                sampling.pop("guidance", None)
            self.say("classes", "none, so the model is unconditional: class folders would make it conditional")

    def of_training(self) -> None:
        """Batch and precision."""
        training = self.values["training"]
        fits = 2 ** int(math.log2(max(1, self.trained)))
        batch = min(training.get("batch", 64), fits)
        self.say("batch", f"{batch}" + (f": no more than the {self.trained} training images" if batch == fits else ""))
        training["batch"] = batch
        device = process_state().device
        precision = "bf16" if faster_in_bf16(device) else "fp32"
        for part in (training, self.values.get("sampling")):
            if isinstance(part, dict) and part.get("precision", "fp32") != precision:
                part["precision"] = precision
        self.say("precision", f"{precision}: this {device.type} {'is' if precision == 'bf16' else 'is not'} faster in bf16")
        if not training.get("flip"):
            self.say("flip", "false, as mirrored letters and digits are wrong ones; if mirrored images are as good as "
                     "these: --set training.flip=true")  # fmt: skip

    def of_length(
        self,
        steps: int | None,
        time: float | None,
        overrides: Sequence[str],
        pace: Callable[[Recipe], float] | None,
    ) -> None:
        """Steps, and what goes by them: warm-up, the average's decay, how often things are done."""
        training = self.values["training"]
        given = next((o for o in overrides if o.replace(" ", "").startswith("training.steps=")), None)
        if steps is not None or given is not None:
            steps = steps or int(training["steps"])
            self.say("steps", f"{steps:,}, as asked")
        else:
            most = max(FEWEST, int(PASSES * self.trained / training["batch"]))
            whole = f"{training['steps']:,}, the recipe's"
            steps = int(training["steps"]) if time is None else most
            if most <= steps:
                steps, whole = most, f"{PASSES:,} passes over {self.trained:,} images: more would be copied"
                whole = f"{FEWEST:,}, the fewest" if most == FEWEST else whole
            if time is not None:
                each = (pace or _pace)(load({**self.values, "training": {**training, "steps": steps}}))
                reached = _rounded(time / each)
                what = f"at the {each:.3g} s a step that were measured"
                if reached < steps:
                    steps, whole = reached, f"what {_duration(time)} allow {what}"
                else:
                    whole += f"; some {_duration(steps * each)} {what}"
            steps = max(1, steps)
            self.say("steps", f"{steps:,}: {whole}")
        training["steps"] = steps
        training["warmup"] = min(training.get("warmup", 0), max(1, steps // 9))
        average = min(training.get("ema", 0.9999), 0.9999)
        training["ema"] = average if not average else min(average, round(max(0.9, 1 - 5 / steps), 5))
        for what, often in (("log", 50), ("validate", 10), ("grid", 5), ("checkpoint", 10)):
            training[f"{what}_every"] = max(1, min(steps // often, training.get(f"{what}_every", steps) or steps))
        if self.values["learner"].get("name", "denoising") != "denoising":
            del training["grid_every"]
        for override in overrides:
            put(self.values, override)


def _pace(recipe: Recipe) -> float:
    """Seconds a step, measured."""
    from trilemma.jobs.estimating import seconds_per_step
    from trilemma.runs.build import completed, open_images

    data = open_images(recipe)
    return seconds_per_step(completed(recipe, data), data)


def _size(sizes: Mapping[tuple[int, int], int], longest: int) -> tuple[tuple[int, int], str]:
    """(height, width) for images of these sizes, and why."""
    first = next(iter(sizes))
    if len(sizes) == 1 and min(first) <= longest:
        return first, "all images have it"
    shorter = Counter[int]()
    for size, count in sizes.items():
        shorter[min(size)] += count
    total, seen, side = sum(sizes.values()), 0, min(shorter)
    for side in sorted(shorter):
        seen += shorter[side]
        if seen > 0.05 * total:
            break
    standard = max((s for s in SIDES if s <= min(side, longest)), default=min(side, longest))
    ratios = {round(height / width, 2) for height, width in sizes}
    limit = "" if side <= longest else f", and {longest} is as much as this machine trains in a while (--size for more)"
    why = (f"they are {_by(first)}" if len(sizes) == 1 else f"19 of 20 images are at least {side} on their shorter side") + limit
    if max(ratios) - min(ratios) <= 0.05 and not 0.95 <= first[0] / first[1] <= 1.05:
        height, width = (standard * max(1.0, side / min(first)) for side in first)
        pair = (_multiple(height), _multiple(width))
        return pair, f"{why}; all have these proportions"
    square = "" if set(ratios) == {1.0} else ", cropped to squares"
    return (standard, standard), f"{why}{square}"


def _multiple(side: float) -> int:
    return max(8, 8 * round(side / 8))


def _patch(patch: int, size: tuple[int, int]) -> int:
    """The divisor of both sides that is nearest to `patch` and leaves seven patches or more."""
    divisors = [p for p in range(1, 17) if size[0] % p == 0 and size[1] % p == 0 and (min(size) // p >= 7 or p == 1)]
    return min(divisors, key=lambda p: (abs(math.log(p / patch)), p))


def _nearest(size: tuple[int, int], sides: Sequence[int]) -> int:
    mean = math.sqrt(size[0] * size[1])
    return min(sides, key=lambda side: abs(math.log(side / mean)))


def _rounded(count: float) -> int:
    """Down to two significant digits."""
    whole = max(1, int(count))
    unit = 10 ** max(0, len(str(whole)) - 2)
    return whole // unit * unit


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}×{size[1]}"


def _sizes(sizes: Mapping[tuple[int, int], int]) -> str:
    some = [_by(size) for size in sizes][:3]
    return some[0] if len(sizes) == 1 else f"of {len(sizes)} sizes ({', '.join(some)}{', …' * (len(sizes) > 3)})"


def _some(names: Mapping[str, int]) -> str:
    listed = list(names)
    return ", ".join(listed[:5]) + (f", … {listed[-1]}" if len(listed) > 5 else "")


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} seconds"
