"""Updates: what the loop does for a learner's step. Gradients over micro-batches and processes, and the optimisers'
steps."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from torch import Tensor, nn
from torch.optim import Optimizer

from trilemma.training.batches import Batch, Batches
from trilemma.training.learners import Learner, Losses, Outcome
from trilemma.training.settings import TrainingSettings


class _NotFiniteError(RuntimeError):
    """An update that is not made; it ends the learner's step."""


class _Losses(nn.Module):
    """A network as a module whose forward pass is a loss: processes are made to agree on gradients around what a
    learner does, and nothing in the learner is wrapped."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, losses: Losses, part: Batch) -> Outcome:
        return losses(part)


class Updates:
    """The updates of a learner's steps, see `Loop`. `batches`: where other batches of a step are drawn from."""

    batches: Batches

    def __init__(self, learner: Learner, settings: TrainingSettings, accelerator: Accelerator):
        self.learner, self.settings, self.accelerator = learner, settings, accelerator
        self.network = learner.network
        self.optimizers = dict(learner.optimizers(settings))
        if learner.partial:  # or the processes would wait for gradients that never come
            accelerator.ddp_handler = DistributedDataParallelKwargs(find_unused_parameters=True)
        self._through: dict[str, nn.Module] = {}
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
        parts = batch.split(settings.micro_batch)
        outcomes = []
        with self._alone(weights):
            for i, part in enumerate(parts):
                with nullcontext() if i == len(parts) - 1 else self.accelerator.no_sync(through):
                    with self.accelerator.autocast():
                        outcome = through(losses, part)
                    self.accelerator.backward(outcome.loss * (len(part) / len(batch)))
                outcomes.append(outcome)
        outcome = self._global(outcomes)
        limit = settings.clip_norm or float("inf")
        groups = [group["params"] for group in chosen.param_groups]
        norm = math.hypot(*(float(torch.nn.utils.clip_grad_norm_(group, limit)) for group in groups))
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

    @torch.no_grad()
    def unseen(self, losses: Losses, count: int) -> Iterator[Outcome]:
        """Losses without training: see `Loop`."""
        for batch in self.batches.extra(self.step, count):
            with self.accelerator.autocast():
                parts = batch.to(self.accelerator.device).split(self.settings.micro_batch)
                outcome = self._global([losses(part) for part in parts])
            if bool(torch.isfinite(outcome.loss)):
                yield outcome

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


def weights_of(optimizer: Optimizer) -> list[Tensor]:
    """The parameters that an optimiser trains."""
    return [weight for group in optimizer.param_groups for weight in group["params"]]
