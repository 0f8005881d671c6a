"""From images to a recipe: what is chosen for them on this machine, and why."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import yaml

from trilemma.data import Opening, available_splits, check, check_size, counted, outline
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
        told = [f"{name}, as chosen for these images and this machine.", "", "  trilemma train FILE.yaml", ""]
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
    pace: Callable[[Recipe], Pace] | None = None,
) -> Choice:
    """A recipe for the images of a folder, zip, .npz, tar, the hub or a named source.

    Args:
        base: a packaged recipe or a YAML file to stand on; by the size and this machine unless given.
        size: side, or (height, width), of the images; theirs unless given, where that is one and not too large.
        time: seconds that training may take; steps: how many, instead.
        overrides: `a.b=VALUE`; what they say is not chosen.
        pace: how fast a recipe is trained; measured unless given.

    Raises:
        InputError: for no images, damaged ones, a recipe that does not go with them, and options that contradict each
            other.
    """
    asked: dict[str, Any] = {}
    for override in overrides:
        put(asked, override)
    if not all(isinstance(section, dict) for key, section in asked.items() if key in ("data", "training", "network")):
        raise InputError(f"--set {' '.join(overrides)}: expected keys of sections, such as training.steps=1000")
    if steps is not None and (time is not None or "steps" in asked.get("training", {})):
        other = "--time" if time is not None else "--set training.steps"
        raise InputError(f"--steps {steps} and {other}: expected one of them")
    chosen = _Choosing(data, asked, CPU if process_state().device.type == "cpu" else GPU)
    chosen.images(size)
    chosen.network(base)
    for override in overrides:
        put(chosen.values, override)
    load(chosen.without_steps())  # what it cannot be is said before it is timed
    chosen.classes()
    chosen.batch_and_precision()
    chosen.length(time, steps, pace or measured_pace)
    load(chosen.values)
    return Choice(chosen.values, tuple(chosen.reasons))


class _Choosing:
    """What has been chosen so far: a recipe's values, and the reasons. `asked`: what overrides say, by section."""

    def __init__(self, data: str, asked: Mapping[str, Any], tier: Tier):
        self.data, self.asked, self.tier = data, asked, tier
        self.values: dict[str, Any] = {}
        self.reasons: list[tuple[str, str]] = []
        self.device = process_state().device
        own = self._asked("data")
        self.opening = Opening(own.get("root"), config=own.get("config"), stream=bool(own.get("stream")))
        splits = available_splits(data, self.opening.config)
        if "train" not in splits and "split" not in own:
            others = ", ".join(split for split in splits if split != "all")
            raise InputError(f"{data}: has no split 'train' but {others}, expected --set data.split=NAME")
        unseen = (own.get("validation_split"), "test", "val", "valid", "validation")
        self.unseen = next((split for split in unseen if split in splits), None)
        split = "all" if self.unseen is None else own.get("split", "train")
        self.found = check(data, split, self.opening)
        self.size, self.trained = (0, 0), self.found.count
        if self.found.damaged:
            file, reason = self.found.damaged[0]
            raise InputError(
                f"{data}: {len(self.found.damaged)} of {len(self.found.damaged) + self.found.count} files cannot be "
                f"read, such as {file} ({reason}); remove or replace them (trilemma data check {data} lists them)"
            )
        self._say("machine", machine())

    def _asked(self, section: str) -> Mapping[str, Any]:
        found = self.asked.get(section, {})
        return found if isinstance(found, Mapping) else {}

    def _say(self, what: str, why: str) -> None:
        self.reasons.append((what, why))

    def images(self, size: int | tuple[int, int] | None) -> None:
        """Size, channels, and what is held out."""
        found, sizes, own = self.found, list(self.found.sizes), self._asked("data")
        many = f"{len(sizes)} sizes, such as {by(sizes[0])}" if len(sizes) > 1 else by(sizes[0])
        kinds = f"{len(found.classes)} classes ({_some(list(found.classes))})" if found.classes else "no classes"
        self._say("images", f"{found.count:,} {'RGB' if found.channels == 3 else 'grey'}, {many}, {kinds}")
        for note in found.notes:
            if "data." not in note:  # what it advises is done here
                self._say("note", note)
        given = size if size is not None else own.get("size")
        if given is None:
            self.size, why = size_for(found.sizes, self.tier.sides[-1])
        else:
            pair = check_size(given)
            assert pair is not None
            self.size, why = pair, "as asked"
        self._say("size", f"{by(self.size)}: {why}")
        data: dict[str, Any] = {"name": self.data, "split": "train", "channels": found.channels}
        if sizes != [self.size]:
            data["size"] = self.size[0] if self.size[0] == self.size[1] else list(self.size)
        self.values = {"name": run_name(self.data), "data": data | self._held_out()}

    def _held_out(self) -> dict[str, Any]:
        """The settings of what is not trained on."""
        found, own = self.found, self._asked("data")
        if self.unseen is not None:
            self._say("held out", f"the split {self.unseen!r}, for validation and as the yardstick")
            return {"validation_split": self.unseen}
        share = own.get("holdout")
        if share is None:
            share = 0.2 if found.count < 1000 else round(min(0.1, HELD_OUT / found.count), 3)
            if found.count - found.duplicates < ENOUGH:
                share = 0
        if not share:
            self._say("held out", f"none of {found.count - found.duplicates} different images: nothing is validated")
            return {}
        opening = replace(self.opening, holdout=share)
        self.trained, kinds = counted(self.data, "train", opening)
        lost = [name for k, name in enumerate(found.classes or ()) if kinds is not None and not (kinds == k).any()]
        parts = f"{found.count - self.trained:,} of {found.count:,} by their hash, for validation and as the yardstick"
        left = f"; no image of {_some(lost)} is left to train on (data.holdout=0 keeps all)" if lost else ""
        self._say("held out", f"{parts}: there is no test split, and a folder that grows keeps its sides{left}")
        return {"holdout": share, "validation_split": "test"}

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
        network, asked = self.values["network"], self._asked("network")
        if not isinstance(network, dict) or "codec" in under or "name" in asked:
            return  # of latents the sizes are the codec's
        patch, attention = network.get("patch", 1), network.get("attention", ())
        if "patch" not in asked and (fitting := patch_for(patch, self.size)) != patch:
            network["patch"] = fitting
            self._say("network.patch", f"{fitting}, as {patch} does not divide {by(self.size)} into seven or more")
        if "attention" not in asked and any(side > 0 for side in attention):
            shape = outline(own["name"], size=own.get("size"), channels=own.get("channels")).shape
            sides = _sides(min(shape[1:]) // patch, len(network.get("multipliers", (1, 2, 2, 2))))
            levels = [side if side < 0 else sides.index(side) - len(sides) for side in attention]
            network["attention"] = levels
            self._say("network.attention", f"at levels {levels}, where the recipe has {attention} at its own size")

    def without_steps(self) -> dict[str, Any]:
        """The values with a length that any warm-up fits, if none was asked for."""
        training = {"steps": 10**9, **self._asked("training")}
        return {**self.values, "training": {**self.values["training"], **training}} | self._unconditional()

    def _unconditional(self) -> dict[str, Any]:
        """The sections of a learner that could be conditional and is not to be."""
        learner = dict(self.values.get("learner") or {})
        if (learner.get("conditional") and self.found.classes) or "conditional" not in learner:
            return {}
        learner["conditional"] = False
        learner.pop("label_dropout", None)
        sampling = self.values.get("sampling")
        kept = {k: v for k, v in sampling.items() if k != "guidance"} if isinstance(sampling, dict) else sampling
        return {"learner": learner} | ({} if sampling is None else {"sampling": kept})

    def classes(self) -> None:
        """Conditional where there are classes, unconditional where there are none, or none are wanted."""
        self.values |= self._unconditional()
        learner, kinds = self.values.setdefault("learner", {}), self.found.classes
        if learner.get("conditional") and kinds:
            dropped = learner.get("label_dropout", 0)
            part = f", {dropped:.0%} of the labels dropped, so that it can be guided" if dropped else ""
            self._say("classes", f"conditioned on {len(kinds)}{part}")
        elif "conditional" in learner:
            why = "none" if not kinds else f"{len(kinds)}, not used" + " as asked" * ("learner" in self.asked)
            self._say("classes", f"{why}, so unconditional")

    def batch_and_precision(self) -> None:
        training, sampling, asked = self.values["training"], self.values.get("sampling"), self._asked("training")
        if "batch" in asked:
            self._say("batch", f"{training['batch']}, as asked")
        else:
            batch = training.get("batch", 64)
            training["batch"] = min(batch, 2 ** int(math.log2(max(1, self.trained))))
            few = f", as there are {self.trained} training images" if training["batch"] < batch else ""
            self._say("batch", f"{training['batch']}{few}")
        precision, why = asked.get("precision"), "as asked"
        if precision is None:
            fast = faster_in_bf16(self.device)
            precision = "bf16" if fast else "fp32"
            why = f"matrix products are {'' if fast else 'not '}faster in bf16, measured"
        for part, own in ((training, asked), (sampling, self._asked("sampling"))):
            if isinstance(part, dict) and "precision" not in own and part.get("precision", "fp32") != precision:
                part["precision"] = precision
        self._say("precision", f"{precision}: {why}")
        if not training.get("flip"):
            self._say("flip", "false: mirrored letters are wrong; where mirrors are as good, --set training.flip=true")

    def length(self, time: float | None, steps: int | None, pace: Callable[[Recipe], Pace]) -> None:
        """Steps, and what goes by them: warm-up, the average's decay, how often things are done."""
        training, asked = self.values["training"], self._asked("training")
        if steps is not None or "steps" in asked:
            self._scaled(steps or int(training["steps"]))
            self._say("steps", f"{training['steps']:,}: as asked")
            return
        most = max(FEWEST, int(PASSES * self.trained / training["batch"]))
        time = time or self.tier.seconds
        own = most if time is not None else int(training["steps"])
        steps, why = min(own, most), "as many as the recipe has"
        if steps == most:
            passes = most * training["batch"] / self.trained
            why = f"{passes:,.0f} passes over {self.trained:,} images; more would copy them"
        if time is not None:
            self._scaled(steps)
            found = pace(load(self.values))
            reached = rounded((time - found.besides) / found.step)
            said = f"at {found}, measured"
            if reached < steps:
                steps, why = reached, f"what {duration(time)} allow {said}"
                if reached < FEWEST:
                    needed = duration(FEWEST * found.step + found.besides)
                    why += f"; too few to learn much: {needed} would make {FEWEST:,}"
            else:
                why = f"{why}; {duration(steps * found.step + found.besides)} {said}"
        self._scaled(steps)
        self._say("steps", f"{steps:,}: {why}")

    def _scaled(self, steps: int) -> None:
        """So many steps, and all that goes by them, but for what was asked for."""
        training, asked = self.values["training"], self._asked("training")
        own = values_of_steps(training, steps)
        training |= {key: value for key, value in own.items() if key not in asked}


EVERY = {"log": 40, "validate": 12, "grid": 3, "checkpoint": 4}
"""How often a training of images does each, at least."""


def values_of_steps(training: Mapping[str, Any], steps: int) -> dict[str, Any]:
    """The training settings that go by the number of steps."""
    # Some fifth of the run is in the average, as in the demo's 900 steps at 0.995, or less.
    average = training.get("ema", 0.9999)
    found = {
        "steps": steps,
        "warmup": min(training.get("warmup", 0), steps // 9),
        "ema": average and min(average, round(max(0.9, 1 - 5 / steps), 5)),
    }
    for what, often in EVERY.items():
        own = training.get(f"{what}_every", steps)
        found[f"{what}_every"] = own and max(1, min(own, steps // often))
    return found


@dataclass(frozen=True)
class Pace:
    """Seconds of a training `step`, and of all that a training does `besides` its steps."""

    step: float
    besides: float = 0.0

    def __str__(self) -> str:
        rest = f" and {duration(self.besides)} for all else" if self.besides >= 1 else ""
        return f"{self.step:.3g} s a step{rest}"


def measured_pace(recipe: Recipe) -> Pace:
    """On this machine: see `estimate`."""
    from trilemma.jobs.estimating import estimate
    from trilemma.runs.build import completed, open_images

    data = open_images(recipe)
    found = estimate(completed(recipe, data), data)
    return Pace(found.seconds_per_step, found.seconds - found.steps * found.seconds_per_step)


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
