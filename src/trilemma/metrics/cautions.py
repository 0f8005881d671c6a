"""What a reader of a figure must be told: measures warn in one category, and whoever records them gathers the texts."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager


class MetricWarning(UserWarning):
    """A figure was computed, and there is something its reader must know (too few images, duplicates ...)."""


def caution(message: str) -> None:
    """Warn in the category of measures."""
    warnings.warn(message, MetricWarning, stacklevel=3)


@contextmanager
def gathered_cautions() -> Iterator[list[str]]:
    """Within the block, every `MetricWarning` becomes a line in the list (once each), in the order of its appearance;
    other warnings are shown as ever when the block ends."""
    texts: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", MetricWarning)
        try:
            yield texts
        finally:
            texts += dict.fromkeys(str(w.message) for w in caught if issubclass(w.category, MetricWarning))
    for w in caught:
        if not issubclass(w.category, MetricWarning):
            warnings.warn_explicit(w.message, w.category, w.filename, w.lineno)
