"""Surrogates: whatever makes the images that a walk begins from at t_mid (A 3.2)."""

from __future__ import annotations

import hashlib
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt8

from trilemma.data import read_samples
from trilemma.errors import InputError
from trilemma.machine.files import sha256
from trilemma.samplers import Surrogate, SurrogateImages


def open_surrogate(spec: str | None, t_mid: float | None) -> Surrogate:
    """The surrogate `spec`: `module:function`, called as function(seeds, labels) -> uint8 images [n, h, w, c]; or a set
    of samples (.npz, folder, zip), of which seed i takes image i. A module is looked for in the working directory as
    well; it is named on the command line or in a call, never read from a saved recipe.

    Raises InputError where it cannot be opened, gives no images, or one of the two is missing."""
    if spec is None:
        raise InputError("t_mid: where a surrogate's images are taken up, and no surrogate is named")
    if t_mid is None:
        raise InputError("surrogate: needs --t-mid, the time its images are noised to")
    module, colon, name = spec.partition(":")
    if colon and not (module and name):
        raise InputError(f"surrogate {spec!r}: expected module:function, or samples (.npz, folder, zip)")
    if colon and not Path(spec).exists():
        made = _function(spec, module, name)
        source = getattr(sys.modules[module], "__file__", None)
        digest = sha256(Path(source)) if source else None
    else:
        held, _ = read_samples(Path(spec))
        made, digest = _of_samples(held, Path(spec)), hashlib.sha256(held.tobytes()).hexdigest()
    return Surrogate(made, t_mid, {"name": spec, "sha256": digest, "t_mid": t_mid})


def _function(spec: str, module: str, name: str) -> SurrogateImages:
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise InputError(f"surrogate {spec!r} cannot be imported: {error}") from error

    def images(seeds: Sequence[int], labels: Int64[np.ndarray, "n"] | None) -> UInt8[np.ndarray, "n h w c"]:
        made = np.asarray(function(seeds, labels))
        if made.dtype != np.uint8 or made.ndim != 4 or len(made) != len(seeds):
            raise InputError(
                f"surrogate {spec!r} gave {made.dtype} {made.shape}, expected uint8 ({len(seeds)}, h, w, c)"
            )
        return made

    return images


def _of_samples(held: UInt8[np.ndarray, "n h w c"], path: Path) -> SurrogateImages:
    def images(seeds: Sequence[int], labels: Int64[np.ndarray, "n"] | None) -> UInt8[np.ndarray, "n h w c"]:
        if max(seeds) >= len(held):
            raise InputError(f"surrogate {path}: it has {len(held)} images, none for seed {max(seeds)}")
        return held[list(seeds)]

    return images
