"""The contract of learners: two networks, two optimisers and an update ratio are a learner, and nothing in the loop."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch

from tests.training.two_networks import Adversaries, adversaries
from trilemma.runs.logs import Window
from trilemma.training import Batch, Outcome, checkpoint


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    """All of a folder's newest checkpoint."""
    place = checkpoint.latest(folder / "checkpoints")
    return {f"{f.stem}/{k}": v for f in place.glob("*.safetensors") for k, v in checkpoint.read_tensors(f).items()}


def test_each_network_is_updated_in_its_turn(tmp_path: Path) -> None:
    trainer, batches = adversaries(tmp_path, steps=4, warmup=0)
    learner, before, turns = trainer.learner, {}, []
    for report in trainer.run(batches):
        now = {name: value.clone() for name, value in trainer.network.named_parameters()}
        changed = {name.split(".")[0] for name in before if not torch.equal(before[name], now[name])}
        turns.append((changed, set(report.outcome.parts)))
        before = now
    both = {"generator", "discriminator"}
    assert turns[1:] == [({"discriminator"}, set()), (both, {"generator"}), ({"discriminator"}, set())]
    assert trainer.ema.updates == 2, "the average moves with what it is of"
    saved = tensors(tmp_path)
    assert {name.split("/")[1] for name in saved if name.startswith("ema/")} == set(learner.generator.state_dict())
    assert any(name.startswith("optimizer/discriminator.") for name in saved)
    rates = [group["lr"] for group in trainer.updates.optimizers["generator"].param_groups]
    assert rates == [pytest.approx(1e-3), pytest.approx(1e-2)]


def test_both_losses_are_logged(tmp_path: Path) -> None:
    trainer, batches = adversaries(tmp_path, steps=3)
    window = Window(6)
    for report in trainer.run(batches):
        window.add(report)
    line = window.line(report, 0.0)
    assert line["loss"] > 0 and line["generator"] > 0


@pytest.mark.parametrize("micro_batch", [None, 2])
def test_a_resumed_training_is_an_unbroken_one(tmp_path: Path, micro_batch: int | None) -> None:
    whole, batches = adversaries(tmp_path / "whole", micro_batch=micro_batch)
    list(whole.run(batches))
    first, batches = adversaries(tmp_path / "halves", micro_batch=micro_batch)
    list(islice(first.run(batches), 6))
    second, batches = adversaries(tmp_path / "halves", micro_batch=micro_batch)
    second.resume()
    assert second.step == 4 and second.learner.seen == 4
    list(second.run(batches))
    one, other = tensors(tmp_path / "whole"), tensors(tmp_path / "halves")
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_an_update_that_is_not_finite_ends_the_step(tmp_path: Path) -> None:
    """What came before it in the step is kept."""

    class Spoilt(Adversaries):
        def deceived(self, batch: Batch) -> Outcome:
            found = super().deceived(batch)
            return replace(found, loss=found.loss * float("nan")) if batch.keys[0][2] == 2 else found

    trainer, batches = adversaries(tmp_path, Spoilt(), steps=4, warmup=0)
    before: dict[str, torch.Tensor] = {}
    for report in trainer.run(batches):
        now = {name: value.clone() for name, value in trainer.network.named_parameters()}
        if report.step == 3:
            assert report.outcome is None and report.skipped == 1
            assert {name.split(".")[0] for name in now if not torch.equal(now[name], before[name])} == {"discriminator"}
        before = now
    assert trainer.skipped == 1 and trainer.ema.updates == 1
