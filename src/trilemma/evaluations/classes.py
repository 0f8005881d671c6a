"""The classes of the data: a classifier of them where the features know none, and what is said of classes missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from trilemma.machine.devices import process_state
from trilemma.machine.progress import say
from trilemma.metrics import Features, absent, caution, class_counts
from trilemma.metrics.class_head import FOLDS, ClassHead, fit_head

MOST = 5000
"""Images that a classifier is fitted to, spread over those there are: it takes seconds, so that it need not be kept."""

WORK = 2 * 10**9
"""Images × features × classes up to which fitting takes seconds: for more, fewer images."""

POOR = 0.9
"""The share of images rightly classified below which readers are told."""

NAMED = 10
"""Classes named of those that are missing."""

SEEN = "of the images is, as a classifier sees them,"


@dataclass(frozen=True)
class ClassKnowledge:
    """What is known of a reference's classes: their `names`, the `shares` [k] of them by label, and the `head` that was
    fitted to them, with its record, where the features alone do not classify them; `unfitted`: why there is none."""

    names: tuple[str, ...]
    shares: Float64[np.ndarray, " k"]
    head: ClassHead | None = None
    record: dict[str, Any] | None = None
    unfitted: str = ""


@dataclass(frozen=True, eq=False)
class Seen:
    """Data as an extractor sees them: their `features` (with logits only if these are of the data's classes, or of
    classes unknown), the `record` of them, and, if they are labelled, their `labels` and the `names` of the classes;
    `classified`: whether the features' logits are of these."""

    features: Features
    record: dict[str, Any]
    labels: Int64[np.ndarray, " n"] | None = None
    names: tuple[str, ...] = ()
    classified: bool = False


@lru_cache(maxsize=4)
def knowledge_of(seen: Seen, fit: bool = True) -> tuple[ClassKnowledge | None, Features]:
    """What is known of the classes of these data, and their features; `fit`: where these do not classify, with the
    logits of a classifier fitted to them, unless there are too few images a class. None of unlabelled data.

    The classifier is `fit_head`'s; its recorded accuracy is of images that the fit had not seen."""
    features, labels = seen.features, seen.labels
    if labels is None or not len(labels):
        return None, features
    count, classes = len(labels), len(seen.names)
    shares = np.bincount(labels, minlength=classes) / count
    some = min(count, MOST, max(WORK // (features.dim * classes), 1))
    if not fit or seen.classified or np.count_nonzero(shares) < 2:
        return ClassKnowledge(seen.names, shares), features
    if some < FOLDS * classes:
        few = f"{some} images of {classes} classes are too few to fit a classifier to, expected {FOLDS} a class"
        return ClassKnowledge(seen.names, shares, unfitted=few), features
    chosen = np.linspace(0, count - 1, some).astype(np.int64)
    head, unseen = fit_head(features.pooled[chosen], labels[chosen], classes)
    logits = head(features.pooled)
    logits[chosen] = unseen
    right = float((unseen.argmax(1) == labels[chosen]).mean())
    record = {
        **{key: seen.record[key] for key in ("data", "split", "sha256")},
        **{"count": some, "classes": classes, "accuracy": right},
        **{"accuracy_se": max((right * (1 - right) / some) ** 0.5, 1 / some), "weights_sha256": head.sha256()},
    }
    return ClassKnowledge(seen.names, shares, head, record), replace(features, classes=logits)


def say_classifier(known: ClassKnowledge | None) -> None:
    """Says what was fitted, if anything was; as a caution where it is poor, what it sees in generated images being no
    surer, and where there are too few images for one."""
    if known is not None and known.unfitted:
        caution(f"classes: {known.unfitted}: left out: 'recognised', 'confidence' and 'balance_kl'")
    record = None if known is None else known.record
    if record is None:
        return
    text = (
        f"classes: a classifier fitted to {record['count']} images of {record['data']}:{record['split']} takes "
        f"{record['accuracy']:.1%} of those it has not seen for their own of {record['classes']}"
    )
    if record["accuracy"] < POOR:
        caution(f"{text}: 'recognised', 'confidence' and 'balance_kl' are no surer")
    elif process_state().is_main_process:
        say(text)


def in_reference(
    labels: Int64[np.ndarray, " n"] | None, names: Sequence[str] | None, known: Sequence[str] | None
) -> Int64[np.ndarray, " n"] | None:
    """The labels of images as the reference numbers its classes (`known`): by their `names`, or by the number where
    either side has none; None, which is said, where the reference lacks one of them."""
    if labels is None or known is None or not len(labels):
        return labels
    if names is None or _bare(names) or _bare(known):
        if labels.max() < len(known):
            return labels
        caution(f"classes: labels up to {labels.max()}, the reference has {len(known)}: none are compared")
        return None
    number = {name: k for k, name in enumerate(known)}
    if lacking := [names[k] for k in np.unique(labels) if names[k] not in number]:
        caution(f"classes: {_few(lacking)} are none of the reference's ({_few(known)}): none are compared")
        return None
    return np.array([number.get(name, -1) for name in names], dtype=np.int64)[labels]


def _bare(names: Sequence[str]) -> bool:
    """Whether labels came as numbers alone."""
    return all(name == str(k) for k, name in enumerate(names))


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" … ({len(names)})" if len(names) > 5 else "")


def caution_missing(
    known: ClassKnowledge | None, real: Features | None, fake: Features, labels: Int64[np.ndarray, " n"] | None
) -> None:
    """Cautions, by their names, where the images lack classes of the reference: of the labels given or asked for; and,
    of those that are to be expected by these, or else by the reference, of what the same classifier sees in both."""
    if known is None:
        return
    expected = known.shares
    if labels is not None:
        asked = np.bincount(labels, minlength=len(expected))
        _say(known.names, expected, asked, "of the images is")
        expected = asked / max(len(labels), 1)
    if real is not None and real.by_class is not None and fake.by_class is not None:
        seen = class_counts(real.by_class)
        if len(seen) == len(known.names):
            # A class that the classifier takes the reference's own images for too seldom is not to be expected.
            taken = np.minimum(known.shares, seen / seen.sum())
            often = np.divide(taken, known.shares, out=np.zeros_like(expected), where=known.shares > 0)
            _say(known.names, expected * often, class_counts(fake.by_class), SEEN)


def _say(
    names: Sequence[str],
    shares: Float64[np.ndarray, " k"],
    there: Int64[np.ndarray, " k"],
    are: str,
) -> None:
    missing = absent(there, shares)
    if len(missing):
        some = ", ".join(names[k] for k in missing[:NAMED])
        more = f" and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
        caution(
            f"classes: none {are} of {some}{more}: {len(missing)} of {np.count_nonzero(shares)} classes are missing, "
            f"{shares[missing].sum() / shares.sum():.0%} of what is expected"
        )
