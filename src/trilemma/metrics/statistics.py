"""Mean and covariance of features, in one pass over them, and the files that keep them: ours and those of others."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Float64, UInt8

from trilemma.errors import InputError, shown
from trilemma.machine.files import write_npz
from trilemma.machine.untrusted import kind_of, open_arrays, open_file, parse_json, read_array
from trilemma.metrics.features import Extractor, check_rows


@dataclass(frozen=True)
class Statistics:
    """Mean [d] and unbiased covariance [d, d] of the features of `count` images (None: a file that doesn't say).

    `metadata` is what an evaluation file says of them: "features" (name, sha256, dim, resize) and "reference" (data,
    split, count, sha256, size), as far as they are known."""

    mean: Float64[np.ndarray, " d"]
    cov: Float64[np.ndarray, "d d"]
    count: int | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def dim(self) -> int:
        return len(self.mean)

    @staticmethod
    def of(pooled: Float[np.ndarray, "n d"], metadata: Mapping[str, Any] | None = None) -> Statistics:
        """The statistics of features at hand. Raises InputError for NaN, and for fewer than two images."""
        check_rows(pooled, "features")
        moments = Moments()
        for start in range(0, max(len(pooled), 1), 4096):  # float64 copies of a part at a time
            moments.update(pooled[start : start + 4096])
        return moments.statistics(metadata)


class Moments:
    """Count, mean and scatter of the rows seen so far, in float64.

    Batches and other moments are joined by the pairwise update (Chan, Golub, LeVeque 1979), which doesn't cancel where
    Σxxᵀ − n·mean·meanᵀ does: features with a mean far from zero keep their digits. The result depends neither on the
    order nor on the sizes of the batches, but for rounding."""

    def __init__(self) -> None:
        self.count = 0
        self.mean: Float64[np.ndarray, " d"] = np.zeros(0)
        self.scatter: Float64[np.ndarray, "d d"] = np.zeros((0, 0))

    def update(self, pooled: Float[np.ndarray, "n d"]) -> None:
        """Take in a batch. Raises InputError for NaN, infinite values, or another number of features than before."""
        check_rows(pooled, "features")
        if not len(pooled):
            return
        rows = pooled.astype(np.float64)
        batch = Moments()
        batch.count, batch.mean = len(rows), rows.mean(axis=0)
        rows -= batch.mean
        batch.scatter = rows.T @ rows
        self.merge(batch)

    def merge(self, other: Moments) -> None:
        """Take in all that `other` has seen. Raises InputError for another number of features."""
        if not other.count:
            return
        if not self.count:
            self.count, self.mean, self.scatter = other.count, other.mean.copy(), other.scatter.copy()
            return
        if len(self.mean) != len(other.mean):
            raise InputError(f"features: a batch has {len(other.mean)} an image, expected {len(self.mean)} as before")
        total = self.count + other.count
        delta = other.mean - self.mean
        self.scatter += other.scatter
        self.scatter += np.outer(delta, delta * (self.count * other.count / total))
        self.mean = self.mean + delta * (other.count / total)
        self.count = total

    def statistics(self, metadata: Mapping[str, Any] | None = None) -> Statistics:
        """Mean and unbiased covariance (over n − 1, as numpy.cov). Raises InputError below two images."""
        if self.count < 2:
            raise InputError(f"statistics: {self.count} image(s), expected at least 2 for a covariance")
        cov = self.scatter / (self.count - 1)
        return Statistics(self.mean.copy(), (cov + cov.T) / 2, self.count, dict(metadata or {}))


def save_statistics(
    statistics: Statistics,
    path: str | os.PathLike[str],
    *,
    spatial: Statistics | None = None,
    images: UInt8[np.ndarray, "n h w c"] | None = None,
) -> Path:
    """Write `mu`, `sigma` (pytorch-fid's names) and our metadata, a JSON string, to the .npz file `path`, whole or not
    at all; of `spatial` features `mu_s` and `sigma_s`, and the images themselves as `arr_0`, as ADM's reference batches
    have them. Raises InputError if it cannot be written."""
    arrays: dict[str, Any] = {"mu": statistics.mean, "sigma": statistics.cov}
    if spatial is not None:
        arrays |= {"mu_s": spatial.mean, "sigma_s": spatial.cov}
    if images is not None:
        arrays["arr_0"] = images
    arrays["metadata"] = np.array(json.dumps({"count": statistics.count, **statistics.metadata}))
    return write_npz(Path(path), arrays, "statistics")


def load_statistics(
    path: str | os.PathLike[str], *, extractor: Extractor | None = None, spatial: bool = False
) -> Statistics:
    """Statistics from a file of ours, of pytorch-fid's, clean-fid's or ADM's (whose other arrays are left alone).
    Nothing in it is unpickled. With `extractor`, they must be of its features; `spatial`: of the spatial ones, from
    `mu_s` and `sigma_s`.

    Raises InputError: no such file, not an .npz, no `mu` or `sigma`, shapes that don't fit, NaN, other features,
    metadata that isn't what `Statistics` says."""
    what, names = f"statistics {os.fspath(path)!r}", ("mu_s", "sigma_s") if spatial else ("mu", "sigma")
    with _reading(what, path, f"an .npz with {names[0]} and {names[1]}") as file:
        missing = [key for key in names if key not in file]
        if missing:
            held = shown(", ".join(file)) or "nothing"
            raise InputError(
                f"{what}: no {' and no '.join(missing)} in it (it holds {held}), expected {' and '.join(names)}"
            )
        mean, cov = (np.asarray(file[key], dtype=np.float64) for key in names)
        metadata = parse_json(str(file["metadata"])) if "metadata" in file else {}
    if mean.ndim != 1 or cov.shape != 2 * mean.shape:
        shapes = f"{names[0]} is {list(mean.shape)}, {names[1]} {list(cov.shape)}"
        raise InputError(f"{what}: {shapes}, expected [d] and [d, d]")
    if not (np.isfinite(mean).all() and np.isfinite(cov).all()):
        raise InputError(f"{what}: NaN or infinite values in it, expected finite ones")
    if not np.allclose(cov, cov.T, rtol=1e-5, atol=1e-6 * np.abs(cov).max(initial=0)):
        raise InputError(f"{what}: {names[1]} is not symmetric, expected a covariance")
    if not isinstance(metadata, dict):
        raise InputError(f"{what}: metadata is a {type(metadata).__name__}, expected a JSON object")
    _check_metadata(metadata, what)
    statistics = Statistics(mean, (cov + cov.T) / 2, metadata.pop("count", None), metadata)
    if extractor is not None:
        check_same_features(extractor.record(statistics.dim), statistics.metadata.get("features"), what)
        if not spatial:
            _check_dim(statistics.dim, extractor, what)
    return statistics


def _check_metadata(metadata: Mapping[str, Any], what: str) -> None:
    """Raises InputError unless what is read of the metadata is there in its kind, or not at all."""

    def whole(value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and value > 0

    def check(key: str, value: Any, fits: bool, expected: str) -> None:
        if value is not None and not fits:
            raise InputError(f"{what}: metadata has the {key} {value!r:.60}, expected {expected}")

    check("count", metadata.get("count"), whole(metadata.get("count")), "a number of images")
    for key in ("features", "reference"):
        check(key, metadata.get(key), isinstance(metadata.get(key), Mapping), "a JSON object")
    size = (metadata.get("reference") or {}).get("size")
    fits = isinstance(size, list) and len(size) == 3 and all(whole(side) for side in size)
    check("reference.size", size, fits, "three whole numbers: channels, height, width")


def load_features(path: str | os.PathLike[str], *, extractor: Extractor | None = None) -> Float32[np.ndarray, "n d"]:
    """Features from a file of clean-fid's for KID (an .npz with `feats`), or from a bare .npy. Nothing in it is
    unpickled. Raises InputError as `load_statistics` does."""
    what = f"features {os.fspath(path)!r}"
    with _reading(what, path, "an .npz with feats, or an .npy", bare=True) as file:
        if "feats" not in file:
            raise InputError(f"{what}: no feats in it (it holds {shown(', '.join(file)) or 'nothing'}), expected feats")
        features = np.asarray(file["feats"], dtype=np.float32)
    check_rows(features, what)
    if extractor is not None:
        _check_dim(features.shape[1], extractor, what)
    return features


@contextmanager
def _reading(
    what: str, path: str | os.PathLike[str], expected: str, bare: bool = False
) -> Iterator[Mapping[str, np.ndarray]]:
    """The arrays of an .npz (or, if it may be `bare`, an .npy's as feats); whatever goes wrong is an InputError."""
    if kind_of(path) is None:
        raise InputError(f"{what}: no such file, expected {expected}")
    with open_file(Path(path)) as file:
        zipped = zipfile.is_zipfile(file)
    if not zipped and not bare:
        raise InputError(f"{what} is not an .npz file, expected one {expected.removeprefix('an .npz ')}")
    try:
        if zipped:
            with open_arrays(Path(path)) as stored:
                yield stored
        else:
            yield {"feats": read_array(Path(path))}
    except (ValueError, TypeError) as error:
        if str(error).startswith(what):
            raise
        reason = " ".join(str(error).removeprefix(f"{path}: ").split())
        raise InputError(f"{what} cannot be read ({reason}), expected {expected}") from None


def _check_dim(dim: int, extractor: Extractor, what: str) -> None:
    if extractor.dim not in (None, dim):
        raise InputError(
            f"{what}: {dim} features, expected {extractor.dim} of {extractor.name!r}; name the features they are of "
            "(FID's are 'inception')"
        )


def check_same_features(ours: Mapping[str, Any] | None, theirs: Mapping[str, Any] | None, what: str) -> None:
    """Raises InputError if both sides say what features they are of, and it is not the same: name, weights, resize."""
    for key in ("name", "sha256", "resize"):
        if ours and theirs and ours.get(key) != theirs.get(key):
            raise InputError(f"{what}: made with features of {key} {theirs.get(key)!r}, expected {ours.get(key)!r}")
