"""A step skipped as non-finite leaves nothing behind, batch statistics included."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tests.training.conftest import Pixels, to_floats
from trilemma.machine.devices import accelerator
from trilemma.training import Batches, DenoisingLearner, Trainer, TrainingSettings

BATCH_NORM = {"block": "double", "norm": "batch", "entry": "bottom", "skips": "level", "down": "max", "up": "bilinear"}


def test_batch_statistics_are_those_before_it(make_learner: Callable[..., DenoisingLearner], tmp_path: Path) -> None:
    network: dict[str, Any] = {**BATCH_NORM, "time_range": 20}
    learner = make_learner(**network)
    settings = TrainingSettings(steps=3, batch=4, ema=0.9)
    trainer = Trainer(learner, settings, accelerator("fp32"), tmp_path)

    def spoilt(images: Any) -> torch.Tensor:
        return to_floats(images) * (float("nan") if trainer.step == 1 else 1.0)

    before: dict[str, torch.Tensor] = {}
    for report in trainer.run(Batches(Pixels(), spoilt, batch=4, seed=0)):
        state = {name: value.clone() for name, value in learner.network.state_dict().items()}
        if report.step == 2:
            assert report.outcome is None and report.skipped == 1
            assert all(torch.equal(state[name], before[name]) for name in state)
        before = state
    assert trainer.ema is not None
    assert all(torch.isfinite(value).all() for value in (*before.values(), *trainer.ema.shadow.values()))
    assert any("running_mean" in name for name in before)
