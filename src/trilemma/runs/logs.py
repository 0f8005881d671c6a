"""A run's log: one JSON object a line in log.jsonl; the same figures, and pictures, to TensorBoard and other
trackers."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from PIL import Image

from trilemma.errors import InputError
from trilemma.machine.files import write_text
from trilemma.machine.untrusted import parse_json, read_text
from trilemma.process import quarters
from trilemma.runs.trackers import Trackers
from trilemma.training import Report

BOARD = "tensorboard"
"""The folder of a run that TensorBoard is pointed at."""


class Log:
    """Writes log.jsonl and tensorboard/, and what they hold to the trackers that `track` names and that the run has had
    so far, see `Trackers`. What a broken run logged after the checkpoint it resumes from is dropped."""

    def __init__(self, path: Path, step: int, write: bool, track: Sequence[str] = (), recipe: Mapping[str, Any] = {}):
        self._file = self._board = self._trackers = None
        if not write:
            return
        from torch.utils.tensorboard import SummaryWriter  # takes a second, and only writing needs it

        place = path / "log.jsonl"
        if place.exists():
            try:
                lines = read_text(place).splitlines()
            except ValueError as error:
                raise InputError(f"{place} cannot be read as text: {error}") from error
            kept = [line for line in lines if _step(line) <= step]
            write_text(place, "".join(line + "\n" for line in kept))
        self._file = place.open("a", buffering=1, encoding="utf-8")
        self._board = SummaryWriter(str(path / BOARD), purge_step=step + 1)
        self._trackers = Trackers(path, track, recipe)

    def __enter__(self) -> Log:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        for opened in (self._file, self._board, self._trackers):
            with suppress(OSError):  # lines are on their way when `write` returns: what cannot be written it has said
                if opened is not None:
                    opened.close()

    def write(self, figures: dict[str, Any]) -> None:
        """One line of figures; `step` among them. Raises InputError where it cannot be written."""
        if self._file is None or self._board is None or self._trackers is None:
            return
        # JSON has no NaN: what is not finite is null.
        plain = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in figures.items()}
        try:
            self._file.write(json.dumps(plain) + "\n")
            scalars = {name: value for name, value in plain.items() if name != "step" and value is not None}
            for name, value in scalars.items():
                self._board.add_scalar(name, value, figures["step"])
        except OSError as error:
            raise InputError(f"log: cannot write {self._file.name} ({error.strerror or error})") from error
        self._trackers.write(scalars, figures["step"])

    def picture(self, name: str, file: Path, step: int) -> None:
        """A picture, a PNG file, as it was at a step: not in log.jsonl."""
        if self._board is not None and self._trackers is not None:
            with Image.open(file) as image:
                pixels = np.asarray(image)
            self._board.add_image(name, pixels, step, dataformats="HWC" if pixels.ndim == 3 else "HW")
            self._trackers.picture(name, file, step)


def _step(line: str) -> float:
    try:
        return float(parse_json(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf  # the torn last line of a killed run


class Window:
    """Means since the last line that was logged, of the loss and of its parts: over all images and, as `loss_t1` to
    `loss_t4`, over those of each quarter of t, t1 next to clean data and t4 the noisiest. They are kept in `state`,
    JSON values throughout, so that a checkpoint that holds it goes on with them to the last bit."""

    def __init__(self, batch: int, state: dict[str, Any] | None = None):
        self.batch, self.state = batch, state if state is not None else {}
        if not isinstance(self.state.get("sums"), dict):  # as earlier checkpoints have it, the loss's alone
            self.state.setdefault("smooth", None)
            self._clear()
        self._since = time.perf_counter()

    def _clear(self) -> None:
        self.state |= {"loss": [], "parts": {}, "sums": {}, "counts": [0] * 4}
        self._since = time.perf_counter()

    @property
    def smooth(self) -> float:
        """The loss, averaged over some twenty steps; NaN before the first."""
        return math.nan if self.state["smooth"] is None else self.state["smooth"]

    def add(self, report: Report) -> None:
        """Take in one step; a skipped one counts for nothing."""
        outcome, state = report.outcome, self.state
        if outcome is None:
            return
        mean = report.loss
        state["loss"].append(mean)
        norms = {f"grad_norm_{name}": norm for name, norm in report.grad_norms.items() if name != "optimizer"}
        means = {name: float(part.double().mean()) for name, part in outcome.parts.items()}
        for name, figure in {**means, **norms, **outcome.figures}.items():
            state["parts"].setdefault(name, []).append(figure)
        state["smooth"] = mean if state["smooth"] is None else 0.95 * self.smooth + 0.05 * mean
        if outcome.times is not None:
            quarter = quarters(outcome.times)
            for name, values in {"loss": outcome.each, **outcome.parts}.items():
                sums = torch.tensor(state["sums"].get(name, [0.0] * 4), dtype=torch.float64)
                state["sums"][name] = sums.index_add_(0, quarter, values.double().cpu()).tolist()
            new = torch.bincount(quarter, minlength=4).tolist()
            state["counts"] = [a + b for a, b in zip(state["counts"], new, strict=True)]

    def line(self, report: Report, seconds: float) -> dict[str, Any]:
        """The figures since the last line, as log.jsonl has them. Rates are images a second of wall time."""
        loss, steps, elapsed = self.state["loss"], len(self.state["loss"]), time.perf_counter() - self._since
        by_quarter = {
            f"{name}_t{i + 1}": total / count
            for name, sums in self.state["sums"].items()
            for i, (total, count) in enumerate(zip(sums, self.state["counts"], strict=True))
            if count
        }
        figures = {
            "step": report.step,
            "time_s": round(seconds, 3),
            "images": report.step * self.batch,
            "loss": sum(loss) / steps if steps else None,
            **by_quarter,
            **{name: sum(values) / len(values) for name, values in self.state["parts"].items()},
            "grad_norm": report.grad_norm,
            "lr": report.learning_rate,
            "images_per_s": round(steps * self.batch / max(elapsed, 1e-9), 2),
            "skipped": report.skipped,
        }
        self._clear()
        return figures
