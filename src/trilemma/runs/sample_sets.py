"""Sample sets of a run on disk: in parts that an interrupted job takes up again, with the record of how they were
made."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from trilemma.data import check_out, read_samples, write_samples
from trilemma.errors import InputError, shown
from trilemma.machine.devices import process_state
from trilemma.machine.environment import environment
from trilemma.machine.files import keeping, replacing, write_json, write_npz
from trilemma.machine.locks import locked
from trilemma.machine.progress import progress, say
from trilemma.machine.untrusted import open_arrays, parse_json, read_text
from trilemma.recipes import renamed
from trilemma.samplers import Sampler, Samples, balanced

FORMAT = "trilemma-samples/1"

UNGUIDED = {"guidance": 0.0, "guide": None}
"""What a record says of guidance that says nothing."""

MANIFEST = "record.json"
"""The record among the parts of an unfinished set, which says whose they are."""


def labels_for(seeds: Sequence[int], classes: Sequence[str], asked: str | int | None) -> Int64[np.ndarray, "n"] | None:
    """The class of each image: the one asked for, by name or number; of several with commas between, the (seed mod
    their count)-th; or else seed mod K, so that classes are balanced.

    Raises InputError for a class out of range, or one asked of a model without classes."""
    if not classes:
        if asked is not None:
            raise InputError(f"class {asked!r}: this model is unconditional, it has no classes to ask for")
        return None
    if asked is None:
        return balanced(seeds, len(classes))
    names = [str(asked)] if str(asked) in classes else [name.strip() for name in str(asked).split(",")]
    chosen = [_class(name, classes) for name in names]
    return np.array([chosen[seed % len(chosen)] for seed in seeds], dtype=np.int64)


def _class(name: str, classes: Sequence[str]) -> int:
    if name in classes:
        return list(classes).index(name)
    if name.isascii() and name.isdigit() and len(name) < 10 and int(name) < len(classes):
        return int(name)
    known = ", ".join(classes[:12]) + (", …" if len(classes) > 12 else "")
    raise InputError(f"class {shown(name)!r}: expected 0 to {len(classes) - 1} or a name (known: {known})")


def sample_set(
    sampler: Sampler,
    seeds: Sequence[int],
    labels: Int64[np.ndarray, "n"] | None,
    out: Path,
    record: dict[str, Any],
) -> Samples:
    """Generate a set into `out` (.npz or a folder), batch by batch, over all processes.

    Each finished batch is kept in `out`.parts, so that the same call after an interruption makes only the rest, in any
    batch size and number of processes. `record` says how the images are made; it is written beside them as JSON, with
    the times the batches took. A finished set of the same record is read, not made again; of another one refused, and
    so is one that another process is making.
    """
    state = process_state()
    beside, parts = record_of(out), out.with_name(out.name + ".parts")
    if out.exists() and beside.exists():
        samples = _finished(out, beside, record, seeds)
        if state.is_main_process:
            with suppress(InputError):
                read_record(parts / MANIFEST)
                _discard(parts)
        return samples
    safe = f"the parts that are finished are safe in {parts}, and the same command goes on from them"
    with locked(out) if state.is_main_process else nullcontext(), keeping(lambda: safe):
        if state.is_main_process:
            _claim(parts, out, beside, record, seeds, sampler.shape)
        _make(sampler, seeds, labels, parts)
        if state.is_main_process:
            _join(parts, seeds, labels, out, beside, record)
        state.wait_for_everyone()
    return _finished(out, beside, record, seeds)


def _make(sampler: Sampler, seeds: Sequence[int], labels: Int64[np.ndarray, "n"] | None, parts: Path) -> None:
    """The parts that are missing, shared by all processes."""
    state = process_state()
    state.wait_for_everyone()
    done = {int(seed) for part in _parts(parts) for seed in part["seeds"]}
    state.wait_for_everyone()  # all have looked before any writes: they must agree on what is missing
    missing = [i for i, seed in enumerate(seeds) if seed not in done]
    batches = [missing[i : i + sampler.batch] for i in range(0, len(missing), sampler.batch)]
    mine = batches[state.process_index :: state.num_processes]
    with progress(sampler.label, len(seeds), "images", start=len(done), shown=state.is_main_process) as advance:
        count = len(done)
        for chosen in mine:
            began = time.perf_counter()
            some = [seeds[i] for i in chosen]
            images = sampler.generate(some, None if labels is None else labels[chosen])
            _write_part(parts, some, images, time.perf_counter() - began)
            count += len(chosen) * state.num_processes
            advance(min(count, len(seeds)), "")
    state.wait_for_everyone()


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
    if not isinstance(found, dict) or found.get("format") != FORMAT or not isinstance(found.get("sampler"), dict):
        raise InputError(f"{path} is no record of samples: remove it, or choose another --out")
    return _current(found)


def _current(record: dict[str, Any]) -> dict[str, Any]:
    """A record as it is written now: earlier ones had the weights and the surrogate beside the sampler, and none was
    guided before guidance was recorded."""
    beside = {key: record.pop(key) for key in ("weights", "surrogate") if key in record}
    return {**record, "sampler": UNGUIDED | renamed(record["sampler"]) | beside}


def _claim(
    parts: Path, out: Path, beside: Path, record: dict[str, Any], seeds: Sequence[int], shape: tuple[int, int, int]
) -> None:
    """Make `parts` ours, or take them up: they have to say that they are. Of `out` nothing is there yet, for its record
    is written first: what is there is somebody else's. A part that is damaged is removed, to be made again."""
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise InputError(f"out: {out} exists and was not made by this command: remove it or choose another --out")
    check_out(out)
    if beside.exists():
        read_record(beside)
    if (parts / MANIFEST).exists():
        _same(read_record(parts / MANIFEST), record, parts)
    else:
        with replacing(parts) as partial:
            write_json(partial / MANIFEST, record)
    for path in parts.glob("part-*.npz"):
        if flaw := _flaw(path, set(seeds), shape):
            say(f"warning: {path} is damaged ({flaw}), so its images are made again")
            path.unlink()


def _flaw(path: Path, seeds: set[int], shape: tuple[int, int, int]) -> str | None:
    """What keeps a file from being a part of this set, if anything does."""
    channels, *size = shape
    try:
        part = _read_part(path)
        images, own = part["images"], part["seeds"]
        if images.dtype != np.uint8 or images.shape != (len(own), *size, channels):
            return f"its images are {images.dtype} {images.shape}"
        if own.dtype != np.int64 or not set(own.tolist()) <= seeds or part["seconds"].shape != ():
            return "its seeds are not this set's"
    except Exception as error:  # whatever is wrong with it, it is made again
        return " ".join(str(error).split()) or type(error).__name__
    return None


def _discard(parts: Path) -> None:
    """Remove the parts, and nothing else that may lie among them."""
    with suppress(OSError):
        for pattern in ("part-*.npz", ".part-*.partial", MANIFEST):
            for path in parts.glob(pattern):
                path.unlink()
        parts.rmdir()


def _same(found: dict[str, Any], record: dict[str, Any], where: Path) -> None:
    """Raises InputError where what is found was made otherwise. Of the sampler only what both say is compared: an
    earlier record may lack a setting, and the hashes of times and weights cover what it lacked."""
    wanted = json.loads(json.dumps(record))
    sampler = {key: value for key, value in wanted.pop("sampler").items() if key in found["sampler"]}
    pairs = [(f"sampler.{key}", found["sampler"][key], value) for key, value in sampler.items()]
    for place, had, value in [*((key, found.get(key), value) for key, value in wanted.items()), *pairs]:
        for key, one, other in _differing(place, identity(had), identity(value)):
            raise InputError(
                f"{where} holds samples made otherwise ({key}: {one!r}, now {other!r}): remove it, or choose another "
                "--out"
            )


def identity(made: Any) -> Any:
    """What a record says of how images are made, without the names of what hashes tell apart: a run is the same one
    however its path is spelled."""
    if not isinstance(made, Mapping):
        return made
    hashed = any(made.get(key) for key in ("weights_sha256", "sha256"))
    return {key: identity(value) for key, value in made.items() if not (hashed and key == "name")}


def _differing(key: str, had: Any, now: Any) -> Iterator[tuple[str, Any, Any]]:
    """The places in which two values differ."""
    if isinstance(had, Mapping) and isinstance(now, Mapping):
        for inner in {**had, **now}:
            yield from _differing(f"{key}.{inner}", had.get(inner), now.get(inner))
    elif had != now:
        yield key, had, now


def _parts(parts: Path) -> list[dict[str, np.ndarray]]:
    return [_read_part(path) for path in sorted(parts.glob("part-*.npz"))]


def _read_part(path: Path) -> dict[str, np.ndarray]:
    with open_arrays(path) as held:
        return dict(held)


def _write_part(parts: Path, seeds: Sequence[int], images: np.ndarray, seconds: float) -> None:
    place = parts / f"part-{seeds[0]:010d}.npz"
    write_npz(place, {"images": images, "seeds": np.array(seeds, dtype=np.int64), "seconds": np.float64(seconds)})


def _join(parts: Path, seeds: Sequence[int], labels: Any, out: Path, beside: Path, record: dict[str, Any]) -> None:
    found = _parts(parts)
    where = {int(seed): (part["images"], row) for part in found for row, seed in enumerate(part["seeds"])}
    images = np.stack([where[seed][0][where[seed][1]] for seed in seeds])
    timings = [[len(part["seeds"]), round(float(part["seconds"]), 4)] for part in found]
    made_on = environment(process_state().device, process_state().num_processes)
    write_json(beside, {**record, "batches": timings, "environment": made_on})
    write_samples(out, images, labels)  # last: once it is there, the set is finished
    _discard(parts)


def _finished(out: Path, beside: Path, record: dict[str, Any], seeds: Sequence[int]) -> Samples:
    found = read_record(beside)
    _same(found, record, out)
    images, labels = read_samples(out)
    if len(images) != len(seeds):
        raise InputError(f"{out} holds {len(images)} images, expected {len(seeds)}: remove it, or choose another --out")
    return Samples(images, labels, list(seeds), out, found)
