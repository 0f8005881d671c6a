"""The training settings of a recipe, whatever is trained."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainValidator
from torch.optim import Adam, AdamW, Optimizer

Beta = Annotated[float, Field(ge=0, lt=1)]


def _at_once(value: Any) -> Any:
    if value not in (None, "auto") and (type(value) is not int or value < 1):
        raise ValueError("expected 1 or more images, or auto")
    return value


class TrainingSettings(BaseModel):
    """How long, how fast, how often. Counts named `…_every` are in steps; 0 means never."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    steps: int = Field(ge=1, le=10**9, description="optimiser steps in all")
    batch: int = Field(default=64, ge=1, description="images a step, over all processes")
    micro_batch: Annotated[int | Literal["auto"] | None, PlainValidator(_at_once)] = Field(
        default=None,
        description="most images at once in one process; more accumulate; auto: as many as memory is found to hold",
    )
    recompute: bool = Field(
        default=False, description="blocks are computed again for the backward pass: slower, in less memory"
    )
    shard: bool = Field(
        default=False, description="weights, moments and averages lie in parts, one a process; channels_last does not"
    )
    learning_rate: float = Field(default=2e-4, gt=0, le=1e30)
    optimizer: Literal["adam", "adamw"] = "adam"
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    weight_decay: float = Field(default=0.0, ge=0, le=1e6)
    warmup: int = Field(default=0, ge=0, description="steps over which the learning rate rises linearly from zero")
    decay: Literal["none", "linear", "cosine"] = "none"
    clip_norm: float = Field(
        default=1.0, ge=0, description="gradient norm that larger gradients are scaled to; 0: never"
    )
    ema: float = Field(default=0.9999, ge=0, lt=1, description="decay of the weights' average; 0: none kept")
    precision: Literal["fp32", "bf16"] = "fp32"
    compile: bool = False
    channels_last: bool = False
    seed: int = Field(default=0, ge=0)
    flip: bool = Field(default=False, description="flip half of the images left to right")
    workers: int = Field(default=2, ge=0, le=1024, description="loading processes, for data that is not held in memory")
    log_every: int = Field(default=50, ge=1)
    validate_every: int = Field(default=500, ge=0)
    validation_images: int = Field(default=256, ge=1)
    grid_every: int = Field(default=1000, ge=0)
    checkpoint_every: int = Field(default=1000, ge=1)
    keep: int = Field(default=2, ge=1, description="checkpoints kept: the latest so many")
    skip_limit: int = Field(default=20, ge=1, description="non-finite steps in a row after which the run stops")

    def fitted(self) -> tuple[TrainingSettings, str | None]:
        """These for a run to begin with: a warm-up longer than the run is a tenth of it, and then also what to say."""
        if self.warmup <= self.steps:
            return self, None
        warmup = self.steps // 10
        note = f"warm-up {self.warmup:,} steps: more than the run's {self.steps:,}, shortened to a tenth, {warmup:,}"
        return self.model_copy(update={"warmup": warmup}), note

    def optimizer_of(self, parameters: Iterable[Any]) -> Optimizer:
        """The optimiser of these parameters, or groups of them, by these settings."""
        kind = {"adam": Adam, "adamw": AdamW}[self.optimizer]
        return kind(parameters, lr=self.learning_rate, betas=self.betas, weight_decay=self.weight_decay)

    def rate(self, step: int) -> float:
        """The learning rate of step 0, 1, …"""
        return self.learning_rate * self.factor(step)

    def factor(self, step: int) -> float:
        """The share of its rate that a parameter group has at step 0, 1, …: warm-up, then decay to zero at the last
        step if there is one."""
        rise = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        done = max(0.0, (step - self.warmup) / max(1, self.steps - self.warmup))
        fall = {"none": 1.0, "linear": 1.0 - done, "cosine": 0.5 * (1.0 + math.cos(math.pi * done))}[self.decay]
        return rise * fall
