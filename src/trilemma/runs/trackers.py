"""Other trackers than TensorBoard, through Accelerate's: what a training logs and draws goes to them too.

A tracker watches and no more: what it cannot take is said once, and the training goes on without it. A run's id there
is kept in trackers.json, by which a resumed training goes on where the run was, asked for again or not."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from trilemma.errors import InputError, one_line, shown, unknown
from trilemma.machine.files import write_json
from trilemma.machine.progress import say
from trilemma.machine.untrusted import parse_json, read_text

FILE = "trackers.json"

PROJECT = "trilemma"
"""What the runs lie in there, unless WANDB_PROJECT or MLFLOW_EXPERIMENT_NAME says otherwise."""


class Tracker(Protocol):
    """A run in another tracker, begun, or gone on with by its id: `accelerate`'s object, and its pictures."""

    accelerate: Any
    id: str

    def picture(self, name: str, file: Path, step: int) -> None: ...


class WandB:
    """Weights & Biases. A step that it has already, as after a resumption, it leaves as it is."""

    def __init__(self, path: Path, known: str | None):
        from accelerate.tracking import WandBTracker

        named = {} if known else {"name": path.resolve().name}
        self.accelerate = WandBTracker(
            os.environ.get("WANDB_PROJECT", PROJECT), dir=str(path), id=known, resume="allow", **named
        )
        self.accelerate.start()
        self.id = self.accelerate.tracker.id

    def picture(self, name: str, file: Path, step: int) -> None:
        with Image.open(file) as image:
            self.accelerate.log_images({name: [np.asarray(image)]}, step=step)


class MLflow:
    """MLflow; pictures are artifacts of the run, in a folder by their name."""

    def __init__(self, path: Path, known: str | None):
        from accelerate.tracking import MLflowTracker

        self.accelerate = MLflowTracker(PROJECT, run_id=known, run_name=path.resolve().name)
        self.accelerate.start()
        self.id = self.accelerate.tracker.info.run_id

    def picture(self, name: str, file: Path, step: int) -> None:
        self.accelerate.log_artifact(str(file), name)


TRACKERS: dict[str, Callable[[Path, str | None], Tracker]] = {"wandb": WandB, "mlflow": MLflow}
"""By name, which is that of the package too."""


def check_trackers(names: Sequence[str]) -> None:
    """Raises InputError for a name that is none of `TRACKERS`, or whose package is not installed."""
    for name in names:
        if name not in TRACKERS:
            raise unknown("tracker", name, TRACKERS)
        if find_spec(name) is None:
            raise InputError(f"track {name!r}: the package {name} is not installed; pip install 'trilemma[track]'")


class Trackers:
    """The trackers of the run in `path`: `names`, and those that it has had so far. Those begun are told `recipe`, the
    values of the resolved recipe, under the names that `--set` has for them."""

    def __init__(self, path: Path, names: Sequence[str], recipe: Mapping[str, Any]):
        self._running: dict[str, Tracker] = {}
        known: dict[str, str] = {}
        try:
            known = _known(path / FILE)
        except InputError as error:  # the file's own: no more than a tracker does it end a training
            say(f"warning: {one_line(str(error))}; the run's trackers are begun anew")
        for name in dict.fromkeys([*known, *names]):
            self._do(name, self._begin, name, path, known.get(name), recipe)
        if ids := {name: tracker.id for name, tracker in self._running.items()}:
            write_json(path / FILE, known | ids)

    def _begin(self, name: str, path: Path, known: str | None, recipe: Mapping[str, Any]) -> None:
        check_trackers([name])
        tracker = self._running[name] = TRACKERS[name](path, known)
        if known is None:
            tracker.accelerate.store_init_configuration(flat(recipe))

    def write(self, figures: Mapping[str, float], step: int) -> None:
        """Figures at a step."""
        for name, tracker in list(self._running.items()):
            self._do(name, tracker.accelerate.log, dict(figures), step=step)

    def picture(self, called: str, file: Path, step: int) -> None:
        """A picture at a step: a PNG file."""
        for name, tracker in list(self._running.items()):
            self._do(name, tracker.picture, called, file, step)

    def close(self) -> None:
        """Finish: what is on its way is sent."""
        for name, tracker in list(self._running.items()):
            self._do(name, tracker.accelerate.finish)
        self._running.clear()

    def _do(self, name: str, act: Callable[..., None], *given: Any, **named: Any) -> None:
        try:
            act(*given, **named)
        except Exception as error:  # whatever it is: a tracker ends no training
            self._running.pop(name, None)
            reason = one_line(str(error)) or type(error).__name__
            say(f"warning: track {one_line(shown(name))}: {reason}; the training goes on without it")


def flat(values: Mapping[str, Any], under: str = "") -> dict[str, Any]:
    """Nested values by dotted names, such as training.steps: numbers, flags and text as they are, else as text."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{under}{key}.")
        elif value is not None:
            found[f"{under}{key}"] = value if isinstance(value, bool | int | float | str) else str(value)
    return found


def _known(file: Path) -> dict[str, str]:
    """The run's ids by tracker. Raises InputError for a file that says no such thing."""
    if not file.exists():
        return {}
    try:
        values = parse_json(read_text(file))
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"{file} cannot be read as JSON ({error})") from error
    if not isinstance(values, dict) or not all(isinstance(each, str) for each in values.values()):
        raise InputError(f"{file}: expected the run's ids by tracker, got {shown(repr(values))}")
    return values
