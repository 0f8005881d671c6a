"""The history of an importance sampler is part of a checkpoint: what it draws after resuming depends on it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from pathlib import Path

import torch

from tests.training.conftest import Pixels, to_floats
from trilemma.machine.devices import accelerator
from trilemma.process import Importance
from trilemma.training import Batches, DenoisingLearner, Trainer, TrainingSettings


def test_ten_steps_are_five_and_five(make_learner: Callable[..., DenoisingLearner], tmp_path: Path) -> None:
    def trainer(name: str) -> tuple[Trainer, Importance]:
        learner = make_learner()
        times = Importance(learner.denoiser.schedule, history=2, bins=10, extra=2)
        learner.times = times
        settings = TrainingSettings(steps=10, batch=4, checkpoint_every=5)
        return Trainer(learner, settings, accelerator("fp32"), tmp_path / name), times

    batches = Batches(Pixels(), to_floats, batch=4, seed=0)
    whole, history = trainer("whole")
    list(whole.run(batches))
    assert int(history.counts.sum()) == 10 * 4 * 3, "a batch and two extra ones a step"
    assert not torch.allclose(history.probabilities(), torch.full((2,), 0.5, dtype=torch.float64))
    broken, _ = trainer("broken")
    list(islice(broken.run(batches), 6))
    resumed, again = trainer("broken")
    resumed.resume()
    assert resumed.step == 5
    list(resumed.run(batches))
    assert torch.equal(again.losses, history.losses)
    assert torch.equal(again.counts, history.counts)
    for name, value in whole.network.state_dict().items():
        assert torch.equal(resumed.network.state_dict()[name], value), name
