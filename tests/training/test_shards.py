"""What can lie in parts. That it learns what whole weights do is in tests/jobs/test_two_processes.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from accelerate import Accelerator

from tests.training.test_loop import Make, assert_same, losses, state
from trilemma.errors import InputError


@pytest.fixture
def _two_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Accelerator, "num_processes", property(lambda self: 2))


@pytest.mark.usefixtures("_two_processes")
def test_several_optimisers_are_refused(
    make_trainer: Make, make_learner: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = make_learner()
    first, *rest = learner.network.parameters()
    both = {"codec": torch.optim.Adam(rest), "discriminator": torch.optim.Adam([first])}
    monkeypatch.setattr(learner, "optimizers", lambda settings: both)
    with pytest.raises(
        InputError, match=r"training\.shard true: networks of several optimisers \(codec, discrim.*false"
    ):
        make_trainer(learner=learner, shard=True)


@pytest.mark.usefixtures("_two_processes")
def test_compiling_is_refused(make_trainer: Make) -> None:
    with pytest.raises(InputError, match=r"training\.compile true: weights in parts .* expected false"):
        make_trainer(shard=True, compile=True)


def test_one_process_holds_all_there_is(make_trainer: Make) -> None:
    alone, batches = make_trainer("alone", steps=2)
    expected = losses(alone.run(batches))
    parts, batches = make_trainer("parts", steps=2, shard=True)
    assert losses(parts.run(batches)) == expected
    assert_same(state(parts), state(alone))
