"""What samples are measured against: the features and statistics of real images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from trilemma.data import ImageSet, Opening, Spread, available_splits, open_data, parse_reference
from trilemma.errors import InputError
from trilemma.evaluations.cache import BATCH, features_of_set, place_of
from trilemma.evaluations.classes import ClassKnowledge, Seen, knowledge_of, say_classifier
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

Shape = tuple[int, int, int]

AS_STORED = Opening()

FEW = 10_000
"""Training images below which those held out are looked at unasked: so few a model can come to know by heart."""


@dataclass(frozen=True)
class Reference:
    """What is measured against: features and statistics, the record of what they are of, the images' size, and what is
    known of their classes."""

    features: ReferenceFeatures
    record: dict[str, Any]
    size: Shape | None
    classes: ClassKnowledge | None = None

    def looked(self, fake: Features) -> Features:
        """The features of images held against it, with the logits of its classifier, if it has one."""
        head = None if self.classes is None else self.classes.head
        return fake if head is None else replace(fake, classes=head(fake.pooled))

    @property
    def classifier(self) -> dict[str, Any] | None:
        """The record of its classifier."""
        return None if self.classes is None else self.classes.record


def image_batches(data: ImageSet) -> Iterator[UInt8[np.ndarray, "n h w c"]]:
    for start in range(0, len(data), BATCH):
        yield data.batch(range(start, min(start + BATCH, len(data))))[0]


def features_of(name: str, split: str, extractor: str, opening: Opening = AS_STORED) -> tuple[Features, dict[str, Any]]:
    """The features of DATA:SPLIT by the named extractor, and the record of the data."""
    seen = _seen_of(name, split, extractor, opening)
    return seen.features, seen.record


def _seen_of(
    name: str, split: str, extractor: str, opening: Opening, shape: Shape | None = None, most: int | None = None
) -> Seen:
    look = extractor_of(extractor)
    versions = (look.name, look.sha256, look.resize, stamp(Path(name)))
    return _opened(name, split, extractor, opening, versions, shape, most)


@lru_cache(maxsize=4)
def _opened(
    name: str,
    split: str,
    extractor: str,
    opening: Opening,
    versions: Stamp,
    shape: Shape | None,
    most: int | None,
) -> Seen:
    data = opening(name, split)
    check_shape(data.name, data.shape, shape)
    if most is not None and most < len(data):
        say(
            f"reference: {most:,} of {name}'s {len(data):,} images, spread evenly; --reference {name}:{split} takes all"
        )
        data = Spread(data, most)
    return _seen(data, extractor_of(extractor))


def _seen(data: ImageSet, look: Extractor) -> Seen:
    features, record = features_of_set(data, look), data_record(data)
    if data.labels is None or data.classes is None:
        return Seen(features, record)
    names = tuple(data.classes)
    if look.classes is not None and tuple(look.classes) != names:
        # What it takes the images for says nothing then; its features still say something.
        features = replace(features, logits=None)
    return Seen(features, record, data.labels, names, classified=look.classes is not None and look.classes == names)


def data_record(data: ImageSet) -> dict[str, Any]:
    size = list(data.shape)
    return {"data": data.name, "split": data.split, "count": len(data), "sha256": data.fingerprint(), "size": size}


def open_reference(
    spec: str | ImageSet,
    extractor: str,
    opening: Opening = AS_STORED,
    *,
    features: bool = True,
    classes: bool = True,
    holdout: bool | None = None,
    unseen: str | None = "test",
    shape: Shape | None = None,
    most: int | None = None,
) -> Reference:
    """The reference seen by the named extractor: DATA[:SPLIT], a set of images, or a file of statistics (see
    `open_statistics`).

    `opening`: how data are opened. `features`: whether more than statistics is needed; `classes`: whether images are to
    be classified, by what is fitted to the reference's labels where the extractor cannot. `holdout`: with the features
    of data's split `unseen` beside those of the one trained on, for memorisation; None: of fewer than `FEW` training
    images, or with features that are kept. `shape`: the (c, h, w) of the images that are to be held against it.
    `most`: of more images so many stand for all, and nothing is said of copies. Raises InputError for what is neither
    data nor statistics, and for another shape."""
    if isinstance(spec, ImageSet):
        check_shape(spec.name, spec.shape, shape)
        return _reference(_seen(spec, extractor_of(extractor)), classes)
    if holds_statistics(spec):
        return Reference(*open_statistics(spec, extractor_of(extractor), features=features))
    name, split = parse_reference(spec)
    seen = _seen_of(name, split, extractor, opening, shape, most)
    if seen.features.logits is None and extractor_of(extractor).classes is not None:
        caution(f"features {extractor!r} are a classifier's of other classes than {name}'s: distances say little")
    held = None
    whole = most is None or seen.record["count"] < most
    if whole and holdout is not False and (split == "train" or unseen != "test"):
        data, asked = held_out(name, opening, unseen), holdout or seen.record["count"] < FEW
        if data is not None and (asked or place_of(data, extractor_of(extractor)).exists()):
            held = _seen_of(name, data.split, extractor, opening)
    return _reference(seen, classes, held)


def check_shape(name: str, of: Shape | None, shape: Shape | None) -> None:
    """Raises InputError where a reference's images are of another shape (c, h, w) than those held against it."""
    if of is not None and shape is not None and of != shape:
        resize = f"; --size {min(shape[1:])} brings both to one" if of[0] == shape[0] else ""
        raise InputError(
            f"reference {name!r}: its images are {of}, the samples {shape} (channels, height, width){resize}"
        )


def held_out(name: str, opening: Opening, split: str | None = "test") -> ImageSet | None:
    """That split of data; None where they have none. Raises InputError for one that cannot be read."""
    there = split is not None and split in available_splits(name, opening.config, opening.holdout)
    return opening(name, split) if split is not None and there else None


def _reference(seen: Seen, classes: bool, held: Seen | None = None) -> Reference:
    known, features = knowledge_of(seen, classes)
    record = seen.record
    if held is not None:
        record = record | {"holdout": {key: held.record[key] for key in ("split", "count", "sha256")}}
    channels, height, width = record["size"]
    against = ReferenceFeatures.of(features, {"reference": record}, None if held is None else held.features)
    found = Reference(against, record, (channels, height, width), known)
    say_classifier(known)
    return found


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
