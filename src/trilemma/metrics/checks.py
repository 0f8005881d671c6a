"""What measures refuse before they begin."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from trilemma.errors import InputError
from trilemma.metrics.features import check_rows


class TooFewError(InputError):
    """A measure takes more images than there are. By default such a measure is left out, with a word on it."""


def check_count(features: Float[np.ndarray, "n d"], least: int, what: str, why: str = "") -> None:
    """Raises InputError for anything but n finite rows, and `TooFewError` for fewer than `least` of them. `what` names
    the measure and the side, as "kid: real"; `why` is added to the number expected."""
    check_rows(features, f"{what} features")
    if len(features) < least:
        raise TooFewError(f"{what}: {len(features)} image(s), expected at least {least}{why}")


def check_sets(what: str, least: int, why: str = "", **sets: Float[np.ndarray, "n d"]) -> None:
    """As `check_count` for each of `sets`, by name; and they must be of one length of features, the first set's."""
    first = next(iter(sets))
    for side, features in sets.items():
        check_count(features, least, f"{what}: {side}", why)
        dim, expected = features.shape[1], sets[first].shape[1]
        if dim != expected:
            raise InputError(f"{what}: {side} images have {dim} features, expected {expected} as {first} ones")
