"""A classifier of a set's own classes on features that know none of them: multinomial logistic regression."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int64
from scipy.optimize import minimize
from scipy.special import log_softmax

FOLDS = 5
"""Parts, each of which is classified by what was fitted to the others."""

PENALTY = 1e-5
"""Of half the squared weights beside the mean cross entropy, of features brought to a mean square of 1 an image: of
powers of ten the best for 100 to 1 200 digits and shapes seen by `imagenet`."""

ITERATIONS = 60


@dataclass(frozen=True)
class ClassHead:
    """Logits of k classes, linear in features: x · `weights` [d, k] + `bias` [k]."""

    weights: Float32[np.ndarray, "d k"]
    bias: Float32[np.ndarray, " k"]

    def __call__(self, pooled: Float32[np.ndarray, "n d"]) -> Float32[np.ndarray, "n k"]:
        return pooled @ self.weights + self.bias

    def sha256(self) -> str:
        """Of its numbers."""
        return hashlib.sha256(self.weights.tobytes() + self.bias.tobytes()).hexdigest()


def fit_head(
    pooled: Float32[np.ndarray, "n d"], labels: Int64[np.ndarray, " n"], classes: int
) -> tuple[ClassHead, Float32[np.ndarray, "n k"]]:
    """A head fitted to features and their classes in [0, k), and the logits of these very images.

    `FOLDS` fits, each to all but one part of every class, are averaged into the head; an image's own logits come from
    the one fit that has not seen it, so that the head is not surer of them than of images that are new to it. What it
    gives depends on nothing but the features and labels, to float rounding."""
    part = np.empty(len(labels), dtype=np.int64)
    for k in range(classes):
        of = np.flatnonzero(labels == k)
        part[of] = np.arange(len(of)) % FOLDS
    mean = pooled.mean(0, dtype=np.float64).astype(np.float32)
    centred = pooled - mean
    scale = np.float32(1 / max(float(np.sqrt((centred**2).sum(1).mean())), 1e-12))
    x = centred * scale
    fits, logits = [], np.empty((len(x), classes), dtype=np.float32)
    for fold in range(FOLDS):
        seen = part != fold
        weights, bias = _fitted(x[seen], labels[seen], classes)
        logits[~seen] = x[~seen] @ weights + bias
        fits.append((weights, bias))
    weights, bias = (np.mean([fit[i] for fit in fits], axis=0).astype(np.float32) for i in (0, 1))
    weights = weights * scale
    return ClassHead(weights, bias - mean @ weights), logits


def _parts(flat: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray]:
    both = flat.reshape(-1, classes).astype(np.float32)
    return both[:-1], both[-1]


def _fitted(x: np.ndarray, labels: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Weights and bias of the least penalised cross entropy, looked for from 0: another fit's would know its images."""
    rows = np.arange(len(x))

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights, bias = _parts(flat, classes)
        logs = log_softmax((x @ weights + bias).astype(np.float64), axis=1)
        off = np.exp(logs)
        off[rows, labels] -= 1
        off = (off / len(x)).astype(np.float32)
        both = flat.reshape(-1, classes)
        gradient = np.concatenate([x.T @ off + PENALTY * weights, off.sum(0, keepdims=True)]).astype(np.float64)
        value = -logs[rows, labels].mean() + PENALTY / 2 * (both[:-1] ** 2).sum()
        return float(value), gradient.ravel()

    start = np.zeros((x.shape[1] + 1) * classes)
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": ITERATIONS})
    return _parts(found.x, classes)
