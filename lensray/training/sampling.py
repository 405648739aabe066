"""The order in which images are shown: each once, or as pairs.

Negative learning: every lens of a mini-batch beside a freshly drawn non-lens (Pourrahmani 2019, section 4.2).

Lenses are few and other galaxies many. An epoch goes once through the lenses, in random order; each is
accompanied by a galaxy drawn anew from a large pool (50,000 in the thesis). So the batches are balanced, the
training set changes from epoch to epoch, and in the end the network has seen far more galaxies than lenses.
What is drawn depends on seed and epoch alone.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray


def paired_indices(
    positives: int, negatives: int, batch_size: int, *, seed: int, epoch: int, repeats: int = 1
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Indices of the positives and negatives of each mini-batch of one epoch.

    Parameters
    ----------
    positives, negatives : int
        How many there are of each.
    batch_size : int
        Images in a mini-batch, half of each class; even. The batches of an epoch differ in size by one pair
        at most, so none is too small for its batch statistics.
    seed, epoch : int
        Both together fix the draws.
    repeats : int
        How often the epoch goes through the positives.

    Yields
    ------
    tuple of two int64 arrays
        Of equal length, at most ``batch_size / 2``. Every positive occurs `repeats` times an epoch. A negative is
        drawn without replacement within the epoch as long as the pool lasts.
    """
    if positives < 1 or negatives < 1:
        raise ValueError(f"negative learning needs images of both classes; got {positives} and {negatives}")
    if batch_size < 2 or batch_size % 2:
        raise ValueError(f"a batch of pairs has an even number of images; got {batch_size}")
    generator = np.random.default_rng([seed, epoch])
    order = _rounds(positives, positives * repeats, generator)
    drawn = _rounds(negatives, len(order), generator)
    batches = steps_of(len(order), batch_size // 2)
    yield from zip(np.array_split(order, batches), np.array_split(drawn, batches), strict=True)


def shuffled_indices(
    count: int, batch_size: int, *, seed: int, epoch: int, repeats: int = 1
) -> Iterator[NDArray[np.int64]]:
    """Indices of the images of each mini-batch of one epoch: each image `repeats` times, in random order."""
    order = _rounds(count, count * repeats, np.random.default_rng([seed, epoch]))
    yield from np.array_split(order, steps_of(len(order), batch_size))


def steps_of(count: int, batch_size: int) -> int:
    """Mini-batches that `count` images make."""
    return max(1, -(-count // batch_size))


def _rounds(count: int, wanted: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """`wanted` numbers below `count`: one permutation after the other."""
    rounds = [generator.permutation(count) for _ in range(-(-wanted // count))]
    return np.concatenate(rounds)[:wanted]
