"""The features of data, kept on disk where they take long to compute: under the data's hash and the extractor's."""

from __future__ import annotations

import hashlib
import json
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from trilemma.data import ImageSet
from trilemma.data.download import cache_folder
from trilemma.errors import InputError
from trilemma.machine.devices import process_state
from trilemma.machine.files import write_npz
from trilemma.machine.progress import progress, say
from trilemma.machine.untrusted import open_arrays
from trilemma.metrics import Extractor, Features, extract

FORMAT = "trilemma-features/1"

SLOW = 5.0
"""Seconds: features that took less are sooner computed again than kept."""

MANY = 5000
"""Images from which on the way through them is shown."""

BATCH = 250
"""Images at once."""


def features_of_set(data: ImageSet, extractor: Extractor) -> Features:
    """The features of all images of a set, in order: as kept by an earlier call, in this process or another, or
    computed, and kept if that took longer than `SLOW`.

    They lie in `features/` of the cache folder (`$TRILEMMA_CACHE`, or the system's), and may be removed at any time. A
    file that is damaged or says that it holds something else is computed anew, with a warning."""
    place = place_of(data, extractor)
    found = _read(place, data, extractor) if place.exists() else None
    if found is not None:
        return found
    began = time.perf_counter()
    shown = len(data) >= MANY and process_state().is_main_process

    with progress(f"{extractor.name} features of {data.name}:{data.split}", len(data), "images", shown=shown) as done:

        def batches() -> Any:
            for start in range(0, len(data), BATCH):
                end = min(start + BATCH, len(data))
                yield data.batch(range(start, end))[0]
                done(end, "")

        features = extract(batches(), extractor)
    if time.perf_counter() - began > SLOW:
        _write(place, features, _key(data, extractor))
    return features


def place_of(data: ImageSet, extractor: Extractor) -> Path:
    """Where the features of this set are kept, if they are."""
    return cache_folder() / "features" / f"{hashlib.sha256(_key(data, extractor).encode()).hexdigest()}.npz"


def _key(data: ImageSet, extractor: Extractor) -> str:
    """All that features depend on: the images (their hash covers number and size), the extractor and its weights."""
    of = {"sha256": data.fingerprint(), "count": len(data), "size": list(data.shape)}
    return json.dumps({"format": FORMAT, "data": of, "features": extractor.record()}, sort_keys=True)


def _read(place: Path, data: ImageSet, extractor: Extractor) -> Features | None:
    try:
        with open_arrays(place) as file:
            key = str(file["key"])
            parts = {name: file[name] for name in ("pooled", "logits", "spatial") if name in file}
        found = Features(**parts)
        whole = all(len(part) == len(data) for part in parts.values()) and bool(np.isfinite(found.pooled).all())
        if key == _key(data, extractor) and whole and extractor.dim in (None, found.dim):
            return found
        reason = "it holds other features"
    except (ValueError, TypeError, KeyError, IndexError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
    say(f"warning: {place} is damaged ({reason}), so the features of {data.name} are computed again")
    with suppress(OSError):
        place.unlink()
    return None


def _write(place: Path, features: Features, key: str) -> None:
    there = {name: part for name, part in vars(features).items() if part is not None}
    try:
        write_npz(place, {"key": np.array(key), **there}, "cache")
    except InputError as error:
        say(f"warning: features cannot be kept: {error}")
