"""Sampling of a run: a plan of what will be done, images from seeds, and large sets in parts that an interrupted job
takes up again."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from trilemma.data import check_out, read_samples, to_model, to_uint8, write_samples
from trilemma.errors import InputError, shown
from trilemma.process import Condition, Denoiser, Draw
from trilemma.recipes import SamplingSettings, construct, parse_sampling
from trilemma.runs.devices import process_state
from trilemma.runs.environment import environment
from trilemma.runs.progress import progress
from trilemma.samplers import Clip, Kernel, Step, cut, explicit, grid, noise_start, surrogate_start, walk
from trilemma.untrusted import parse_json, read_text


@dataclass(frozen=True)
class Samples:
    """Generated images: uint8 NHWC, the class asked of each (None: unconditional), the seed of each; where they lie,
    and the record of how they were made."""

    images: UInt8[np.ndarray, "n h w c"]
    labels: Int64[np.ndarray, "n"] | None
    seeds: list[int]
    path: Path | None = None
    record: dict[str, Any] | None = None

    def __len__(self) -> int:
        return len(self.images)


def overridden(settings: SamplingSettings, **changes: Any) -> SamplingSettings:
    """The settings with those changes that are not None. Another sampler begins from its own defaults: every step, an
    even grid; the recipe's steps and kernel arguments belong to the recipe's sampler."""
    given = {key: value for key, value in changes.items() if value is not None}
    base = settings.model_dump()
    if "times" in given:
        base |= {"steps": None, "skip": 0}
    elif given.keys() & {"steps", "grid", "skip"}:
        base |= {"times": None}
    if given.get("name", settings.name) != settings.name:
        base |= {"steps": None, "grid": "even", "skip": 0, "times": None, "kernel": {}}
    return parse_sampling({**base, **given})


Surrogate = Callable[[Sequence[int], Int64[np.ndarray, "n"] | None], UInt8[np.ndarray, "n h w c"]]
"""(seeds, labels) -> images: whatever makes the images that a surrogate start noises."""


@dataclass(frozen=True)
class Start:
    """A surrogate, the time that its images are noised to, and what records say of it."""

    images: Surrogate
    t_mid: float
    record: dict[str, Any]


FORMAT = "trilemma-samples/1"

DYNAMIC_QUANTILE = 0.995
"""The quantile of |x̂_0| of dynamic thresholding (Saharia et al. 2022)."""


@dataclass(frozen=True)
class Sampler:
    """A denoiser, a kernel and a grid: images from seeds. Image i depends on its own seed alone."""

    denoiser: Denoiser
    kernel: Kernel
    times: Tensor
    shape: tuple[int, int, int]
    range: tuple[float, float]
    precision: str
    device: torch.device
    surrogate: Start | None = None

    @classmethod
    def of(
        cls,
        denoiser: Denoiser,
        settings: SamplingSettings,
        shape: tuple[int, int, int],
        range: tuple[float, float],
        device: torch.device,
    ) -> Sampler:
        kernel = construct("sampler", {"name": settings.name, **settings.kernel})
        quantile = DYNAMIC_QUANTILE if settings.clip == "dynamic" else 1.0
        kernel = replace(kernel, clip=None if settings.clip == "none" else Clip(*range, quantile))
        if settings.times is not None:
            times = explicit(denoiser.schedule, settings.times)
        else:
            times = grid(denoiser.schedule, settings.steps, settings.grid, settings.skip)
        if kernel.needs_signal and float(denoiser.schedule.alpha(times[0])) == 0:
            raise InputError(
                f"sampler {settings.name!r} is undefined where the schedule's SNR is 0, which its grid starts at: use "
                "ancestral or ddim, or leave the first time out (skip 1)"
            )
        return cls(denoiser, kernel, times, shape, range, settings.precision, device)

    def after(self, surrogate: Start) -> Sampler:
        """This sampler begun at the surrogate's t_mid from its images, instead of at noise."""
        return replace(self, times=cut(self.denoiser.schedule, self.times, surrogate.t_mid), surrogate=surrogate)

    @property
    def evaluations(self) -> int:
        """Network evaluations an image takes."""
        intervals = len(self.times) - 1
        return self.kernel.evaluations(intervals) if intervals else 0

    def steps(self, seeds: Sequence[int], labels: Int64[np.ndarray, "n"] | None) -> Iterator[Step]:
        """Every step of the walk for these seeds."""
        condition = Condition(None if labels is None else torch.from_numpy(labels).to(self.device))
        start = self._start(seeds, labels)
        steps = walk(self.kernel, self.denoiser.bind(condition), self.times, start, Draw.for_seeds(seeds, "step"))
        mixed = self.precision == "bf16"
        while True:
            # The context is entered for each step: held across a yield it would leak into whoever watches.
            with torch.autocast(self.device.type, torch.bfloat16, enabled=mixed):
                step = next(steps, None)
            if step is None:
                return
            yield step

    def _start(self, seeds: Sequence[int], labels: Int64[np.ndarray, "n"] | None) -> Tensor:
        schedule = self.denoiser.schedule
        if self.surrogate is None:
            return noise_start(schedule, seeds, self.shape, self.device)
        images = to_model(self.surrogate.images(seeds, labels), self.range)
        if tuple(images.shape) != (len(seeds), *self.shape):
            raise InputError(f"surrogate: its images are {tuple(images.shape[1:])}, the run's {self.shape} (c, h, w)")
        return surrogate_start(schedule, images.to(self.device), float(self.times[0]), seeds)

    def generate(self, seeds: Sequence[int], labels: Int64[np.ndarray, "n"] | None) -> UInt8[np.ndarray, "n h w c"]:
        """The finished images."""
        *_, step = self.steps(seeds, labels)
        broken = ~torch.isfinite(step.x).flatten(1).all(1)
        if bool(broken.any()):
            seed = seeds[int(broken.nonzero()[0])]
            raise InputError(
                f"seed {seed}: the image is not finite; has the run diverged, or is precision bf16 too coarse?"
            )
        return to_uint8(step.x, self.range)


def labels_for(seeds: Sequence[int], classes: Sequence[str], asked: str | int | None) -> Int64[np.ndarray, "n"] | None:
    """The class of each image: the one asked for, by name or number, or else seed mod K, so that classes are balanced.

    Raises InputError for a class out of range, or one asked of a model without classes."""
    if not classes:
        if asked is not None:
            raise InputError(f"class {asked!r}: this model is unconditional, it has no classes to ask for")
        return None
    if asked is None:
        return np.array([seed % len(classes) for seed in seeds], dtype=np.int64)
    name = str(asked)
    if name in classes:
        index = list(classes).index(name)
    elif name.isascii() and name.isdigit() and len(name) < 10 and int(name) < len(classes):
        index = int(name)
    else:
        known = ", ".join(classes[:12]) + (", …" if len(classes) > 12 else "")
        raise InputError(f"class {shown(name)!r}: expected 0 to {len(classes) - 1} or a name (known: {known})")
    return np.full(len(seeds), index, dtype=np.int64)


def sha256(path: Path) -> str:
    """The hash of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def seed_range(seeds: Sequence[int]) -> str:
    """Seeds in words: 0-499 if they are a run of numbers, else listed."""
    if list(seeds) == list(range(seeds[0], seeds[0] + len(seeds))):
        return f"{seeds[0]}-{seeds[-1]}" if len(seeds) > 1 else str(seeds[0])
    return ",".join(map(str, seeds))


def sample_set(
    sampler: Sampler,
    seeds: Sequence[int],
    labels: Int64[np.ndarray, "n"] | None,
    batch: int,
    out: Path,
    record: dict[str, Any],
    what: str = "sampling",
) -> Samples:
    """Generate a set into `out` (.npz or a folder), batch by batch, over all processes.

    Each finished batch is kept in `out`.parts, so that the same call after an interruption makes only the rest, in any
    batch size and number of processes. `record` says how the images are made; it is written beside them as JSON, with
    the times the batches took. A finished set of the same record is read, not made again; of another one refused.
    """
    state = process_state()
    beside, parts = record_of(out), out.with_name(out.name + ".parts")
    if out.exists() and beside.exists():
        samples = _finished(out, beside, record, seeds)
        if state.is_main_process:
            shutil.rmtree(parts, ignore_errors=True)
        return samples
    if state.is_main_process:
        _claim(parts, out, record)
    state.wait_for_everyone()
    done = {int(seed) for part in _parts(parts) for seed in part["seeds"]}
    state.wait_for_everyone()  # all have looked before any writes: they must agree on what is missing
    missing = [i for i, seed in enumerate(seeds) if seed not in done]
    batches = [missing[i : i + batch] for i in range(0, len(missing), batch)]
    mine = batches[state.process_index :: state.num_processes]
    with progress(what, len(seeds), "images", start=len(done), shown=state.is_main_process) as advance:
        count = len(done)
        for chosen in mine:
            began = time.perf_counter()
            some = [seeds[i] for i in chosen]
            images = sampler.generate(some, None if labels is None else labels[chosen])
            _write_part(parts, some, images, time.perf_counter() - began)
            count += len(chosen) * state.num_processes
            advance(min(count, len(seeds)), "")
    state.wait_for_everyone()
    if state.is_main_process:
        _join(parts, seeds, labels, out, beside, record)
    state.wait_for_everyone()
    return _finished(out, beside, record, seeds)


def record_of(out: Path) -> Path:
    """Where the record of a sample set lies. Raises InputError for a place without a name."""
    if not out.name:
        raise InputError(f"out: {str(out)!r} has no name, expected FILE.npz or a new folder")
    return out.with_name(f"{out.name}.record.json")


def read_record(path: Path) -> dict[str, Any]:
    """A sample set's record. Raises InputError for what is none."""
    try:
        found = parse_json(read_text(path))
    except ValueError as error:
        raise InputError(f"{path} is no record of samples ({error}): remove it, or choose another --out") from error
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise InputError(f"{path} is no record of samples: remove it, or choose another --out")
    return found


def _claim(parts: Path, out: Path, record: dict[str, Any]) -> None:
    """Make `parts` ours. Where it is already, and `out` is there without its record, an earlier call was interrupted
    while it put the set together: `out` is made again from the parts."""
    manifest = parts / "record.json"
    if manifest.exists():
        _same(read_record(manifest), record, parts)
        if out.is_dir():
            shutil.rmtree(out)
        out.unlink(missing_ok=True)
    elif out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise InputError(f"out: {out} exists and was not made by this command: remove it or choose another --out")
    check_out(out)
    parts.mkdir(parents=True, exist_ok=True)
    partial = parts / ".record.json"
    partial.write_text(json.dumps(record), encoding="utf-8")
    partial.replace(manifest)


def _same(found: dict[str, Any], record: dict[str, Any], where: Path) -> None:
    found = {key: found.get(key) for key in record}
    wanted = json.loads(json.dumps(record))
    for key, value in wanted.items():
        if found[key] != value:
            raise InputError(
                f"{where} holds samples made otherwise ({key}: {found[key]!r}, now {value!r}): remove it, or choose "
                "another --out"
            )


def _parts(parts: Path) -> list[dict[str, np.ndarray]]:
    return [dict(np.load(path, allow_pickle=False)) for path in sorted(parts.glob("part-*.npz"))]


def _write_part(parts: Path, seeds: Sequence[int], images: np.ndarray, seconds: float) -> None:
    partial = parts / f".{seeds[0]:010d}.tmp"
    with partial.open("wb") as file:
        np.savez(file, images=images, seeds=np.array(seeds, dtype=np.int64), seconds=np.float64(seconds))
    partial.replace(parts / f"part-{seeds[0]:010d}.npz")


def _join(parts: Path, seeds: Sequence[int], labels: Any, out: Path, beside: Path, record: dict[str, Any]) -> None:
    found = _parts(parts)
    where = {int(seed): (part["images"], row) for part in found for row, seed in enumerate(part["seeds"])}
    images = np.stack([where[seed][0][where[seed][1]] for seed in seeds])
    write_samples(out, images, labels)
    timings = [[len(part["seeds"]), round(float(part["seconds"]), 4)] for part in found]
    made_on = environment(process_state().device, process_state().num_processes)
    partial = beside.with_name(f".{beside.name}.partial")
    text = json.dumps({**record, "batches": timings, "environment": made_on}, indent=1)
    partial.write_text(text, encoding="utf-8")
    partial.replace(beside)
    shutil.rmtree(parts, ignore_errors=True)


def _finished(out: Path, beside: Path, record: dict[str, Any], seeds: Sequence[int]) -> Samples:
    found = read_record(beside)
    _same(found, record, out)
    images, labels = read_samples(out)
    return Samples(images, labels, list(seeds), out, found)
