"""Updates: what the loop does for a learner's step. Gradients over micro-batches and processes, and the optimisers'
steps."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from torch import Tensor, nn
from torch.optim import Optimizer

from trilemma.errors import InputError
from trilemma.training.batches import Batch, Batches
from trilemma.training.learners import Learner, Losses, Outcome
from trilemma.training.settings import TrainingSettings
from trilemma.training.shards import Shards


class _NotFiniteError(RuntimeError):
    """An update that is not made; it ends the learner's step."""


class _Losses(nn.Module):
    """A network as a module whose forward pass is a loss: processes are made to agree on gradients around what a
    learner does, and nothing in the learner is wrapped."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, losses: Losses, part: Batch) -> tuple[Tensor, Outcome]:
        outcome = losses(part)
        return outcome.loss, outcome  # shards look for the tensor that gradients come from


class Updates:
    """The updates of a learner's steps, see `Loop`. `batches`: where other batches of a step are drawn from;
    `micro_batch`: the most images at once, all if None; `shards`: where weights lie in parts, those."""

    batches: Batches

    def __init__(self, learner: Learner, settings: TrainingSettings, accelerator: Accelerator):
        self.learner, self.settings, self.accelerator = learner, settings, accelerator
        self.network = learner.network
        self.shards: Shards | None = None
        self.micro_batch = settings.micro_batch if isinstance(settings.micro_batch, int) else None
        self.optimizers, self._through = dict(learner.optimizers(settings)), dict[str, nn.Module]()
        if settings.shard and accelerator.num_processes > 1:
            check_shard(settings, self.optimizers)
            through = _Losses(self.network)
            self.shards = Shards(through, accelerator)
            self._through = dict.fromkeys(self.optimizers, through)
            self.optimizers = dict(learner.optimizers(settings))  # of the parts
            return
        if learner.partial:  # or the processes would wait for gradients that never come
            accelerator.ddp_handler = DistributedDataParallelKwargs(find_unused_parameters=True)
        for name, optimizer in self.optimizers.items():
            with self._alone(weights_of(optimizer)):
                self._through[name] = accelerator.prepare_model(_Losses(self.network))

    def of_step(self, step: int, batch: Batch) -> Outcome | None:
        """Have the learner make its step; None where an update was not finite. `norms`: of the step's gradients before
        clipping, by optimiser."""
        self.step = step
        self.norms: dict[str, float] = {}
        self._updated: set[Tensor] = set()
        try:
            return self.learner.step(batch, self)
        except _NotFiniteError:
            return None

    def changed(self, module: nn.Module) -> bool:
        """Whether the step has updated weights of this module."""
        return not self._updated.isdisjoint(module.parameters())

    def descend(self, losses: Losses, batch: Batch, optimizer: str = "optimizer") -> Outcome:
        """One update: see `Loop`."""
        settings, chosen, through = self.settings, self.optimizers[optimizer], self._through[optimizer]
        weights, buffers = weights_of(chosen), [buffer.clone() for buffer in self.network.buffers()]
        chosen.zero_grad(set_to_none=True)
        parts = batch.split(self.micro_batch)
        outcomes = []
        with self._alone(weights):
            for i, part in enumerate(parts):
                # Parts of weights have no room for whole gradients, which waiting for the last would take.
                at_once = i == len(parts) - 1 or self.shards is not None
                with nullcontext() if at_once else self.accelerator.no_sync(through):
                    with self.accelerator.autocast():
                        loss, outcome = through(losses, part)
                    self.accelerator.backward(loss * (len(part) / len(batch)))
                outcomes.append(outcome)
        if self.shards is not None:
            self.shards.average_whole()
        outcome = self._global(outcomes)
        limit = settings.clip_norm or float("inf")
        norm = math.hypot(*(self._clipped(group["params"], limit) for group in chosen.param_groups))
        self.norms[optimizer] = math.hypot(self.norms.get(optimizer, 0.0), norm)
        if not (math.isfinite(norm) and bool(torch.isfinite(outcome.loss))):
            # Batch statistics have taken the non-finite values in during the forward pass.
            for buffer, before in zip(self.network.buffers(), buffers, strict=True):
                buffer.copy_(before)
            raise _NotFiniteError
        for group in chosen.param_groups:
            group["lr"] = group.setdefault("initial_lr", group["lr"]) * settings.factor(self.step)
        chosen.step()
        self._updated.update(weights)
        return outcome

    def tried(self, losses: Losses, part: Batch, optimizer: str = "optimizer") -> Outcome:
        """The losses of a part of a batch and their gradients, of this process alone, and no update."""
        with self._alone(weights_of(self.optimizers[optimizer])):
            with self.accelerator.autocast():
                outcome = self.looked_at(losses, part)
            self.accelerator.backward(outcome.loss)
        return outcome

    @torch.no_grad()
    def unseen(self, losses: Losses, count: int) -> Iterator[Outcome]:
        """Losses without training: see `Loop`."""
        for batch in self.batches.extra(self.step, count):
            with self.accelerator.autocast():
                parts = batch.to(self.accelerator.device).split(self.micro_batch)
                outcome = self._global([self.looked_at(losses, part) for part in parts])
            if bool(torch.isfinite(outcome.loss)):
                yield outcome

    def looked_at(self, losses: Losses, part: Batch) -> Outcome:
        """The losses of a part of a batch, of this process alone."""
        if self.shards is None:
            return losses(part)
        (through,) = self._through.values()
        return through(losses, part)[1]

    def _clipped(self, weights: list[Tensor], limit: float) -> float:
        """The norm of these weights' gradients, which are then scaled to no more than the limit."""
        if self.shards is not None:
            return self.shards.clip(weights, limit)
        return float(torch.nn.utils.clip_grad_norm_(weights, limit))

    @contextmanager
    def _alone(self, weights: list[Tensor]) -> Iterator[None]:
        """No others take gradients."""
        chosen = set(weights)
        others = [weight for weight in self.network.parameters() if weight.requires_grad and weight not in chosen]
        for weight in others:
            weight.requires_grad_(False)
        try:
            yield
        finally:
            for weight in others:
                weight.requires_grad_(True)

    def _global(self, outcomes: list[Outcome]) -> Outcome:
        """The losses of all parts and all processes, in the order of the global batch."""

        def everyone_s(values: list[Tensor]) -> Tensor:
            return self.accelerator.gather(torch.cat(values).to(self.accelerator.device))

        each = everyone_s([o.each for o in outcomes])
        loss = self.accelerator.reduce(torch.stack([o.loss.detach() * len(o.each) for o in outcomes]).sum(), "sum")
        times = [o.times for o in outcomes if o.times is not None]
        parts = {name: everyone_s([o.parts[name] for o in outcomes]) for name in outcomes[0].parts}
        gathered = (
            None if not times else everyone_s(times).cpu() if self.accelerator.num_processes > 1 else torch.cat(times)
        )
        return Outcome(loss / len(each), each, gathered, parts, outcomes[0].figures)


def check_shard(settings: TrainingSettings, optimizers: Mapping[str, Optimizer]) -> None:
    """Raises InputError for what cannot be trained in parts."""
    if len(optimizers) > 1:
        raise InputError(
            f"training.shard true: networks of several optimisers ({', '.join(sorted(optimizers))}) take turns at "
            "gradients, which weights in parts do not; expected false"
        )
    if settings.compile:
        raise InputError("training.compile true: weights in parts (training.shard) are not compiled; expected false")


def weights_of(optimizer: Optimizer) -> list[Tensor]:
    """The parameters that an optimiser trains."""
    return [weight for group in optimizer.param_groups for weight in group["params"]]
