"""Which images make up the batch of step k: a pure function of (seed, step), so that a resumed run sees what an
unbroken one would have, and P processes see the slices of the one global batch."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float, Int64
from torch import Tensor, from_numpy
from torch.utils.data import DataLoader, Dataset

from trilemma.errors import InputError
from trilemma.process.noise import Draw, Key, stream_seed


class Source(Protocol):
    """Where images come from: `batch(indices)` gives uint8 NHWC images and int64 labels or None; or what they are
    encoded to, if it says by a source `mirrored` what the flipped ones are. One that is `streamed` has its own `order`,
    a permutation that the generator draws."""

    in_memory: bool

    def __len__(self) -> int: ...

    def batch(self, indices: Any) -> tuple[np.ndarray, np.ndarray | None]: ...


@dataclass(frozen=True)
class Batch:
    """Images in the model's range, their labels, and the key of each image's own stream of noise."""

    images: Float[Tensor, "n c h w"]
    labels: Int64[Tensor, "n"] | None
    keys: list[Key]

    def __len__(self) -> int:
        return len(self.keys)

    def draw(self) -> Draw:
        """The images' own streams."""
        return Draw(self.keys)

    def split(self, size: int | None) -> list[Batch]:
        """Parts of at most `size` images."""
        parts = range(0, len(self), size or len(self))
        cut = [slice(i, i + (size or len(self))) for i in parts]
        return [Batch(self.images[c], None if self.labels is None else self.labels[c], self.keys[c]) for c in cut]

    def to(self, device: Any) -> Batch:
        labels = None if self.labels is None else self.labels.to(device, non_blocking=True)
        return Batch(self.images.to(device, non_blocking=True), labels, self.keys)


def _unstopped(worker: int) -> None:
    """Loading processes leave signals to the one that trains: it finishes the step and ends them."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


class Batches(Dataset[Batch]):
    """Step -> this process's share of the global batch: epochs are permutations keyed by (seed, epoch) that run on
    across batches, so that no image is dropped or seen twice within an epoch.

    Raises InputError if the data has fewer images than a batch, or the processes do not divide the batch."""

    def __init__(
        self,
        source: Source,
        transform: Callable[[np.ndarray], Float[Tensor, "n c h w"]],
        *,
        batch: int,
        seed: int,
        flip: bool = False,
        rank: int = 0,
        processes: int = 1,
    ):
        if len(source) < batch:
            raise InputError(
                f"training.batch {batch} is more than the {len(source)} images of the data: "
                f"expected 1 to {len(source)} (nearest: {len(source)})"
            )
        if batch % processes:
            raise InputError(f"training.batch {batch} is not a multiple of the {processes} processes")
        self.source, self.transform, self.seed, self.flip = source, transform, seed, flip
        self.batch, self.mine = batch, range(rank * batch // processes, (rank + 1) * batch // processes)
        self._permutation = lru_cache(maxsize=2)(self._permute)

    def _permute(self, epoch: int) -> np.ndarray:
        rng = np.random.default_rng(stream_seed(self.seed, "epoch", epoch))
        return getattr(self.source, "order", lambda rng: rng.permutation(len(self.source)))(rng)

    def indices(self, step: int) -> list[int]:
        """The data's indices of this process's share at this step."""
        count = len(self.source)
        positions = (step * self.batch + j for j in self.mine)
        return [int(self._permutation(p // count)[p % count]) for p in positions]

    def __getitem__(self, step: int) -> Batch:
        return self._made(self.indices(step), "train", step)

    def extra(self, step: int, count: int) -> Iterator[Batch]:
        """So many more batches of a step, of images drawn with replacement: what the learner is told the losses of
        without being trained on them."""
        for i in range(count):
            draw = np.random.default_rng(stream_seed(self.seed, "extra", step, i))
            chosen = draw.integers(len(self.source), size=self.batch)[self.mine.start : self.mine.stop]
            yield self._made(chosen.tolist(), f"extra {i}", step)

    def _made(self, indices: list[int], role: str, step: int) -> Batch:
        images, labels = self.source.batch(indices)
        if self.flip:
            turned = np.random.default_rng(stream_seed(self.seed, "flip", role, step)).random(self.batch) < 0.5
            turned = turned[self.mine.start : self.mine.stop]
            other = getattr(self.source, "mirrored", None)
            mirrored = images[:, :, ::-1] if other is None else other.batch(indices)[0]
            images = np.where(turned[:, None, None, None], mirrored, images)
        keys: list[Key] = [(self.seed, role, step, j) for j in self.mine]
        return Batch(self.transform(images), None if labels is None else from_numpy(labels.astype(np.int64)), keys)

    def loader(self, start: int, steps: int, workers: int) -> Iterator[Batch]:
        """The batches of steps start…steps − 1, loaded ahead by `workers` processes unless the data is in memory."""
        if getattr(self.source, "streamed", False):
            workers = min(workers, 1)  # each reads all of a stream
        workers = 0 if self.source.in_memory else workers
        loader = DataLoader(
            self, sampler=range(start, steps), batch_size=None, num_workers=workers, worker_init_fn=_unstopped
        )
        return iter(loader)
