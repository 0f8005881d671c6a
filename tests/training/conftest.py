"""Small things to train: sixteen ramps, a denoiser of some thousand weights, a trainer around them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from trilemma.machine.devices import accelerator
from trilemma.networks import UNet
from trilemma.objectives import OBJECTIVES
from trilemma.process import SCHEDULES, TIME_SAMPLERS, Denoiser
from trilemma.training import Batches, DenoisingLearner, Learner, Trainer, TrainingSettings


@dataclass
class Pixels:
    """Ramps from left to right, each of its own brightness."""

    count: int = 16
    side: int = 8
    in_memory: bool = True

    def __len__(self) -> int:
        return self.count

    def batch(self, indices: Any) -> tuple[np.ndarray, np.ndarray]:
        index = np.asarray(indices)
        ramp = np.broadcast_to(np.arange(self.side)[:, None] * 20, (len(index), self.side, self.side, 1))
        return (ramp + 6 * index[:, None, None, None]).astype(np.uint8), (index % 4).astype(np.int64)


def to_floats(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 127.5 - 1


def build_learner(**network: Any) -> DenoisingLearner:
    torch.manual_seed(0)
    arguments: dict[str, Any] = {
        "base_channels": 8,
        "multipliers": [1, 2],
        "blocks": 1,
        "attention": [],
        "dropout": 0.2,
    }
    unet = UNet(1, 1, (8, 8), 4, **{**arguments, "middle_attention": False, **network})
    denoiser = Denoiser(unet, SCHEDULES["cosine"](steps=20), "v", "fixed_small")
    return DenoisingLearner(denoiser, OBJECTIVES["simple"](), TIME_SAMPLERS["uniform"](denoiser.schedule))


@pytest.fixture
def make_learner() -> Callable[..., DenoisingLearner]:
    return build_learner


@pytest.fixture
def make_batches() -> Callable[..., Batches]:
    def make(count: int = 16, **arguments: Any) -> Batches:
        return Batches(Pixels(count), to_floats, **{"batch": 6, "seed": 0, **arguments})

    return make


@pytest.fixture
def make_trainer(tmp_path: Path) -> Callable[..., tuple[Trainer, Batches]]:
    """A trainer in `where` below the test's folder, and its batches."""

    def make(where: str = "run", learner: Learner | None = None, **settings: Any) -> tuple[Trainer, Batches]:
        given = {"steps": 4, "batch": 6, "learning_rate": 1e-3, "ema": 0.9, "flip": True, "checkpoint_every": 100}
        chosen = TrainingSettings(**{**given, **settings})
        trainer = Trainer(learner or build_learner(), chosen, accelerator("fp32"), tmp_path / where)
        return trainer, Batches(Pixels(), to_floats, batch=chosen.batch, seed=chosen.seed, flip=chosen.flip)

    return make
