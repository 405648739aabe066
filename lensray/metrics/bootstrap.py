"""Errors of metrics, by drawing the sample again from itself (Efron 1979).

Lenses and non-lenses are drawn apart, each as many as there are: the numbers of both are what an experimenter chose,
no outcome. Two models that scored the same cutouts are compared draw by draw, which takes out what the sample has
in common: the error of a difference is then smaller than that of its terms.
"""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lensray.metrics.counts import ClassCounts

REPEATS = 200

Metric = Callable[[NDArray[np.float64], NDArray[np.bool_]], float]


def resamples(is_lens: ArrayLike, repeats: int = REPEATS, seed: int = 0) -> Iterator[NDArray[np.intp]]:
    """Rows of each drawn sample, in which both classes are as large as in the whole.

    Examples
    --------
    >>> [rows.tolist() for rows in resamples([True, False, False], repeats=2)]
    [[0, 2, 2], [0, 2, 1]]
    """
    lens = np.asarray(is_lens, dtype=bool)
    classes = [np.flatnonzero(lens), np.flatnonzero(~lens)]
    generator = np.random.default_rng(seed)
    for _ in range(repeats):
        yield np.concatenate([rows[generator.integers(0, len(rows), len(rows))] for rows in classes])


def standard_error(
    metric: Metric, scores: ArrayLike, is_lens: ArrayLike, *, repeats: int = REPEATS, seed: int = 0
) -> float:
    """Scatter of a metric over drawn samples.

    Parameters
    ----------
    metric : callable
        ``metric(scores, is_lens)``.
    scores : array_like of float, shape (N,)
    is_lens : array_like of bool, shape (N,)
    repeats, seed : int
        Samples drawn, and the seed of the draws.

    Notes
    -----
    It tells how much another sample of the same size would have differed; not what another training would have given.
    """
    values, lens = np.asarray(scores, np.float64), np.asarray(is_lens, bool)
    return float(np.std([metric(values[rows], lens[rows]) for rows in resamples(lens, repeats, seed)]))


def standard_error_of_difference(
    metric: Metric,
    first: ArrayLike,
    second: ArrayLike,
    is_lens: ArrayLike,
    *,
    repeats: int = REPEATS,
    seed: int = 0,
) -> float:
    """Scatter of ``metric(first) - metric(second)`` over drawn samples of the same cutouts."""
    a, b, lens = np.asarray(first, np.float64), np.asarray(second, np.float64), np.asarray(is_lens, bool)
    return float(
        np.std(
            [
                metric(a[rows], lens[rows]) - metric(b[rows], lens[rows])
                for rows in resamples(lens, repeats, seed)
            ]
        )
    )


def resampled_counts(counts: ClassCounts, repeats: int = REPEATS, seed: int = 0) -> Iterator[ClassCounts]:
    """Counts of each drawn sample, without ranking every one anew.

    Parameters
    ----------
    counts : ClassCounts
        Of the whole sample.
    repeats, seed : int
        Samples drawn, and the seed of the draws.

    Notes
    -----
    Rows of equal score, and non-lenses between the same two lenses, are the same to every metric. So what is drawn is the
    place of a row among the lenses' scores, and a sample of 100,000 takes milliseconds, not the tens that sorting needs.
    """
    lens_places = np.repeat(np.arange(len(counts.thresholds)), counts.positives)
    # Place 2i + 1 is at threshold i, the even ones are in between.
    bins = np.zeros(2 * len(counts.thresholds) + 1, np.int64)
    bins[1::2] = counts.negatives
    above = counts.negatives_greater
    bins[::2] = np.append(counts.n_negatives, above) - np.append(above + counts.negatives, 0)
    places = np.repeat(np.arange(len(bins)), bins)
    generator = np.random.default_rng(seed)
    for _ in range(repeats):
        lenses, others = (
            drawn[generator.integers(0, len(drawn), len(drawn))] for drawn in (lens_places, places)
        )
        drawn_bins = np.bincount(others, minlength=len(bins))
        yield ClassCounts(
            thresholds=counts.thresholds,
            positives=np.bincount(lenses, minlength=len(counts.thresholds)),
            negatives=drawn_bins[1::2],
            negatives_greater=(counts.n_negatives - np.cumsum(drawn_bins))[1::2],
            n_negatives=counts.n_negatives,
        )
