"""Negative learning: every lens of a mini-batch beside a freshly drawn non-lens (Pourrahmani 2019, section 4.2).

Lenses are few and other galaxies many. An epoch goes once through the lenses, in random order; each is
accompanied by a galaxy drawn anew from a large pool (50,000 in the thesis). So the batches are balanced, the
training set changes from epoch to epoch, and in the end the network has seen far more galaxies than lenses.
What is drawn depends on seed and epoch alone.
"""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

NEGATIVE, POSITIVE = 0, 1


def paired_indices(
    positives: int, negatives: int, batch_size: int, *, seed: int, epoch: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Indices of the positives and negatives of each mini-batch of one epoch.

    Parameters
    ----------
    positives, negatives : int
        How many there are of each.
    batch_size : int
        Images in a mini-batch, half of each class; even. The last batch may be smaller.
    seed, epoch : int
        Both together fix the draws.

    Yields
    ------
    tuple of two int64 arrays
        Of equal length, at most ``batch_size / 2``. Every positive occurs once an epoch. A negative is drawn
        without replacement within the epoch as long as the pool lasts.
    """
    if positives < 1 or negatives < 1:
        raise ValueError(f"negative learning needs images of both classes; got {positives} and {negatives}")
    if batch_size < 2 or batch_size % 2:
        raise ValueError(f"a batch of pairs has an even number of images; got {batch_size}")
    generator = np.random.default_rng([seed, epoch])
    order = generator.permutation(positives)
    rounds = [generator.permutation(negatives) for _ in range(-(-positives // negatives))]
    drawn = np.concatenate(rounds)[:positives]
    for start in range(0, positives, batch_size // 2):
        part = slice(start, start + batch_size // 2)
        yield order[part], drawn[part]


def paired_batches(
    positives: Tensor, negatives: Tensor, batch_size: int, *, seed: int, epoch: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Images and labels (0 non-lens, 1 lens) of each mini-batch of one epoch, drawn by `paired_indices`.

    `positives` and `negatives` have the shape (count, bands, height, width) and one type; uint8 saves memory.
    """
    pairs = paired_indices(len(positives), len(negatives), batch_size, seed=seed, epoch=epoch)
    for lenses, galaxies in pairs:
        images = torch.cat([positives[torch.from_numpy(lenses)], negatives[torch.from_numpy(galaxies)]])
        labels = torch.full((len(images),), NEGATIVE)
        labels[: len(lenses)] = POSITIVE
        yield images, labels
