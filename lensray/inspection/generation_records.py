"""What the report says of generated images, as plain data."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lensray.metrics.diversity import nearest, share_within, statistics_distances

COPY_CHANCE = 0.05


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Generation:
    """Generated images beside those that were learned from, and others of the same kind that were not."""

    generated: NDArray
    """Shape (N, bands, height, width), values in [0, 1]."""
    training: NDArray
    """Images that were learned from."""
    unseen: NDArray
    """Images of the same kind that were not."""
    bands: tuple[str, ...]
    """Bands of the images."""
    distances: Mapping[str, NDArray[np.float64]]
    """Distances to the nearest image, by what is compared."""
    nearest: NDArray[np.int64]
    """Place of the training image that is nearest to each generated one."""
    values: Mapping[str, float]
    """``diversity``: median distance of generated images to their nearest, in units of that of unseen real ones;
    ``copied``: share of generated images as near to a training image as 5% of the unseen ones are."""
    statistics: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Kolmogorov-Smirnov distances to the unseen images by statistic, of the generated and of the training images."""


def spread(images: NDArray, count: int) -> NDArray:
    """As many of the images, from the first to the last; all of them if there are fewer."""
    return images[np.unique(np.linspace(0, len(images) - 1, count).round().astype(int))]


def generation(generated: NDArray, training: NDArray, unseen: NDArray, bands: tuple[str, ...]) -> Generation:
    """Compare generated images with those that were learned from and with unseen ones."""
    # The nearest of many is nearer than the nearest of few.
    count = min(len(generated), len(unseen))
    made, _ = nearest(spread(generated, count))
    real, _ = nearest(spread(unseen, count))
    to_training, neighbours = nearest(generated, training)
    unseen_to_training, _ = nearest(unseen, training)
    share, limit = share_within(to_training, unseen_to_training, chance=COPY_CHANCE)
    of_generated = statistics_distances(generated, unseen)
    of_training = statistics_distances(training, unseen)
    return Generation(
        generated=generated,
        training=training,
        unseen=unseen,
        bands=bands,
        distances={
            "generated to generated": made,
            "unseen to unseen": real,
            "generated to training": to_training,
            "unseen to training": unseen_to_training,
        },
        nearest=neighbours,
        values={
            "diversity": float(np.median(made) / np.median(real)) if len(made) and len(real) else 0.0,
            "copied": share,
            "copy_limit": limit,
        },
        statistics={
            name: {"generated": of_generated[name], "training": of_training[name]} for name in of_generated
        },
    )
