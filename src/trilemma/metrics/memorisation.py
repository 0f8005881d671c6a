"""Whether generated images are copies of training images: how near they come to one, against how near unseen images of
the same kind come."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.stats import rankdata

from trilemma.metrics.cautions import caution
from trilemma.metrics.checks import check_sets
from trilemma.metrics.neighbours import MEMORY, nearest_distances


@dataclass(frozen=True)
class Memorisation:
    """`share`: generated images nearer to a training image than all but 1 % of held-out images are; 0.01 where
    nothing is memorised, 1 where all is copied; `share_se`, its standard error over draws of the generated images,
    against the same training and held-out ones: binomial, an image at least. `ratio`: the median distance of
    generated images over that of held-out ones, about 1 where nothing is memorised, below where generated images
    come nearer. Both leave out held-out images that are copies of training images, and are NaN where none is left.
    `z`: the Mann-Whitney statistic of the same, in standard deviations: about 0, well below −3 for copying, above 3
    where generated images are farther from the training set than real ones, as poor images are. Such images can hide
    copies in `ratio` and `z`, not in `share`."""

    share: float
    share_se: float
    ratio: float
    z: float


def memorisation(
    *,
    real: Float[np.ndarray, "n d"],
    fake: Float[np.ndarray, "m d"],
    holdout: Float[np.ndarray, "h d"],
    memory: int = MEMORY,
) -> Memorisation:
    """Distances in features of generated and of held-out images to their nearest training image (`real`).

    `z` is the data-copying statistic C_T of Meehan, Chaudhuri & Dasgupta (2020, sec. 3), with the whole space as its
    only cell: (U − mh/2) / √(mh(m + h + 1)/12), U the pairs in which the generated image is the farther one, ties
    halved.

    `real` must be what the model was trained on and `holdout` of the same distribution, without copies of it. Warns
    for fewer than 100 held-out images (no 1 % of them), and where some are copies of training images, with which the
    nearest 1 % of them would be at distance 0 and no copy nearer. `z` has them in. Raises
    InputError for NaN, features of two lengths, and `TooFewError` for a side without images."""
    check_sets("memorisation", 1, real=real, generated=fake, holdout=holdout)
    far_fake = nearest_distances(fake, real, memory=memory)
    far_held = nearest_distances(holdout, real, memory=memory)
    unseen = far_held[far_held > 0]
    copies = len(holdout) - len(unseen)
    if copies:
        caution(
            f"memorisation: {copies} of {len(holdout)} held-out images are copies of training images in features, "
            "left out of the share and the ratio"
        )
    if 0 < len(unseen) < 100:
        caution(f"memorisation: {len(unseen)} held-out images, expected 100 or more for the nearest 1 % of them")
    m, h = len(fake), len(holdout)
    farther = rankdata(np.concatenate([far_fake, far_held]))[:m].sum() - m * (m + 1) / 2
    z = (farther - m * h / 2) / math.sqrt(m * h * (m + h + 1) / 12)
    if not len(unseen):
        return Memorisation(math.nan, math.nan, math.nan, float(z))
    share = float(np.mean(far_fake < np.quantile(unseen, 0.01)))
    error = max(math.sqrt(share * (1 - share) / m), 1 / m)
    return Memorisation(share, error, float(np.median(far_fake) / np.median(unseen)), float(z))
