"""How different generated images are: from each other, and from the images that they were learned from.

The distance of two images is the root mean square of their difference on blocks of 4×4 pixels, where the noise of
single pixels averages out, in the orientation (of eight) in which they are most alike.
"""

from collections.abc import Callable, Mapping
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from scipy.stats import ks_2samp

BLOCK = 4
Images = NDArray[np.floating]


def nearest(
    images_NCHW: Images, others_MCHW: Images | None = None
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The nearest of the others to each image, or of the same set without itself.

    Parameters
    ----------
    images_NCHW, others_MCHW : array
        Square images of one shape.

    Returns
    -------
    distances, places : arrays of shape (N,)
        Empty if there is nothing to compare with.
    """
    alone = others_MCHW is None
    first, second = _blocks(images_NCHW), _blocks(images_NCHW if others_MCHW is None else others_MCHW)
    if not len(first) or len(second) <= alone:
        return np.empty(0), np.empty(0, np.int64)
    flat = second.reshape(len(second), -1)
    distances = np.full((len(first), len(second)), np.inf)
    for turned in _orientations(first):
        distances = np.minimum(distances, cdist(turned.reshape(len(first), -1), flat))
    if alone:
        np.fill_diagonal(distances, np.inf)
    return distances.min(1) / np.sqrt(flat.shape[1]), distances.argmin(1)


def _blocks(images: Images) -> NDArray[np.float64]:
    """Means over blocks of pixels; what is left over at the edges is not used."""
    count, bands, height, width = images.shape
    if height != width:
        raise ValueError(f"images must be square; got {height}×{width}")
    block = min(BLOCK, height)
    cut = images[..., : height // block * block, : width // block * block]
    return cut.reshape(count, bands, height // block, block, width // block, block).mean((3, 5), dtype=float)


def _orientations(images: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    turned = [np.rot90(images, quarter, axes=(2, 3)) for quarter in range(4)]
    return [*turned, *(image[..., ::-1] for image in turned)]


def share_within(
    generated: NDArray[np.floating], unseen: NDArray[np.floating], *, chance: float = 0.05
) -> tuple[float, float]:
    """Share of generated images that lie as near to a training image as hardly any unseen real image does.

    Parameters
    ----------
    generated, unseen : array of shape (N,)
        Distances to the nearest training image, of generated images and of images of the training images' kind that
        were not learned from.
    chance : float
        Share of the unseen images that lie as near.

    Returns
    -------
    share, limit : float
        About `chance` for a generator that has learned the kind, near 1 for one that repeats its training set; the
        distance below which an image counts.
    """
    limit = float(np.quantile(unseen, chance))
    return float(np.mean(generated <= limit)), limit


STATISTICS: Mapping[str, Callable[[Images], NDArray[np.float64]]] = {
    "mean": lambda images: images.mean((1, 2, 3), dtype=float),
    "scatter": lambda images: images.std((1, 2, 3), dtype=float),
    "light within a quarter of the width": lambda images: _central_share(images),
    "first band over last": lambda images: (
        images[:, 0].mean((1, 2), dtype=float) / np.maximum(images[:, -1].mean((1, 2), dtype=float), 1e-6)
    ),
    "pixel noise": lambda images: np.abs(np.diff(images[..., : images.shape[-2] // 4, :], axis=-1)).mean(
        (1, 2, 3), dtype=float
    ),
    "asymmetry": lambda images: np.abs(images - images[..., ::-1, ::-1]).mean((1, 2, 3), dtype=float),
}
"""A number of each image, by name; pixel noise is the difference of neighbouring pixels in the first quarter of the rows."""


def _central_share(images: Images) -> NDArray[np.float64]:
    height, width = images.shape[-2:]
    y, x = np.mgrid[:height, :width]
    near = np.hypot(y - (height - 1) / 2, x - (width - 1) / 2) < width / 8
    return images[..., near].sum((1, 2), dtype=float) / np.maximum(images.sum((1, 2, 3), dtype=float), 1e-6)


def statistics_distances(images: Images, reference: Images) -> dict[str, float]:
    """Kolmogorov-Smirnov distance of each of `STATISTICS` between two sets: 0 where they agree, 1 where they are apart."""
    return {
        name: float(cast(Any, ks_2samp(statistic(images), statistic(reference))).statistic)
        for name, statistic in STATISTICS.items()
    }
