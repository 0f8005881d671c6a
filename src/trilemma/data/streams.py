"""Images that can only be read forward: archives behind a URL, and data sets that are streamed."""

from __future__ import annotations

import io
import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple, Protocol

import numpy as np
from jaxtyping import Int64

from trilemma.data.stores import LabelledStore
from trilemma.errors import InputError
from trilemma.machine.progress import progress

BUFFER = 1024
"""Images that are shuffled together; twice as many are held, as files. WebDataset's users take 1 000 to 5 000."""

OPEN = 8
"""Shards that are open at a time: all that a buffer's images come from, unless they are smaller than BUFFER / OPEN."""


class Sample(NamedTuple):
    """An image's file, and its class, where it has one."""

    content: bytes
    label: int | None


class Shard(Protocol):
    """A part of a stream, which begins anew whenever it is asked for."""

    def __iter__(self) -> Iterator[Sample]: ...

    def labels(self) -> Iterator[int | None]:
        """Those of all samples, by less work, if there is a way, than by reading the images."""
        ...


class StreamStore(LabelledStore):
    """The images of shards as files by number, in the shards' order. Reading forward is what costs least; what lies
    behind makes its shard be read from its beginning again. A shard that breaks off is taken up again once.

    `splits`: one for each shard. Opening takes one pass for the labels, which says what there is.

    Raises:
        InputError: there are no images, or a shard cannot be read.
    """

    def __init__(
        self,
        where: str,
        shards: Sequence[Shard],
        classes: tuple[str, ...] | None = None,
        splits: Sequence[str] | None = None,
    ) -> None:
        self.shards, self.classes = shards, classes
        self._reading = _Reading()
        found: list[int] = []
        counts: list[int] = []
        with progress(f"labels of {where}", len(shards), "shards", shown=_is_first()) as advance:
            for number, shard in enumerate(shards):
                before = len(found)
                with _naming(where, number):
                    found += [-1 if label is None else label for label in shard.labels()]
                counts.append(len(found) - before)
                advance(number + 1, "")
        self.labels = np.array(found, dtype=np.int64)
        self.splits = None if splits is None else tuple(np.repeat(splits, counts).tolist())
        self._starts = np.concatenate([[0], np.cumsum(counts)])
        super().__init__(Path(where), [f"{number:09d}" for number in range(len(found))])
        self._where = where

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_reading": _Reading()}

    def shard_of(self, numbers: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
        """The shard that each image lies in."""
        return np.searchsorted(self._starts, numbers, side="right") - 1

    def label(self, name: str) -> str:
        return f"{self._where}: image {int(name)}"

    def open(self, name: str) -> IO[bytes]:
        return io.BytesIO(self.read(name))

    def read(self, name: str) -> bytes:
        number = int(name)
        if self._reading.process != os.getpid():  # a worker shares no connection with the one that it was forked from
            self._reading = _Reading()
        if number not in self._reading.held:
            shard = int(self.shard_of(np.array([number]))[0])
            with _naming(self._where, shard):
                try:
                    self._advance(shard, number)
                except InputError:
                    raise
                except Exception:  # a connection that was idle for long has ended
                    self._advance(shard, number)
        return self._reading.held[number]

    def _advance(self, shard: int, number: int) -> None:
        """Read the shard on as far as the image."""
        reading = self._reading
        at, samples = reading.opened.pop(shard, (int(self._starts[shard]), iter(())))
        if at > number or at == self._starts[shard]:
            at, samples = int(self._starts[shard]), iter(self.shards[shard])
        while at <= number:
            found = next(samples, None)
            if found is None:
                raise InputError(f"{self._where}: shard {shard} has fewer images than when it was opened")
            reading.hold(at, found.content)
            at += 1
        reading.opened[shard] = at, samples
        if len(reading.opened) > OPEN:
            reading.opened.popitem(last=False)


class _Reading:
    """Where a process stands in the shards, and the last images that it passed."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self.opened: OrderedDict[int, tuple[int, Iterator[Sample]]] = OrderedDict()
        self.held: OrderedDict[int, bytes] = OrderedDict()

    def hold(self, number: int, content: bytes) -> None:
        self.held[number] = content
        self.held.move_to_end(number)
        if len(self.held) > 2 * BUFFER:
            self.held.popitem(last=False)


def order(shards: Int64[np.ndarray, " n"], rng: np.random.Generator) -> Int64[np.ndarray, " n"]:
    """An epoch's order of images that lie in these shards: the shards in random order, each read from its beginning,
    and every `BUFFER` images in a row, the last of one shard with the first of the next, shuffled among themselves."""
    present = np.unique(shards)
    queue = np.concatenate([np.flatnonzero(shards == shard) for shard in rng.permutation(present)])
    for start in range(0, len(queue), BUFFER):
        queue[start : start + BUFFER] = rng.permutation(queue[start : start + BUFFER])
    return queue


def _is_first() -> bool:
    """Whether this is the process that speaks, of those that a launcher started."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def _naming(where: str, shard: int) -> Iterator[None]:
    """Whatever goes wrong names the shard."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # libraries raise all there is over networks and damaged files
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{where}: shard {shard} cannot be read ({reason[:300]})") from error
