"""The training loop: steps, averaged weights, checkpoints, resuming. It knows no diffusion, and it yields: logs,
progress bars and pictures watch it from outside."""

from __future__ import annotations

import json
import math
import signal
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from trilemma.errors import InputError
from trilemma.networks.recompute import recompute
from trilemma.process.noise import stream_seed
from trilemma.training import checkpoint
from trilemma.training.batches import Batch, Batches
from trilemma.training.ema import EMA
from trilemma.training.learners import Learner, Outcome
from trilemma.training.micro_batches import Fit, measured_micro_batch
from trilemma.training.settings import TrainingSettings
from trilemma.training.shards import held_as, part, whole
from trilemma.training.updates import Updates


class DivergedError(RuntimeError):
    """Too many non-finite steps in a row, or weights that are not finite. The last good checkpoint is kept."""


@dataclass(frozen=True, repr=False)
class Report:
    """What one step gave. `step` counts finished steps (1…); `outcome` holds the whole global batch's losses, or None
    where the step was skipped as non-finite; `grad_norms` by optimiser, before clipping, of those
    that made an update; `skipped` counts those so far."""

    step: int
    outcome: Outcome | None
    grad_norms: Mapping[str, float]
    learning_rate: float
    skipped: int

    def __repr__(self) -> str:
        return f"Report(step {self.step}, loss {self.loss:.4g}, learning rate {self.learning_rate:.3g})"

    @property
    def grad_norm(self) -> float:
        """Over all of the step's updates."""
        return math.hypot(*self.grad_norms.values())

    @property
    def loss(self) -> float:
        """The mean over images, unweighted; NaN of a skipped step."""
        return math.nan if self.outcome is None else float(self.outcome.each.double().mean())


class Trainer:
    """Trains a learner's network on batches, from where the run directory's newest checkpoint left off.

    Every process of a distributed run builds the same Trainer; process 0 writes. `recipe`: what each checkpoint says of
    how it came about, as JSON. Without a `directory` nothing is written. On SIGTERM or SIGINT the step is finished, a
    checkpoint written, and `stopped` says by which signal. `watching`: JSON values of whoever watches the reports, kept
    with each checkpoint.
    """

    def __init__(
        self,
        learner: Learner,
        settings: TrainingSettings,
        accelerator: Accelerator,
        directory: Path | None,
        recipe: Any = None,
    ):
        self.learner, self.settings, self.accelerator = learner, settings, accelerator
        self.checkpoints, self.recipe = directory and directory / "checkpoints", recipe
        self.step, self.skipped, self.seconds, self._bad_in_a_row = 0, 0, 0.0, 0
        self.watching: dict[str, Any] = {}
        self.stopped: signal.Signals | None = None
        self.network = learner.network.to(accelerator.device)
        if settings.recompute:
            recompute(self.network)
        if settings.channels_last:
            self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if settings.compile:
            learner.compile()
        # This gives all processes the weights of the first, from which the average is to begin.
        self.updates = Updates(learner, settings, accelerator)
        self.ema = EMA(learner.averaged, settings.ema) if settings.ema else None
        self._fits: dict[int, Fit] = {}

    def resume(self, verify: bool = True) -> None:
        """Go on from the newest checkpoint of the run directory; unless `verify` is False, its files' hashes are looked
        at. Raises InputError if there is none or it is damaged."""
        assert self.checkpoints is not None
        if self.accelerator.is_main_process:
            checkpoint.clean(self.checkpoints, self.settings.keep)
        self.accelerator.wait_for_everyone()
        path = checkpoint.latest(self.checkpoints)
        state = checkpoint.read_state(path, verify)
        for key in sorted(checkpoint.FIELDS.keys() - checkpoint.OPTIONAL - state.keys()):
            raise InputError(f"{path}/state.json: {key} is missing: the checkpoint is damaged")
        checkpoint.load_weights(self.network, path / "model.safetensors")
        place = path / "optimizer.safetensors"
        optimizer = checkpoint.read_tensors(place)
        if len(optimizer) != state.get("optimizer_tensors", len(optimizer)) or (
            not optimizer and state["step"] > state["skipped"] and self.updates.optimizers
        ):
            raise InputError(f"{place} is not whole ({len(optimizer)} tensors): the checkpoint is damaged")
        checkpoint.load_optimizers(self.updates.optimizers.values(), self.network, optimizer, place)
        if self.ema is not None:
            shadow = checkpoint.read_tensors(path / "ema.safetensors")
            checkpoint.check_tensors(path / "ema.safetensors", "average", shadow, self.ema.shadow)
            self.ema.shadow = {
                name: held_as(v, shadow[name].to(v.device, v.dtype)) for name, v in self.ema.shadow.items()
            }
            self.ema.updates = state["ema_updates"]
        learnt = path / "learner.safetensors"
        tensors = checkpoint.read_tensors(learnt) if learnt.exists() else {}
        own_tensors, own = checkpoint.split_state(self.learner.state_dict())
        checkpoint.check_tensors(learnt, "state", tensors, own_tensors)
        checkpoint.check_like(path / "state.json", state["learner"], json.loads(json.dumps(own)))
        self.learner.load_state_dict(checkpoint.join_state(tensors, state["learner"]))
        self.step, self.skipped, self.seconds = state["step"], state["skipped"], state["seconds"]
        self.watching = state.get("watching", {})

    @property
    def safe(self) -> str:
        """What there is to go back to, in words that end with its folder: nothing sticks to a path that is copied."""
        found = checkpoint.steps(self.checkpoints) if self.checkpoints is not None else []
        if self.checkpoints is None or not found:
            return "there is no checkpoint to go back to"
        return f"the last good checkpoint is {checkpoint.path_of(self.checkpoints, found[-1])}"

    @property
    def _remedy(self) -> str:
        lower = f"Try training.learning_rate below {self.settings.learning_rate:g}"
        return lower if self.settings.precision == "fp32" else f"{lower}, or training.precision fp32"

    def _check_finite(self) -> None:
        values: dict[str, Tensor] = {f"weight {name!r}": weight for name, weight in self.network.named_parameters()}
        if self.ema is not None:
            values |= {f"the average of {name!r}": self.ema.shadow[name] for name in self.ema.parameters}
        finite = torch.stack([torch.isfinite(part(value)).all() for value in values.values()]).int()
        if self.updates.shards is not None:  # a process sees its own parts alone
            finite = self.accelerator.gather(finite[None]).amin(0)
        for name, good in zip(values, finite.tolist(), strict=True):
            if not good:
                raise DivergedError(
                    f"{name} is not finite at step {self.step}: no checkpoint is written of that. {self._remedy}; "
                    f"{self.safe}"
                )

    def save(self) -> None:
        """Write a checkpoint of this moment (process 0; the others wait for it). Raises DivergedError, and writes none,
        where weights or averages are not finite; InputError where it cannot be written."""
        if self.checkpoints is None:
            return
        self._check_finite()
        groups, learnt = self.tensors()
        if self.accelerator.is_main_process:
            state = {
                # Every stream is keyed by (seed, step, position): seed and step are the random state and the data's
                # position.
                "seed": self.settings.seed,
                "images": self.step * self.settings.batch,
                "skipped": self.skipped,
                "seconds": self.seconds,
                "ema_updates": self.ema.updates if self.ema else 0,
                "learner": learnt,
                "watching": self.watching,
                "optimizer_tensors": len(groups["optimizer"]),
            }
            documents = {"state": state} if self.recipe is None else {"state": state, "recipe": self.recipe}
            checkpoint.write(self.checkpoints, self.step, groups, documents, self.settings.keep)
        self.accelerator.wait_for_everyone()

    def tensors(self) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
        """What a checkpoint of this moment holds: tensors, by file, and the learner's state besides. Of weights in
        parts, which every process has to be there for, process 0 alone gets the tensors."""
        tensors, learnt = checkpoint.split_state(self.learner.state_dict())
        groups = {
            "model": self.network.state_dict(),
            "optimizer": checkpoint.optimizer_tensors(self.updates.optimizers.values(), self.network),
        }
        if self.ema is not None:
            groups["ema"] = self.ema.shadow
        if tensors:
            groups["learner"] = tensors
        keep = self.updates.shards is None or self.accelerator.is_main_process
        return {name: whole(group, keep) for name, group in groups.items()}, learnt

    def run(self, batches: Batches) -> Generator[Report, None, None]:
        """Train to the end of the settings' steps, yielding after each. The last step is always checkpointed."""
        self.updates.batches = batches
        self.fitted(batches)
        with self._signals():
            began = time.perf_counter()
            for batch in batches.loader(self.step, self.settings.steps, self.settings.workers):
                report = self._step(batch.to(self.accelerator.device))
                self.seconds += time.perf_counter() - began
                # Before the checkpoint: what a step logs must not be lost where a run is killed between the two.
                yield report
                finished = self.step == self.settings.steps
                diverged = self._bad_in_a_row >= self.settings.skip_limit
                due = self.step % self.settings.checkpoint_every == 0 and not self._bad_in_a_row
                stop = self._agree_to_stop()
                if (due or finished or stop) and not diverged:
                    self.save()
                if diverged:
                    raise DivergedError(
                        f"{self._bad_in_a_row} steps in a row gave non-finite losses or gradients "
                        f"(training.skip_limit); stopped at step {self.step}. {self._remedy}; {self.safe}"
                    )
                if stop:
                    return
                began = time.perf_counter()

    def fitted(self, batches: Batches) -> Fit | None:
        """The micro-batch that memory holds, where the settings leave it to that (`auto`) and there are steps left;
        measured once for batches of a size. Raises InputError where not one image fits."""
        steps, share = range(self.step, self.settings.steps), len(batches.mine)
        if self.settings.micro_batch != "auto" or not steps:
            return None
        if share not in self._fits:
            self._fits[share] = measured_micro_batch(self.updates, batches, steps)
        self.updates.micro_batch = self._fits[share].images
        return self._fits[share]

    def _step(self, batch: Batch) -> Report:
        # Dropout draws from the global generators: seeded by step, a resumed run drops what an unbroken one would.
        torch.manual_seed(stream_seed(self.settings.seed, "dropout", self.step, self.accelerator.process_index))
        self.network.train()
        if self.learner.begin(self.step) and self.ema is not None:
            self.ema.updates = 0  # its decay warms up once more
        outcome = self.updates.of_step(self.step, batch)
        if self.ema is not None and self.updates.changed(self.ema.module):
            self.ema.update()
        self._bad_in_a_row = self._bad_in_a_row + 1 if outcome is None else 0
        self.skipped += outcome is None
        self.step += 1
        return Report(self.step, outcome, self.updates.norms, self.settings.rate(self.step - 1), self.skipped)

    @torch.no_grad()
    def validate(self, batch: Batch) -> dict[str, float]:
        """The learner's figures on held-out images, with the averaged weights if they are kept. Every process calls it
        and gets the same figures: they are computed on each, which costs less than it would to agree."""
        figures: dict[str, list[Tensor]] = {}
        with self.averaged(), self.accelerator.autocast():
            for some in batch.split(self.updates.micro_batch or 64):
                for name, value in self.learner.validate(some.to(self.accelerator.device)).items():
                    figures.setdefault(name, []).append(value)
        return {name: float(torch.cat(values).double().mean()) for name, values in figures.items()}

    @contextmanager
    def averaged(self) -> Iterator[nn.Module]:
        """The network with its averaged weights (its own, if no average is kept), in evaluation mode."""
        self.network.eval()
        # What is compiled for training is run as it is: another batch and mode would be compiled once more.
        eager = torch.compiler.set_stance("force_eager") if self.settings.compile else nullcontext()
        averaged = self.ema.applied() if self.ema is not None else nullcontext()
        # Whoever is given it calls what of it they like, in as many processes as they like.
        gathered = self.updates.shards.gathered() if self.updates.shards is not None else nullcontext()
        with eager, averaged, gathered:
            yield self.network

    @contextmanager
    def _signals(self) -> Iterator[None]:
        def note(number: int, frame: Any) -> None:
            self.stopped = signal.Signals(number)

        before: dict[int, Callable[..., Any] | int | None] = {}
        try:
            for number in (signal.SIGTERM, signal.SIGINT):
                before[number] = signal.signal(number, note)
        except ValueError:
            pass  # not in the main thread: signals are the caller's business
        try:
            yield
        finally:
            for which, handler in before.items():
                signal.signal(which, handler)

    def _agree_to_stop(self) -> bool:
        """Whether any process was told to stop: they must all stop after the same step."""
        if self.accelerator.num_processes == 1:
            return self.stopped is not None
        told = torch.tensor(int(self.stopped or 0), device=self.accelerator.device)
        worst = int(self.accelerator.gather(told.reshape(1)).max())
        self.stopped = signal.Signals(worst) if worst else None
        return bool(worst)
