"""The loop: resuming bit for bit, accumulation, what is not finite, signals, validation."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from trilemma.errors import InputError
from trilemma.metrics import kept_for_backward
from trilemma.training import Batch, Batches, DenoisingLearner, DivergedError, Outcome, Report, Trainer, checkpoint

Make = Callable[..., tuple[Trainer, Batches]]
MakeLearner = Callable[..., DenoisingLearner]


def state(trainer: Trainer) -> dict[str, Tensor]:
    """Everything that training changes."""
    moments = checkpoint.optimizer_tensors(trainer.updates.optimizers.values(), trainer.network)
    shadow = trainer.ema.shadow if trainer.ema else {}
    groups = {"model": trainer.network.state_dict(), "ema": shadow, "optimizer": moments}
    return {f"{group}/{name}": value.clone() for group, held in groups.items() for name, value in held.items()}


def assert_same(left: dict[str, Tensor], right: dict[str, Tensor], **tolerance: float) -> None:
    assert left.keys() == right.keys() and left
    for name, value in left.items():
        if tolerance:
            torch.testing.assert_close(value, right[name], **tolerance, msg=lambda text, name=name: f"{name}: {text}")
        else:
            assert torch.equal(value, right[name]), name


def first(held: dict[str, Any]) -> str:
    return next(iter(held))


def moment(held: dict[str, Any]) -> str:
    return next(name for name in held if name.endswith(".exp_avg"))


def losses(reports: Iterator[Report]) -> list[float]:
    return [report.outcome.loss.item() for report in reports if report.outcome is not None]


class Poisoned(DenoisingLearner):
    """Gives a loss that is not finite at the steps named."""

    poison: frozenset[int] = frozenset()

    def losses(self, batch: Batch) -> Outcome:
        outcome = super().losses(batch)
        if batch.keys[0][2] in self.poison:
            return Outcome(outcome.loss * float("nan"), outcome.each * float("nan"), outcome.times)
        return outcome


@pytest.fixture
def poisoned(make_learner: MakeLearner) -> Callable[..., Poisoned]:
    def make(*steps: int) -> Poisoned:
        plain = make_learner()
        learner = Poisoned(plain.denoiser, plain.objective, plain.times)
        learner.poison = frozenset(steps)
        return learner

    return make


class TestResume:
    @pytest.mark.parametrize(
        "changes", [{}, {"micro_batch": 4}, {"optimizer": "adamw", "weight_decay": 0.1}, {"ema": 0}]
    )
    def test_five_and_five_are_ten_bit_for_bit(self, make_trainer: Make, changes: dict[str, Any]) -> None:
        settings = {"warmup": 3, "decay": "cosine", "steps": 10, "checkpoint_every": 5, **changes}
        whole, batches = make_trainer("whole", **settings)
        expected = losses(whole.run(batches))
        first, batches = make_trainer("halves", **settings)
        got = losses(islice(first.run(batches), 7))[:5]  # broken off two steps after the checkpoint
        torch.manual_seed(123)  # as another process would find it
        second, batches = make_trainer("halves", **settings)
        second.resume()
        assert second.step == 5
        got += losses(second.run(batches))
        assert got == expected and len(got) == 10
        assert_same(state(second), state(whole))
        assert second.ema is None or second.ema.updates == 10

    def test_takes_up_what_the_learner_has_learnt(self, make_trainer: Make, make_learner: MakeLearner) -> None:
        class Remembering(DenoisingLearner):
            history = torch.zeros(2)

            def observe(self, outcome: Outcome) -> None:
                self.history = self.history + torch.tensor([1.0, float(outcome.loss)])

            def state_dict(self) -> dict[str, Any]:
                return {"times": {"history": self.history, "note": [1, 2]}}

            def load_state_dict(self, state: dict[str, Any]) -> None:
                self.history = state["times"]["history"]
                assert state["times"]["note"] == [1, 2]

        def fresh() -> Remembering:
            plain = make_learner()
            return Remembering(plain.denoiser, plain.objective, plain.times)

        first, batches = make_trainer(learner=fresh())
        list(first.run(batches))
        second, _ = make_trainer(learner=fresh())
        second.resume()
        assert second.learner.history.tolist() == first.learner.history.tolist()
        assert second.learner.history[0] == 4

    def test_ignores_a_checkpoint_that_broke_off(self, make_trainer: Make, tmp_path: Path) -> None:
        trainer, batches = make_trainer(steps=4, checkpoint_every=2)
        list(islice(trainer.run(batches), 3))
        (tmp_path / "run" / "checkpoints" / ".step-00000004.partial").mkdir()
        again, batches = make_trainer(steps=4, checkpoint_every=2)
        again.resume()
        assert again.step == 2
        list(again.run(batches))
        assert checkpoint.steps(tmp_path / "run" / "checkpoints") == [2, 4]

    def test_without_a_checkpoint_is_refused(self, make_trainer: Make) -> None:
        with pytest.raises(InputError, match="no finished checkpoint"):
            make_trainer()[0].resume()

    @pytest.mark.parametrize("name", ["model", "ema", "optimizer"])
    def test_of_a_damaged_checkpoint_is_refused(self, make_trainer: Make, tmp_path: Path, name: str) -> None:
        trainer, batches = make_trainer(steps=1)
        list(trainer.run(batches))
        path = tmp_path / "run" / "checkpoints" / "step-00000001" / f"{name}.safetensors"
        path.write_bytes(path.read_bytes()[:-7])
        with pytest.raises(InputError, match=rf"{name}\.safetensors is not as it was written"):
            make_trainer()[0].resume()

    @pytest.mark.parametrize(
        ("file", "change", "says"),
        [
            ("optimizer", lambda held: held.clear(), "is not whole"),
            ("optimizer", lambda held: held.pop(next(iter(held))), "is not whole"),
            ("optimizer", lambda held: held.update(other=held.pop(moment(held))), "state of ''|no weight"),
            ("optimizer", lambda held: held.update({moment(held): torch.zeros(3, 1, 2)}), r"has shape \[3, 1, 2\]"),
            ("optimizer", lambda held: held.update({moment(held): held[moment(held)].double()}), "is torch.float64"),
            ("ema", lambda held: held.clear(), r"average '.*' is in this network, not in the file"),
            ("ema", lambda held: held.update({first(held): torch.zeros(9, 9)}), r"average '.*' has shape \[9, 9\]"),
            ("ema", lambda held: held.update({first(held): held[first(held)].double()}), "is torch.float64"),
            ("state", lambda held: held.pop("skipped"), "skipped is missing"),
            ("state", lambda held: held.update(learner={}), "learner.times is missing"),
            ("state", lambda held: held.update(learner={"times": 1}), "learner.times is 1, expected dict"),
        ],
    )
    def test_of_a_checkpoint_that_does_not_fit_is_refused(
        self, make_trainer: Make, tmp_path: Path, file: str, change: Callable[[dict[str, Any]], Any], says: str
    ) -> None:
        """Even where its hashes are not looked at."""
        trainer, batches = make_trainer(steps=1)
        list(trainer.run(batches))
        folder = tmp_path / "run" / "checkpoints" / "step-00000001"
        if file == "state":
            held = json.loads((folder / "state.json").read_text())
            change(held)
            (folder / "state.json").write_text(json.dumps(held))
        else:
            held = load_file(folder / f"{file}.safetensors")
            change(held)
            save_file(held, folder / f"{file}.safetensors")
        with pytest.raises(InputError, match=says):
            make_trainer()[0].resume(verify=False)

    def test_of_a_checkpoint_of_an_earlier_version_goes_on(self, make_trainer: Make, tmp_path: Path) -> None:
        trainer, batches = make_trainer(steps=1)
        list(trainer.run(batches))
        place = tmp_path / "run" / "checkpoints" / "step-00000001" / "state.json"
        state = json.loads(place.read_text())
        place.write_text(json.dumps({key: value for key, value in state.items() if key not in checkpoint.OPTIONAL}))
        again, _ = make_trainer()
        again.resume()
        assert again.step == 1

    def test_of_another_network_is_refused(self, make_trainer: Make, make_learner: MakeLearner) -> None:
        trainer, batches = make_trainer(steps=1)
        list(trainer.run(batches))
        with pytest.raises(InputError, match=r"weight '.*' (has shape|is in)"):
            make_trainer(learner=make_learner(base_channels=4))[0].resume()


class TestAccumulation:
    @pytest.mark.parametrize("micro_batch", [4, 3, 1])
    def test_gives_the_step_of_the_whole_batch(
        self, make_trainer: Make, make_learner: MakeLearner, micro_batch: int
    ) -> None:
        made = {}
        for where, size in (("whole", None), ("parts", micro_batch)):
            # A rate at which Adam, which divides by the gradient's size, does not blow up the last bit of it.
            trainer, batches = make_trainer(where, make_learner(dropout=0.0), steps=1, micro_batch=size, clip_norm=0)
            (report,) = trainer.run(batches)
            gradients = {name: p.grad.clone() for name, p in trainer.network.named_parameters() if p.grad is not None}
            made[where] = (report, gradients, state(trainer))
        whole, parts = made["whole"], made["parts"]
        assert_same(parts[1], whole[1], rtol=1e-4, atol=1e-7)
        assert parts[0].outcome.loss.item() == pytest.approx(whole[0].outcome.loss.item(), rel=1e-5)
        torch.testing.assert_close(parts[0].outcome.each, whole[0].outcome.each)
        assert torch.equal(parts[0].outcome.times, whole[0].outcome.times)
        moments = [{k: v for k, v in held[2].items() if k.startswith("optimizer")} for held in (parts, whole)]
        assert_same(*moments, rtol=1e-3, atol=1e-7)


def test_blocks_computed_again_change_no_bit_and_keep_less(make_trainer: Make, make_learner: MakeLearner) -> None:
    kept = []
    for where, again in (("plain", False), ("again", True)):
        trainer, batches = make_trainer(where, make_learner(dropout=0.2), recompute=again, micro_batch=4, steps=2)
        seen = losses(trainer.run(batches))
        held, learner = state(trainer), trainer.learner
        kept.append((seen, held, kept_for_backward(trainer.network, lambda: learner.losses(batches[0]))))  # noqa: B023
    (expected, plain, much), (found, recomputed, little) = kept
    assert found == expected and little < 0.7 * much
    assert_same(recomputed, plain)


def test_gradients_are_clipped_to_the_norm(make_trainer: Make) -> None:
    free, batches = make_trainer("free", steps=1, clip_norm=0)
    (report,) = free.run(batches)
    tight, batches = make_trainer("tight", steps=1, clip_norm=report.grad_norm / 4)
    (clipped,) = tight.run(batches)
    assert clipped.grad_norm == pytest.approx(report.grad_norm), "the norm reported is the one before clipping"
    for name, parameter in tight.network.named_parameters():
        torch.testing.assert_close(
            parameter.grad * 4, dict(free.network.named_parameters())[name].grad, rtol=1e-3, atol=1e-6
        )


def test_groups_are_clipped_each_by_itself(
    make_trainer: Make, make_learner: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a group of other units, a schedule's, does not scale the network's; the norm reported is of all."""
    free, batches = make_trainer("free", steps=1, clip_norm=0)
    (report,) = free.run(batches)
    learner = make_learner()
    *rest, last = learner.network.parameters()
    groups = [{"params": [last]}, {"params": rest}]
    monkeypatch.setattr(learner, "optimizers", lambda settings: {"optimizer": settings.optimizer_of(groups)})
    trainer, batches = make_trainer("groups", learner, steps=1, clip_norm=1e-4)
    (clipped,) = trainer.run(batches)
    assert clipped.grad_norm == pytest.approx(report.grad_norm, rel=1e-5)
    for group in trainer.updates.optimizers["optimizer"].param_groups:
        assert float(torch.stack([p.grad.norm() for p in group["params"]]).norm()) == pytest.approx(1e-4, rel=1e-2)


def test_the_rate_reported_is_the_one_used(make_trainer: Make) -> None:
    trainer, batches = make_trainer(steps=4, warmup=4, learning_rate=0.01)
    used = [
        (report.learning_rate, trainer.updates.optimizers["optimizer"].param_groups[0]["lr"])
        for report in trainer.run(batches)
    ]
    assert used == [(pytest.approx(0.01 * k / 4), pytest.approx(0.01 * k / 4)) for k in (1, 2, 3, 4)]


class TestNotFinite:
    def test_steps_are_skipped_and_counted(self, make_trainer: Make, poisoned: Callable[..., Poisoned]) -> None:
        trainer, batches = make_trainer(learner=poisoned(1, 3), steps=5)
        before: dict[str, Tensor] = {}
        for report in trainer.run(batches):
            if report.step in (2, 4):
                assert report.outcome is None
                assert_same(state(trainer), before)
            before = state(trainer)
        assert (trainer.step, trainer.skipped, report.skipped) == (5, 2, 2)
        assert trainer.ema.updates == 3
        assert all(torch.isfinite(value).all() for value in before.values())

    def test_count_survives_resuming(self, make_trainer: Make, poisoned: Callable[..., Poisoned]) -> None:
        trainer, batches = make_trainer(learner=poisoned(1))
        list(trainer.run(batches))
        again, _ = make_trainer()
        again.resume()
        assert again.skipped == 1

    def test_too_many_in_a_row_stop_the_run_and_keep_the_last_good_checkpoint(
        self, make_trainer: Make, poisoned: Callable[..., Poisoned], tmp_path: Path
    ) -> None:
        settings = {"steps": 12, "checkpoint_every": 2, "skip_limit": 3}
        trainer, batches = make_trainer(learner=poisoned(2, 5, 6, 7, 8), **settings)
        good: dict[str, Tensor] = {}

        def watched() -> None:
            for report in trainer.run(batches):
                if report.step == 4:
                    good.update(state(trainer))

        with pytest.raises(DivergedError, match=r"3 steps in a row .* stopped at step 8") as caught:
            watched()
        assert "\n" not in str(caught.value)
        assert Path(str(caught.value).split()[-1]) == tmp_path / "run" / "checkpoints" / "step-00000004", "to copy"
        assert checkpoint.steps(tmp_path / "run" / "checkpoints") == [2, 4]
        again, _ = make_trainer(**settings)
        again.resume()
        assert_same(state(again), good)

    def test_an_absurd_rate_ends_so_too(self, make_trainer: Make) -> None:
        trainer, batches = make_trainer(steps=60, learning_rate=1e30, skip_limit=4)
        with pytest.raises(DivergedError, match=r"learning_rate below 1e\+30; there is no checkpoint to go"):
            list(trainer.run(batches))
        assert trainer.step < 20 and trainer.skipped >= 4

    @pytest.mark.parametrize("where", ["weights", "averages"])
    def test_weights_are_never_written_as_a_good_checkpoint(
        self, make_trainer: Make, tmp_path: Path, where: str
    ) -> None:
        trainer, batches = make_trainer(steps=12, checkpoint_every=2)
        reports = trainer.run(batches)
        for report in reports:
            if report.step == 4:
                break
        held = trainer.network.state_dict() if where == "weights" else trainer.ema.shadow
        held[trainer.ema.parameters[0]].view(-1)[0] = float("inf")
        with pytest.raises(DivergedError, match=r"is not finite at step 4.*step-00000002") as caught:
            list(reports)
        assert "\n" not in str(caught.value)
        assert checkpoint.steps(tmp_path / "run" / "checkpoints") == [2]


class TestAverage:
    def test_takes_in_the_weights_after_the_optimiser_s_step(self, make_trainer: Make) -> None:
        """θ̄ ← d θ̄ + (1 − d) θ_k from θ̄ = θ_0, in the decay's warm-up d = (1 + n)/(10 + n)."""
        trainer, batches = make_trainer(steps=3, ema=0.9)
        expected = {name: value.detach().clone() for name, value in trainer.network.named_parameters()}
        for n, _ in enumerate(trainer.run(batches)):
            decay = (1 + n) / (10 + n)
            now = {name: value.detach().clone() for name, value in trainer.network.named_parameters()}
            assert any(not torch.equal(now[name], expected[name]) for name in now), "nothing was trained"
            expected = {name: decay * expected[name] + (1 - decay) * now[name] for name in now}
            assert_same({name: trainer.ema.shadow[name] for name in now}, expected, rtol=1e-5, atol=1e-7)


class TestSignal:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_writes_a_checkpoint_that_resumes(self, make_trainer: Make, tmp_path: Path, number: signal.Signals) -> None:
        before = signal.getsignal(number)
        whole, batches = make_trainer("whole", steps=6)
        list(whole.run(batches))
        trainer, batches = make_trainer(steps=6)
        for report in trainer.run(batches):
            if report.step == 2:
                os.kill(os.getpid(), number)
        assert trainer.stopped == number
        assert trainer.step == 2, "the step is finished and no other begun"
        assert checkpoint.steps(tmp_path / "run" / "checkpoints") == [2]
        assert signal.getsignal(number) == before, "the handler stays behind"
        again, batches = make_trainer(steps=6)
        again.resume()
        list(again.run(batches))
        assert again.stopped is None
        assert_same(state(again), state(whole))


class TestCheckpoints:
    def test_are_written_when_due_and_at_the_end(self, make_trainer: Make, tmp_path: Path) -> None:
        trainer, batches = make_trainer(steps=7, checkpoint_every=3, keep=5)
        list(trainer.run(batches))
        assert checkpoint.steps(tmp_path / "run" / "checkpoints") == [3, 6, 7]

    def test_keep_bounds_how_many_there_are(self, make_trainer: Make, tmp_path: Path) -> None:
        trainer, batches = make_trainer(steps=7, checkpoint_every=1, keep=2)
        list(trainer.run(batches))
        assert checkpoint.steps(tmp_path / "run" / "checkpoints") == [6, 7]


class TestValidation:
    def test_is_the_same_for_the_same_weights_whatever_the_batch(self, make_trainer: Make) -> None:
        figures = []
        for micro_batch in (None, 1, 4):
            trainer, batches = make_trainer(f"run{micro_batch}", steps=2, micro_batch=micro_batch)
            source = make_trainer("weights", steps=2)[0]
            trainer.network.load_state_dict(source.network.state_dict())
            trainer.ema.shadow = source.ema.shadow
            held_out = batches[100]
            figures += [trainer.validate(held_out), trainer.validate(held_out)]
        assert figures[0] == figures[1] and figures[0]["validation_loss"] > 0
        for other in figures[2:]:
            assert other["validation_loss"] == pytest.approx(figures[0]["validation_loss"], rel=1e-5)

    def test_is_of_the_averaged_weights_and_leaves_training_as_it_was(self, make_trainer: Make) -> None:
        watched, batches = make_trainer("watched", steps=4)
        alone, _ = make_trainer("alone", steps=4)
        held_out = batches[100]
        seen = [watched.validate(held_out)["validation_loss"] for _ in watched.run(batches)]
        list(alone.run(batches))
        assert_same(state(watched), state(alone))
        assert len(set(seen)) == 4
        watched.network.load_state_dict(watched.ema.shadow)
        assert watched.validate(held_out)["validation_loss"] == seen[-1]

    def test_uses_neither_dropout_nor_gradients(self, make_trainer: Make) -> None:
        trainer, batches = make_trainer()
        torch.manual_seed(1)
        first = trainer.validate(batches[50])
        torch.manual_seed(2)
        assert trainer.validate(batches[50]) == first
        assert all(parameter.grad is None for parameter in trainer.network.parameters())


def test_what_is_compiled_is_compiled_once(
    make_trainer: Make, make_learner: MakeLearner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Validation and sampling, with their batches and mode, run as they are."""
    graphs, calls = [], []

    def backend(graph: Any, inputs: Any) -> Callable[..., Any]:
        graphs.append(graph)
        return lambda *given: calls.append(1) or graph(*given)

    learner = make_learner(dropout=0.0)
    monkeypatch.setattr(learner, "compile", lambda: learner.network.compile(backend=backend))
    trainer, batches = make_trainer(learner=learner, steps=3, compile=True)
    found = []
    for report in trainer.run(batches):
        found += [report.loss, trainer.validate(batches[100])["validation_loss"]]
        assert len(graphs) == 1 and len(calls) == report.step
    plain, batches = make_trainer("plain", make_learner(dropout=0.0), steps=3)
    expected = [
        v for report in plain.run(batches) for v in (report.loss, plain.validate(batches[100])["validation_loss"])
    ]
    assert found == pytest.approx(expected, rel=1e-5)


def test_training_learns(make_trainer: Make) -> None:
    trainer, batches = make_trainer(steps=60, learning_rate=3e-3, warmup=5)
    seen = losses(trainer.run(batches))
    assert sum(seen[-10:]) < 0.8 * sum(seen[:10])
