"""Micro-batches that memory holds: the largest that does, the step of the whole batch, and nothing left behind."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.training.test_loop import Make, MakeLearner, assert_same, losses, state
from trilemma.errors import InputError
from trilemma.machine import memory
from trilemma.training import Batch, DenoisingLearner, Outcome, micro_batches
from trilemma.training.micro_batches import Fit, fitting_micro_batch


def line(start: float, each: float) -> Callable[[int], float]:
    """A step that takes so much, and so much an image."""
    return lambda images: start + each * images


@pytest.mark.parametrize(
    ("share", "there", "fits"),
    [(64, 1000.0, 64), (64, 740.0, 64), (64, 739.0, 32), (64, 179.0, 4), (64, 139.0, 2), (64, 119.0, 1), (10, 150.0, 5),
     (10, 149.0, 3), (1, 110.0, 1), (3, 1000.0, 3)],
)  # fmt: skip
def test_the_largest_half_of_a_half_that_fits(share: int, there: float, fits: int) -> None:
    tried: list[int] = []

    def taken(images: int) -> float:
        tried.append(images)
        return line(100.0, 10.0)(images)

    found = fitting_micro_batch(share, taken, there)
    assert (found.images, found.share) == (fits, share)
    assert found.needed == line(100.0, 10.0)(fits) <= found.there == int(there)
    # What two have foretold that it takes too much is not tried.
    assert len(tried) == 2 or max(tried) == fits


def test_what_runs_out_of_memory_does_not_fit() -> None:
    found = fitting_micro_batch(16, lambda images: 10.0 * images if images < 7 else math.inf, 1000.0)
    assert found.images == 4
    with pytest.raises(InputError, match=r"'auto': there are 0\.00 GiB .* takes more than that: expected .*recompute"):
        fitting_micro_batch(16, lambda images: math.inf, 1000.0)
    with pytest.raises(InputError, match=r"a step of one image takes 2\.00 GiB"):
        fitting_micro_batch(1, lambda images: 2.0**31, 1000.0)


def test_processes_agree_on_the_smallest() -> None:
    """Another process takes twice as much: each asks what the most is, as often as the other."""
    found = fitting_micro_batch(64, line(0.0, 10.0), 320.0, agreed=lambda value: 2 * value)
    assert found.images == 16


def test_training_is_that_of_the_micro_batch_that_was_found(
    make_trainer: Make, make_learner: MakeLearner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the last bit what it is with that micro-batch said: nothing that was tried stays. Statistics of batches and
    of losses are among it."""

    def learner() -> DenoisingLearner:
        return make_learner(block="double", norm="batch", entry="bottom", skips="level", down="max", up="bilinear")

    trainer, batches = make_trainer("roomy", learner(), micro_batch="auto")
    fit = trainer.fitted(batches)
    assert fit is not None and fit.images == fit.share == 6 and trainer.updates.micro_batch == 6
    assert trainer.fitted(batches) is fit, "measured once"
    monkeypatch.setattr(micro_batches, "free_memory", lambda device: 0.8 * fit.needed / micro_batches.HEADROOM)
    narrow, batches = make_trainer("narrow", learner(), micro_batch="auto")
    seen = losses(narrow.run(batches))
    assert narrow.updates.micro_batch == 3
    said, batches = make_trainer("said", learner(), micro_batch=3)
    assert seen == losses(said.run(batches))
    assert_same(state(narrow), state(said))
    again, batches = make_trainer("narrow", learner(), micro_batch=2, steps=5)
    again.resume()
    assert len(losses(again.run(batches))) == 1, "another micro-batch goes on with it"


def test_every_kind_of_step_is_measured(make_trainer: Make, make_learner: MakeLearner) -> None:
    class Unlike(DenoisingLearner):
        seen: list[int]

        def kind(self, step: int) -> tuple[object, ...]:
            return (step >= 2,)

        def losses(self, batch: Batch) -> Outcome:
            self.seen.append(len(batch))
            return super().losses(batch)

        def begin(self, step: int) -> bool:
            self.seen.append(-step)
            return super().begin(step)

    plain = make_learner()
    learner = Unlike(plain.denoiser, plain.objective, plain.times)
    learner.seen = []
    trainer, batches = make_trainer(learner=learner, micro_batch="auto", steps=3)
    trainer.fitted(batches)
    assert -2 in learner.seen
    assert [each for each in learner.seen if each > 0] == [2, 2, 3, 3, 6, 6]


def test_nothing_fits_is_said_before_anything_is_done(make_trainer: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(micro_batches, "free_memory", lambda device: 1000)
    trainer, batches = make_trainer(micro_batch="auto")
    with pytest.raises(InputError, match=r"training\.micro_batch 'auto'"):
        next(trainer.run(batches))
    assert trainer.step == 0


def test_a_fit_says_what_it_is() -> None:
    assert str(Fit(8, 64, 2**30, 2**31)) == "micro_batch 8: 1.00 GiB for 8 of 64 images at once, of 2.00 GiB"


class TestPeak:
    def test_is_of_the_tensors_that_live_together(self) -> None:
        def run() -> None:
            first = torch.zeros(250)
            second = first + 1
            del first
            third = second.view(-1) * 2
            third[:10].sum()

        assert memory.peak_of(run, torch.device("cpu")) == pytest.approx(2000, abs=8)

    def test_has_the_backward_pass_in_it_and_not_what_was_there(self) -> None:
        weight = torch.ones(100, 100, requires_grad=True)
        assert 40_000 <= memory.peak_of(lambda: weight.sum().backward(), torch.device("cpu")) < 50_000
        assert memory.peak_of(lambda: weight.detach().add_(1), torch.device("cpu")) == 0

    def test_of_a_gpu_is_what_is_reserved_and_running_out_is_infinite(self, monkeypatch: pytest.MonkeyPatch) -> None:
        reserved = {"now": 100, "most": 0}
        fakes: dict[str, Any] = {
            "empty_cache": lambda: None,
            "synchronize": lambda device: None,
            "memory_reserved": lambda device: reserved["now"],
            "max_memory_reserved": lambda device: reserved["most"],
            "reset_peak_memory_stats": lambda device: reserved.update(most=reserved["now"]),
            "mem_get_info": lambda device: (700, 1000),
        }
        for name, fake in fakes.items():
            monkeypatch.setattr(torch.cuda, name, fake)
        gpu = torch.device("cuda")

        def exhausting() -> None:
            raise torch.OutOfMemoryError

        assert memory.peak_of(lambda: reserved.update(most=350), gpu) == 250
        assert memory.peak_of(exhausting, gpu) == math.inf
        assert memory.free_memory(gpu) == 700

    def test_processes_of_one_machine_share_what_is_free(self, monkeypatch: pytest.MonkeyPatch) -> None:
        cpu = torch.device("cpu")
        alone = memory.free_memory(cpu)
        monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
        assert memory.free_memory(cpu) == pytest.approx(alone / 4, rel=0.3)
