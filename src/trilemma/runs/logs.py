"""A run's log: one JSON object a line in log.jsonl, the same figures to TensorBoard."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch.utils.tensorboard import SummaryWriter

from trilemma.machine.files import write_text
from trilemma.training import Report

QUARTERS = ("loss_t1", "loss_t2", "loss_t3", "loss_t4")
"""Mean loss over the quarters of t: t1 next to clean data, t4 the noisiest."""


class Log:
    """Writes log.jsonl and tensorboard/. What a broken run logged after the checkpoint it resumes from is dropped."""

    def __init__(self, path: Path, step: int, write: bool):
        self._file = self._board = None
        if not write:
            return
        place = path / "log.jsonl"
        if place.exists():
            kept = [line for line in place.read_text(encoding="utf-8").splitlines() if _step(line) <= step]
            write_text(place, "".join(line + "\n" for line in kept))
        self._file = place.open("a", buffering=1, encoding="utf-8")
        self._board = SummaryWriter(str(path / "tensorboard"), purge_step=step + 1)

    def __enter__(self) -> Log:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if self._file is not None and self._board is not None:
            self._file.close()
            self._board.close()

    def write(self, figures: dict[str, Any]) -> None:
        """One line of figures; `step` among them."""
        if self._file is None or self._board is None:
            return
        # JSON has no NaN: what is not finite is null.
        plain = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in figures.items()}
        self._file.write(json.dumps(plain) + "\n")
        for name, value in plain.items():
            if name != "step" and value is not None:
                self._board.add_scalar(name, value, figures["step"])


def _step(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except (json.JSONDecodeError, KeyError, TypeError):
        return math.inf  # the torn last line of a killed run


class Window:
    """Means since the last line that was logged."""

    def __init__(self, batch: int):
        self.batch, self.smooth = batch, math.nan
        self._clear()

    def _clear(self) -> None:
        self._loss: list[float] = []
        self._parts: dict[str, list[float]] = {}
        self._sums, self._counts = torch.zeros(4, dtype=torch.float64), torch.zeros(4, dtype=torch.float64)
        self._since = time.perf_counter()

    def add(self, report: Report) -> None:
        """Take in one step; a skipped one counts for nothing."""
        outcome = report.outcome
        if outcome is None:
            return
        mean = report.loss
        self._loss.append(mean)
        for name, part in outcome.parts.items():
            self._parts.setdefault(name, []).append(float(part.double().mean()))
        self.smooth = mean if math.isnan(self.smooth) else 0.95 * self.smooth + 0.05 * mean
        if outcome.times is not None:
            quarter = (outcome.times * 4).ceil().long().clamp(1, 4) - 1
            self._sums.index_add_(0, quarter, outcome.each.double().cpu())
            self._counts += torch.bincount(quarter, minlength=4)

    def line(self, report: Report, seconds: float) -> dict[str, Any]:
        """The figures since the last line, as log.jsonl has them. Rates are images a second of wall time."""
        steps, elapsed = len(self._loss), time.perf_counter() - self._since
        quarters = {
            name: float(total / count)
            for name, total, count in zip(QUARTERS, self._sums, self._counts, strict=True)
            if count
        }
        figures = {
            "step": report.step,
            "time_s": round(seconds, 3),
            "images": report.step * self.batch,
            "loss": sum(self._loss) / steps if steps else None,
            **quarters,
            **{name: sum(values) / len(values) for name, values in self._parts.items()},
            "grad_norm": report.grad_norm,
            "lr": report.learning_rate,
            "images_per_s": round(steps * self.batch / max(elapsed, 1e-9), 2),
            "skipped": report.skipped,
        }
        self._clear()
        return figures
