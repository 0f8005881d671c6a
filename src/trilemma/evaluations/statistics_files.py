"""References given as files: statistics and features as pytorch-fid, clean-fid and ADM's tools write them, and ours."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from trilemma.data.images import MemorySet
from trilemma.data.npz import read_npz
from trilemma.errors import InputError
from trilemma.evaluations.cache import features_of_set
from trilemma.machine.files import sha256
from trilemma.machine.untrusted import kind_of, open_arrays
from trilemma.metrics import Extractor, Features, ReferenceFeatures, caution, load_statistics
from trilemma.metrics.extractors import EXTRACTORS
from trilemma.metrics.statistics import load_features

Shape = tuple[int, int, int]

CLEANFID = re.compile(r"_(clean|legacy_pytorch|legacy_tensorflow)_[a-z0-9]+_(na|\d+)(_kid)?$")
"""How clean-fid's files are named: NAME_MODE_SPLIT_RESOLUTION, as in faces_clean_custom_na.npz."""

MODES = {"clean": "inception-clean", "legacy_pytorch": "inception"}
"""The features here that resize as these modes of clean-fid do."""


def holds_statistics(spec: str) -> bool:
    """Whether `spec` is a file of statistics or features, not of images alone."""
    path = Path(spec)
    if path.suffix not in (".npy", ".npz") or kind_of(path) != "file":
        return False
    return path.suffix == ".npy" or bool({"mu", "feats"} & set(_keys(path)))


def recorded_features(spec: str) -> str | None:
    """The features that a file of statistics says it is of, where they can be had by that name; None where it says
    nothing, and of what is no such file."""
    if not holds_statistics(spec):
        return None
    try:
        metadata = load_statistics(spec).metadata
    except InputError:  # what is wrong with it, its reader will say
        return None
    name = (metadata.get("features") or {}).get("name")
    return name if name in EXTRACTORS else None


def open_statistics(
    spec: str, look: Extractor, *, features: bool = True
) -> tuple[ReferenceFeatures, dict[str, Any], Shape | None]:
    """What the file `spec` holds of the features that `look` gives: the reference, the record of it, and the size of
    its images (None: it doesn't say).

    Statistics are `mu` and `sigma`, and for sFID `mu_s` and `sigma_s`. `feats` (clean-fid's, for KID) or a bare .npy
    are features themselves. Images beside statistics (`arr_0`, as in ADM's reference batches) are looked at by `look`
    if `features` are needed: of a batch they are but a part of the images that the statistics are of. Files of others
    don't say what they are of: the record then has the hash of the file, and a caution says so. Raises InputError for
    a file that cannot be used, or of features of another length."""
    path = Path(spec)
    keys = _keys(path)
    if "mu" not in keys:
        pooled = load_features(path, extractor=look)
        return ReferenceFeatures.of(Features(pooled)), _foreign(path, look, len(pooled)), None
    held = load_statistics(path, extractor=look)
    spatial = load_statistics(path, extractor=look, spatial=True) if {"mu_s", "sigma_s"} <= set(keys) else None
    reference = ReferenceFeatures(held, spatial=spatial)
    known = held.metadata.get("reference")
    record = {"data": spec, **known, "statistics": spec} if known else _foreign(path, look, held.count)
    size = tuple(record["size"]) if record.get("size") else None
    if "arr_0" not in keys:
        return reference, record, size
    images, _ = read_npz(path)
    batch = MemorySet(images, name=path.name)
    if features:
        reference = replace(reference, features=features_of_set(batch, look))
    record["images"] = {"count": len(batch), "sha256": batch.fingerprint()}
    return reference, record, batch.shape


def _foreign(path: Path, look: Extractor, count: int | None) -> dict[str, Any]:
    """The record of a file that doesn't say what it is of, which readers are told."""
    found = CLEANFID.search(path.stem.lower())
    caution(
        f"statistics {str(path)!r} don't say of which features and images they are: taken for those of {look.name!r}"
        + ("" if found and MODES.get(found[1]) == look.name else f", resize {look.resize}")
    )
    if found and MODES.get(found[1]) != look.name:
        same = f"which {MODES[found[1]]!r} has" if found[1] in MODES else "which no features here have"
        caution(f"statistics {str(path)!r}: by its name of clean-fid's resize {found[1]!r}, {same}, not {look.name!r}")
    return {
        **{"data": str(path), "split": None, "count": count, "sha256": sha256(path), "size": None},
        **{"sha256_of": "the statistics file, which does not say what images it is of", "statistics": str(path)},
    }


def _keys(path: Path) -> list[str]:
    try:
        with open_arrays(path) as held:
            return list(held)
    except InputError:  # whatever is wrong with it, the reader will say
        return []
