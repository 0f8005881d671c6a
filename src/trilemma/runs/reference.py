"""What samples are measured against: the features and statistics of real images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from trilemma.data import ImageSet, open_data, parse_reference
from trilemma.errors import InputError
from trilemma.metrics import (
    ClassifierExtractor,
    Extractor,
    Features,
    Moments,
    ReferenceFeatures,
    caution,
    extract,
    load_statistics,
    open_extractor,
    save_statistics,
)
from trilemma.networks.classifier import ConvClassifier
from trilemma.runs.devices import process_state
from trilemma.runs.run import Run
from trilemma.runs.sampling import sha256

BATCH = 250
Size = int | tuple[int, int] | None


@dataclass(frozen=True)
class Reference:
    """What is measured against: features and statistics, and the record of what they are of."""

    features: ReferenceFeatures
    record: dict[str, Any]
    size: tuple[int, int, int] | None


def image_batches(data: ImageSet) -> Iterator[UInt8[np.ndarray, "n h w c"]]:
    for start in range(0, len(data), BATCH):
        yield data.batch(range(start, min(start + BATCH, len(data))))[0]


@lru_cache(maxsize=4)
def features_of(
    name: str, split: str, root: str | None, extractor: str, size: Size = None, channels: int | None = None
) -> tuple[Features, dict[str, Any]]:
    data = open_data(name, split=split, root=root, size=size, channels=channels)
    look = extractor_of(extractor)
    features = extract(image_batches(data), look)
    if look.classes is not None and data.classes is not None and tuple(look.classes) != tuple(data.classes):
        # What it takes the images for says nothing then; its features still say something.
        features = replace(features, logits=None)
    return features, data_record(data)


@lru_cache(maxsize=4)
def extractor_of(name: str) -> Extractor:
    """The extractor of this name on this process's device: those of `open_extractor`, and `classifier:RUN`, a
    classifier that a run has trained, by its averaged weights if it has them. Its record names the recipe, not the
    place of the run. Raises InputError for a name that does not exist, and for a run that trains no classifier."""
    device = process_state().device
    kind, _, place = name.partition(":")
    if kind != "classifier" or not place:
        return open_extractor(name, device=device)
    run = Run(place)
    weights = "ema" if run.recipe.training.ema else "raw"
    network = run.classifier(weights)
    assert isinstance(network, ConvClassifier) and run.recipe.images is not None
    look = ClassifierExtractor(
        network,
        name=f"classifier:{run.recipe.name}",
        sha256=sha256(run.weights_file(weights)),
        shape=run.recipe.images.shape,
        bounds=run.recipe.data.range,
        device=device,
    )
    look.classes = tuple(run.recipe.images.classes or ())
    return look


def data_record(data: ImageSet) -> dict[str, Any]:
    size = list(data.shape)
    return {"data": data.name, "split": data.split, "count": len(data), "sha256": data.fingerprint(), "size": size}


def open_reference(
    spec: str, extractor: str, root: str | None = None, size: Size = None, channels: int | None = None
) -> Reference:
    """The reference DATA[:SPLIT] or STATS.npz, seen by the named extractor. Raises InputError for what is neither."""
    if spec.endswith(".npz") and Path(spec).is_file() and "mu" in _keys(Path(spec)):
        held = load_statistics(spec, extractor=extractor_of(extractor))
        record = dict(held.metadata.get("reference", {"data": spec, "count": held.count}))
        size = record.get("size")
        return Reference(ReferenceFeatures(held), record | {"statistics": spec}, tuple(size) if size else None)
    name, split = parse_reference(spec)
    features, record = features_of(name, split, root, extractor, size, channels)
    if features.logits is None and extractor_of(extractor).classes is not None:
        caution(f"features {extractor!r} are a classifier's of other classes than {name}'s: distances say little")
    shape = record["size"]
    return Reference(ReferenceFeatures.of(features, {"reference": record}), record, (shape[0], shape[1], shape[2]))


def _keys(path: Path) -> list[str]:
    try:
        with np.load(path, allow_pickle=False) as held:
            return list(held.keys())
    except Exception:  # whatever is wrong with it, the reader of images will say
        return []


def write_statistics(spec: str, out: str | Path, extractor: str = "digits", root: str | None = None) -> Path:
    """Feature statistics of DATA[:SPLIT], computed in one pass, as an .npz with pytorch-fid's `mu` and `sigma`."""
    out = Path(out)
    if out.suffix != ".npz":
        raise InputError(f"out: {out} should end in .npz")
    name, split = parse_reference(spec)
    data, look = open_data(name, split=split, root=root), extractor_of(extractor)
    moments, dim = Moments(), 0
    for images in image_batches(data):
        pooled = look(images).pooled
        moments.update(pooled)
        dim = pooled.shape[1]
    held = moments.statistics({"features": look.record(dim), "reference": data_record(data)})
    return save_statistics(held, out)
