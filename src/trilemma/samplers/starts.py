"""Starts: what a walk begins from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from trilemma.process import Draw, Schedule, perturb
from trilemma.samplers.samples import balanced
from trilemma.samplers.stages import Stage


def noise_start(
    schedule: Schedule,
    seeds: Sequence[int],
    shape: tuple[int, int, int],
    device: torch.device | str = "cpu",
    t: float | None = None,
    role: str = "start",
) -> Float[Tensor, "n c h w"]:
    """x_t ~ N(0, p² I), p the schedule's prior_std at the time `t` that the walk begins at (T unless given): images
    [len(seeds), *shape] of pure noise, each from the stream `role` of its own seed."""
    like = torch.empty(len(seeds), *shape, device=device)
    return schedule.prior_std(schedule.T if t is None else t) * Draw.for_seeds(seeds, role).normal(like)


def surrogate_start(
    schedule: Schedule,
    images: Float[Tensor, "n c h w"],
    t_mid: float,
    seeds: Sequence[int],
    role: str = "start",
) -> Float[Tensor, "n c h w"]:
    """x_{t_mid} ~ q(· | x̃_0) for a surrogate's images x̃_0 (A algorithm 4), with noise from the stream `role` of each
    seed: t_mid = 0 gives the images themselves."""
    t = torch.tensor(t_mid, dtype=torch.float64)
    return perturb(schedule, images, t, Draw.for_seeds(seeds, role).normal(images))


@dataclass(frozen=True)
class Surrogate:
    """Whatever makes the images that a walk begins from (A 3.2): the `stage` that makes them, the time `t_mid` that
    they are noised to, and what records say of it, its `name` first. `classes`: how many classes it can be asked for, 0
    for none; None hands labels on as they are."""

    stage: Stage
    t_mid: float
    record: dict[str, Any]
    classes: int | None = None

    def labels(self, seeds: Sequence[int], labels: Int64[np.ndarray, "n"] | None) -> Int64[np.ndarray, "n"] | None:
        """The classes that it is asked for where the walk is asked for these: the same ones, if it has any; balanced
        ones, if the walk has none."""
        if self.classes is None:
            return labels
        if not self.classes:
            return None
        return balanced(seeds, self.classes) if labels is None else labels

    def images(
        self, seeds: Sequence[int], labels: Int64[np.ndarray, "n"] | None = None
    ) -> UInt8[np.ndarray, "n h w c"]:
        """x̃_0 of these seeds and classes."""
        return self.stage.generate(seeds, self.labels(seeds, labels))

    @property
    def words(self) -> list[str]:
        """Which, where it is taken up, and how it is handed over if it is."""
        parts = [Path(part) for part in str(self.record["name"]).split("+")]
        name = "+".join(part.stem if part.suffix in (".npz", ".zip") else part.name for part in parts)
        handover = self.record.get("handover")
        return [f"surrogate {name} at {self.t_mid:g}", *([f"handover {handover}"] if handover else [])]
