"""Every random draw comes from an explicit stream with a name, so that what is drawn depends on nothing else.

In sampling a stream is keyed by (image seed, role), in training by (run seed, step, global index): image i is the same
whatever the batch size, the number of processes or the images beside it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

Key = tuple[int | str, ...]


def stream_seed(*key: int | str) -> int:
    """A 63-bit seed that depends on every part of the key (BLAKE2b; Python's own hash differs between processes)."""
    return _digest(key, 8) >> 1


def _digest(key: Key, size: int) -> int:
    return int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=size).digest(), "little")


def stream(*key: int | str) -> np.random.Generator:
    """The generator of this key: Philox, keyed by 128 bits of it. (PyTorch's own on the CPU takes 32 bits of a seed,
    and among 50 000 of those some two are equal every third time.)"""
    return np.random.Generator(np.random.Philox(key=_digest(key, 16)))


class Draw:
    """One stream an image: `normal` and `uniform` draw for all of them, each image from its own.

    The draws are made on the CPU and moved, so that a seed means the same image on every device.
    """

    def __init__(self, keys: Iterable[Key]):
        self.keys = list(keys)
        self.generators = [stream(*key) for key in self.keys]

    @classmethod
    def for_seeds(cls, seeds: Sequence[int], role: str) -> Draw:
        """The streams of a sampling run: image seeds × a role such as "start" or "step"."""
        return cls((seed, role) for seed in seeds)

    def __len__(self) -> int:
        return len(self.generators)

    def normal(self, like: Float[Tensor, "n ..."]) -> Float[Tensor, "n ..."]:
        """Standard normal noise, shaped and placed like `like`."""
        noise = np.empty(like.shape, dtype=np.float32)
        for row, generator in zip(noise, self.generators, strict=True):
            generator.standard_normal(dtype=np.float32, out=row)
        return torch.from_numpy(noise).to(like.device, like.dtype)

    def uniform(self) -> Float64[Tensor, "n"]:
        """One number in [0, 1) an image."""
        return torch.tensor([generator.random() for generator in self.generators], dtype=torch.float64)
