"""Baselines that look at no shape: brightness, and a random forest on statistics of rings.

A network is worth something only above them. Where the classes differ in brightness, or in how their light falls off
with the distance from the middle, these find it.
"""

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from lensray.bundle import Inputs
from lensray.training import evaluation

RING_EDGES_PIXELS = (0.0, 2.0, 4.0, 6.0, 8.0, 10.0, 13.0, 16.0, 20.0, 33.0)
"""Nine rings; the last reaches the corners of 45×45 pixels."""
CENTRE = 3
TREES = 500


def radial_statistics(images_NBHW: NDArray) -> NDArray[np.float64]:
    """Mean, scatter and 95th percentile of the pixels of each ring, shape (N, 27 · bands).

    Rings are about the middle of the frame; their edges are `RING_EDGES_PIXELS`, scaled to the frame's size.
    """
    height, width = images_NBHW.shape[-2:]
    y, x = np.mgrid[:height, :width].astype(float)
    radius = np.hypot(x - (width - 1) / 2, y - (height - 1) / 2) * 45 / min(height, width)
    columns = []
    for inner, outer in itertools.pairwise(RING_EDGES_PIXELS):
        ring = images_NBHW[:, :, (radius >= inner) & (radius < outer)].astype(np.float64)
        columns += [ring.mean(2), ring.std(2), np.percentile(ring, 95, axis=2)]
    return np.concatenate(columns, axis=1)


def brightness_scores(training_NBHW: NDArray, images_NBHW: NDArray) -> NDArray[np.float64]:
    """Scores from 0 to 1 that fall with the mean of the 7×7 pixels in the middle: unlensed mocks are the brighter ones.

    Images fainter than the median of the training images score more than a half.
    """
    usual = _middle(training_NBHW)
    spread = max(float(usual.std()), 1e-30)
    return expit((np.median(usual) - _middle(images_NBHW)) / spread)


def _middle(images_NBHW: NDArray) -> NDArray[np.float64]:
    row, column = (side // 2 for side in images_NBHW.shape[-2:])
    part = images_NBHW[..., row - CENTRE : row + CENTRE + 1, column - CENTRE : column + CENTRE + 1]
    return part.mean((1, 2, 3), dtype=np.float64)


def forest_scores(
    training_NBHW: NDArray, is_lens: NDArray[np.bool_], images_NBHW: NDArray, seed: int = 0
) -> NDArray[np.float64]:
    """Share of the trees of a random forest, trained on some images, that take others for lenses, shape (M,)."""
    from sklearn.ensemble import RandomForestClassifier

    forest = RandomForestClassifier(TREES, random_state=seed, n_jobs=1)
    forest.fit(radial_statistics(training_NBHW), is_lens)
    votes = np.asarray(forest.predict_proba(radial_statistics(images_NBHW)))
    return votes[:, list(forest.classes_).index(True)]


def labelled_images(
    surveys: Sequence[str], inputs: Inputs, limit: int | None = None
) -> tuple[NDArray, NDArray[np.bool_]]:
    """Images of labelled surveys that can be scored, and their labels; the first `limit` of all."""
    images, labels, count = [], [], 0
    for found, is_lens in evaluation.labelled_images(surveys, inputs, "label"):
        images.append(found)
        labels.append(is_lens)
        count += len(is_lens)
        if limit is not None and count >= limit:
            break
    return np.concatenate(images)[:limit], np.concatenate(labels)[:limit]
