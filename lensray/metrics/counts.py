"""Counts of scores above a few thresholds: what exact ranks need, without sorting the survey.

A survey's scores do not fit into memory, but the scores of its known lenses do. How many cutouts lie
above, at and below each of these is a sum over fragments, in any order and on any number of machines;
every rank, and with it every metric of this package, follows from these counts exactly.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Counts = NDArray[np.int64]
Scores = NDArray[np.float64]


class RankCounts:
    """How many scores of a survey lie above, at and below each threshold.

    Parameters
    ----------
    thresholds : array_like of float, shape (M,)
        Scores to be ranked, such as those of the tracers; repeated values count once.

    Raises
    ------
    ValueError
        If a threshold or, later, a score is NaN.

    Notes
    -----
    Memory is proportional to M; adding n scores takes O(n log M). Scores are compared as float64, which holds
    every float32 exactly: thresholds and scores must have come from the same type to be found equal.

    Examples
    --------
    >>> counts = RankCounts([0.5, 0.9])
    >>> counts.add([0.9, 0.7, 0.5])
    >>> counts.add([0.95, 0.1])
    >>> counts.n, counts.greater().tolist(), counts.equal().tolist(), counts.less().tolist()
    (5, [3, 1], [1, 1], [1, 3])
    """

    def __init__(self, thresholds: ArrayLike) -> None:
        self.thresholds: Scores = np.unique(as_scores(thresholds))
        # Bin 2i + 1 holds the scores equal to threshold i, the even bins those in between.
        self._bins = np.zeros(2 * len(self.thresholds) + 1, dtype=np.int64)

    def add(self, scores: ArrayLike) -> None:
        """Count the scores of one fragment, in any order of fragments."""
        values = as_scores(scores)
        left = np.searchsorted(self.thresholds, values, side="left")
        right = np.searchsorted(self.thresholds, values, side="right")
        # Not in place: counts that come from another process are read-only.
        self._bins = self._bins + np.bincount(left + right, minlength=len(self._bins))

    def merge(self, other: "RankCounts") -> None:
        """Add what `other` counted, of other fragments, at the same thresholds."""
        if not np.array_equal(self.thresholds, other.thresholds):
            raise ValueError("counts with other thresholds cannot be merged; count both at the same")
        self._bins = self._bins + other._bins

    @property
    def n(self) -> int:
        """Number of scores counted."""
        return int(self._bins.sum())

    def greater(self, scores: ArrayLike | None = None) -> Counts:
        """Number of counted scores above each threshold, or above each of `scores`, which must be thresholds."""
        return self._at((self.n - np.cumsum(self._bins))[1::2], scores)

    def equal(self, scores: ArrayLike | None = None) -> Counts:
        """Number of counted scores equal to each threshold, or to each of `scores`."""
        return self._at(self._bins[1::2].copy(), scores)

    def less(self, scores: ArrayLike | None = None) -> Counts:
        """Number of counted scores below each threshold, or below each of `scores`."""
        return self._at(np.cumsum(self._bins)[:-1:2], scores)

    def _at(self, counts: Counts, scores: ArrayLike | None) -> Counts:
        if scores is None:
            return counts
        values = as_scores(scores)
        index = np.searchsorted(self.thresholds, values)
        if not np.isin(values, self.thresholds).all():
            raise ValueError("ranks are known at the thresholds alone; make the counts with these scores")
        return counts[index]


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassCounts:
    """Positives and negatives at each score that a positive has: all that a metric of two classes needs."""

    thresholds: Scores
    """Scores of the positives, each once, ascending; shape (M,)."""
    positives: Counts
    """Positives at each threshold."""
    negatives: Counts
    """Negatives at each threshold (ties)."""
    negatives_greater: Counts
    """Negatives above each threshold."""
    n_negatives: int
    """All negatives."""

    @property
    def n_positives(self) -> int:
        """All positives."""
        return int(self.positives.sum())

    @property
    def n(self) -> int:
        """The whole pool."""
        return self.n_positives + self.n_negatives

    @property
    def positives_greater(self) -> Counts:
        """Positives above each threshold."""
        return self.n_positives - np.cumsum(self.positives)

    @classmethod
    def of(cls, scores: ArrayLike, is_positive: ArrayLike) -> "ClassCounts":
        """Counts of scores in memory.

        Parameters
        ----------
        scores : array_like of float, shape (N,)
        is_positive : array_like of bool, shape (N,)

        Raises
        ------
        ValueError
            If the shapes differ, a score is NaN, or there is no positive.
        """
        values, positive = np.asarray(scores, dtype=np.float64), np.asarray(is_positive, dtype=bool)
        if values.shape != positive.shape or values.ndim != 1:
            raise ValueError(
                f"scores and classes must be of one shape (N,); got {values.shape} and {positive.shape}"
            )
        counted = RankCounts(values[positive])
        counted.add(values[~positive])
        return cls.from_counts(values[positive], counted)

    @classmethod
    def from_counts(cls, positives: ArrayLike, negatives: RankCounts) -> "ClassCounts":
        """Counts of the positives' scores and of negatives counted at (at least) these.

        Raises
        ------
        ValueError
            If there is no positive, or `negatives` lacks one of their scores as a threshold.
        """
        thresholds, count = np.unique(as_scores(positives), return_counts=True)
        if not len(thresholds):
            raise ValueError("there is no tracer or lens to measure with; mark some cutouts as such")
        return cls(
            thresholds=thresholds,
            positives=count.astype(np.int64),
            negatives=negatives.equal(thresholds),
            negatives_greater=negatives.greater(thresholds),
            n_negatives=negatives.n,
        )


def as_scores(scores: ArrayLike) -> Scores:
    """Scores as float64, flat; ValueError if one is NaN."""
    values = np.asarray(scores, dtype=np.float64).ravel()
    if np.isnan(values).any():
        raise ValueError("a score is NaN; leave out the cutouts that have no score")
    return values
