"""Inception Score (Salimans et al. 2016): how sure a classifier is of each image, and how many classes it finds in all
of them. It looks at generated images alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.special import log_softmax

from trilemma.errors import InputError
from trilemma.metrics.cautions import caution
from trilemma.metrics.checks import check_count

SPLITS = 10
"""The paper's number of parts."""


@dataclass(frozen=True)
class InceptionScore:
    """`mean` and `std` over the splits, the figures that are usually printed as "IS ± std". From 1, where all images
    are alike to the classifier, to its number of classes. `standard_error`: that of `mean`, the splits' spread over the
    root of their number."""

    mean: float
    std: float
    standard_error: float


def inception_score(*, fake: Float[np.ndarray, "n k"], splits: int = SPLITS, seed: int = 0) -> InceptionScore:
    """exp(E_x KL(p(y|x) ‖ p(y))) over each of `splits` equal parts of the images (Salimans et al. 2016, sec. 4), from
    `fake`, the classifier's logits. p(y) is a part's own mean.

    The images are shuffled first, since samples that come class by class would score lower in parts. So do
    torch-fidelity (with a seed of its own; its `samples_shuffle`) and torchmetrics, whose ± has n − 1 where this and
    torch-fidelity's has n; the original code takes the parts in order. Figures compare only for the same classifier (of
    the 2015 Inception network: its 1008 outputs without bias) and the same number of images a part: few images bias the
    score downward.

    Warns where a part has fewer images than there are classes. Raises InputError for NaN, splits below 2, and
    `TooFewError` for fewer images than splits."""
    if splits < 2:
        raise InputError(f"inception_score: splits is {splits}, expected 2 or more")
    check_count(fake, splits, "inception_score: generated", f" for {splits} splits")
    classes = fake.shape[1]
    if len(fake) < splits * classes:
        caution(
            f"inception_score: {len(fake) // splits} images in each of {splits} parts for {classes} classes bias it "
            f"downward, expected {classes} or more"
        )
    scores = []
    for part in np.array_split(np.random.default_rng(seed).permutation(len(fake)), splits):
        logs = log_softmax(fake[part].astype(np.float64), axis=1)
        shares = np.exp(logs)
        mean = shares.mean(axis=0)
        known = mean > 0  # 0 log 0 = 0
        scores.append(math.exp(np.sum(shares[:, known] * (logs[:, known] - np.log(mean[known]))) / len(part)))
    return InceptionScore(
        float(np.mean(scores)), float(np.std(scores)), float(np.std(scores, ddof=1) / math.sqrt(splits))
    )
