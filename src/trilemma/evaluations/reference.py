"""What samples are measured against: the features and statistics of real images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from trilemma.data import SOURCES, ImageSet, Opening, open_data, parse_reference
from trilemma.errors import InputError
from trilemma.evaluations.cache import BATCH, features_of_set, place_of
from trilemma.evaluations.extractors import Stamp, extractor_of, stamp
from trilemma.evaluations.statistics_files import holds_statistics, open_statistics
from trilemma.machine.files import check_writable
from trilemma.machine.progress import say
from trilemma.metrics import (
    Extractor,
    Features,
    Moments,
    ReferenceFeatures,
    caution,
    gathered_cautions,
    save_statistics,
)

AS_STORED = Opening()

FEW = 1000
"""Held-out images up to which their features are computed unasked."""


@dataclass(frozen=True)
class Reference:
    """What is measured against: features and statistics, the record of what they are of, and the images' size."""

    features: ReferenceFeatures
    record: dict[str, Any]
    size: tuple[int, int, int] | None


def image_batches(data: ImageSet) -> Iterator[UInt8[np.ndarray, "n h w c"]]:
    for start in range(0, len(data), BATCH):
        yield data.batch(range(start, min(start + BATCH, len(data))))[0]


def features_of(name: str, split: str, extractor: str, opening: Opening = AS_STORED) -> tuple[Features, dict[str, Any]]:
    """The features of DATA:SPLIT by the named extractor, and the record of the data."""
    look = extractor_of(extractor)
    versions = (look.name, look.sha256, look.resize, stamp(Path(name)))
    return _features_of(name, split, extractor, opening, versions)


@lru_cache(maxsize=4)
def _features_of(
    name: str, split: str, extractor: str, opening: Opening, versions: Stamp
) -> tuple[Features, dict[str, Any]]:
    data = opening(name, split)
    return _seen(data, extractor_of(extractor)), data_record(data)


def _seen(data: ImageSet, look: Extractor) -> Features:
    features = features_of_set(data, look)
    if look.classes is not None and data.classes is not None and tuple(look.classes) != tuple(data.classes):
        # What it takes the images for says nothing then; its features still say something.
        features = replace(features, logits=None)
    return features


def data_record(data: ImageSet) -> dict[str, Any]:
    size = list(data.shape)
    return {"data": data.name, "split": data.split, "count": len(data), "sha256": data.fingerprint(), "size": size}


def open_reference(
    spec: str | ImageSet,
    extractor: str,
    opening: Opening = AS_STORED,
    *,
    features: bool = True,
    holdout: bool | None = None,
) -> Reference:
    """The reference seen by the named extractor: DATA[:SPLIT], a set of images, or a file of statistics (see
    `open_statistics`).

    `opening`: how data are opened. `features`: whether more than statistics is needed. `holdout`: with the features of data's test split beside those
    of its training split, for memorisation; None: if that is cheap, for a source's split of up to `FEW` images, or with
    features that are kept. Raises InputError for what is neither data nor statistics."""
    if isinstance(spec, ImageSet):
        seen, record = _seen(spec, extractor_of(extractor)), data_record(spec)
        return Reference(ReferenceFeatures.of(seen, {"reference": record}), record, spec.shape)
    if holds_statistics(spec):
        return Reference(*open_statistics(spec, extractor_of(extractor), features=features))
    name, split = parse_reference(spec)
    seen, record = features_of(name, split, extractor, opening)
    if seen.logits is None and extractor_of(extractor).classes is not None:
        caution(f"features {extractor!r} are a classifier's of other classes than {name}'s: distances say little")
    held = None
    if holdout is not False and split == "train" and _has_test(name, extractor, opening, bool(holdout)):
        held, unseen = features_of(name, "test", extractor, opening)
        record = record | {"holdout": {key: unseen[key] for key in ("split", "count", "sha256")}}
    shape, of = record["size"], {"reference": record}
    return Reference(ReferenceFeatures.of(seen, of, held), record, (shape[0], shape[1], shape[2]))


def _has_test(name: str, extractor: str, opening: Opening, asked: bool) -> bool:
    """Whether there is a test split to look at, and (unless `asked`) that takes next to no time."""
    if not asked and name not in SOURCES and not opening.holdout:
        return False
    try:
        data = opening(name, "test")
    except InputError:
        return False
    return asked or (data.in_memory and len(data) <= FEW) or place_of(data, extractor_of(extractor)).exists()


def write_statistics(
    spec: str,
    out: str | Path,
    extractor: str = "digits",
    root: str | None = None,
    *,
    spatial: bool = False,
    images: bool = False,
) -> Path:
    """Feature statistics of DATA[:SPLIT], computed in one pass, as an .npz with pytorch-fid's `mu` and `sigma`.

    As ADM's reference batches have them: `spatial` adds `mu_s` and `sigma_s`, `images` adds the images (`arr_0`), all
    of them. Says as warnings what a reader must know, such as fewer images than a covariance of so many features takes.
    Raises InputError for features that have no spatial part, and for what cannot be read or written."""
    out = Path(out)
    check_writable(out, suffix=".npz", source=spec)
    name, split = parse_reference(spec)
    data, look = open_data(name, split=split, root=root), extractor_of(extractor)
    pooled, places = Moments(), Moments()
    with gathered_cautions() as cautions:
        for batch in image_batches(data):
            seen = look(batch)
            pooled.update(seen.pooled)
            if spatial:
                if seen.spatial is None:
                    raise InputError(f"features {extractor!r} have no spatial part for mu_s, sigma_s; 'inception' has")
                places.update(seen.spatial)
        for moments, kind in ((pooled, "features"), (places, "spatial features")):
            if 0 < moments.count <= (dim := len(moments.mean)):
                caution(
                    f"statistics: {moments.count} images for {dim} {kind} make a singular covariance, expected more "
                    f"than {dim}"
                )
    for line in cautions:
        say(f"warning: {line}")
    metadata = {"features": look.record(len(pooled.mean)), "reference": data_record(data)}
    return save_statistics(
        pooled.statistics(metadata),
        out,
        spatial=places.statistics(metadata) if spatial else None,
        images=data.batch(range(len(data)))[0] if images else None,
    )
