"""The classifier of a set's own classes: scikit-learn's, of images that it has not seen."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression

from trilemma.metrics import class_head
from trilemma.metrics.class_head import FOLDS, fit_head


def blobs(n: int, apart: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Three classes in eight dimensions, their middles so far apart, and away from 0."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, n)
    return (5 + rng.standard_normal((n, 8)) + apart * np.eye(3, 8)[labels]).astype(np.float32), labels


def test_is_multinomial_logistic_regression(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose probabilities are scikit-learn's, of the same penalty, for those that a fold did not see."""
    monkeypatch.setattr(class_head, "PENALTY", 0.01)
    monkeypatch.setattr(class_head, "ITERATIONS", 500)
    x, labels = blobs(300, 2.0)
    _, logits = fit_head(x, labels, 3)
    scaled = (x - x.mean(0)) / np.sqrt(((x - x.mean(0)) ** 2).sum(1).mean())
    part = np.empty(300, dtype=int)
    for k in range(3):
        part[labels == k] = np.arange((labels == k).sum()) % FOLDS
    for fold in (0, 3):
        seen = part != fold
        theirs = LogisticRegression(C=1 / (0.01 * seen.sum()), tol=1e-8, max_iter=1000).fit(scaled[seen], labels[seen])
        expected = theirs.predict_proba(scaled[~seen])
        np.testing.assert_allclose(softmax(logits[~seen], axis=1), expected, atol=2e-3)


def test_an_image_is_judged_by_what_has_not_seen_it() -> None:
    """Labels that mean nothing are learnt by heart, and not recognised."""
    rng = np.random.default_rng(1)
    x, labels = rng.standard_normal((200, 400)).astype(np.float32), rng.integers(0, 2, 200)
    head, logits = fit_head(x, labels, 2)
    assert (head(x).argmax(1) == labels).mean() > 0.95
    assert 0.35 < (logits.argmax(1) == labels).mean() < 0.65


def test_the_head_is_as_good_on_new_images_as_it_says() -> None:
    x, labels = blobs(600, 2.5)
    head, logits = fit_head(x, labels, 3)
    new, theirs = blobs(600, 2.5, seed=1)
    said, found = (logits.argmax(1) == labels).mean(), (head(new).argmax(1) == theirs).mean()
    assert found == pytest.approx(said, abs=0.05) and found > 0.8
    assert fit_head(x, labels, 3)[0].sha256() == head.sha256()


def test_a_class_of_one_image_costs_nothing() -> None:
    x, labels = blobs(60, 4.0)
    head, logits = fit_head(x, np.where(np.arange(60) == 7, 3, labels), 4)
    assert np.isfinite(logits).all() and head(x).shape == (60, 4)
